"""Deletion records as files: written with a seal, and verified against the seal, the rows and a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from lethe.config.columns import Columns
from lethe.data.privacy import row_hash
from lethe.data.sources import read_source
from lethe.deletion_records import FORMAT, DeletionRecord, ModelIdentity, Request, Seal, content_sha256
from lethe.errors import UserError, first_names

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

Outcome = Literal["holds", "fails", "not checked"]


@dataclass(frozen=True)
class Finding:
    """One part of a verification: what was looked at, and what came out in words."""

    what: str
    outcome: Outcome
    words: str


def seal_of(record: DeletionRecord, key: Path | None = None) -> Seal:
    """Return the seal of a record. `key`: a private key (Ed25519, PEM) to sign with. Raises UserError for a file that
    has none."""
    sha256 = content_sha256(record.model_dump(mode="json"))
    if key is None:
        return Seal(sha256=sha256)
    private = _private_key(key)
    public = private.public_key().public_bytes_raw().hex()
    return Seal(sha256=sha256, signature=private.sign(sha256.encode()).hex(), public_key=public)


def file_content(record: DeletionRecord, seal: Seal) -> str:
    """Return the text of a record's file."""
    content = {"seal": seal.model_dump(mode="json"), "content": record.model_dump(mode="json")}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_sealed(file: Path) -> tuple[dict[str, Any], Seal]:
    """Return the content of a record's file, as it stands there, and its seal. Raises UserError for another file."""
    refusal = f"{file}: is no deletion record: give the .json file that lethe record wrote"
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
        content, seal = given["content"], Seal.model_validate(given["seal"])
        if content["format"] != FORMAT:
            raise UserError(f"{file}: is a {content['format']}: this version of lethe reads {FORMAT}")
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(refusal) from None
    return content, seal


def verify(
    file: Path,
    *,
    forget: str | None = None,
    columns: Columns | None = None,
    model: ModelIdentity | None = None,
    public_key: Path | None = None,
) -> Iterator[Finding]:
    """Yield what a record's file holds against: its seal, the signature, the rows in `forget` and the files of `model`.
    Raises UserError for files that cannot be read."""
    content, seal = read_sealed(file)
    intact = content_sha256(content) == seal.sha256
    if not intact:
        yield Finding("content", "fails", "it was changed after the record was written")
    else:
        yield Finding("content", "holds", "as it was written")
    yield _check_signature(seal, public_key)
    try:
        record = DeletionRecord.model_validate(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        if intact:
            raise UserError(f"{file}: {where}: another version of lethe wrote it") from None
        yield Finding("rows and model", "fails", f"the changed content has no usable {where}")
        return
    yield _check_rows(record.request, forget, columns)
    yield _check_model(record, model)


def _check_signature(seal: Seal, public_key: Path | None) -> Finding:
    """Check the signature: by the given key, or else by the one in the seal, which proves nothing about whose it is."""
    given = _public_key(public_key) if public_key else None
    if not seal.signature:
        if given is not None:
            return Finding("signature", "fails", "the record is not signed")
        words = "the record is not signed: whoever changes it can write a new seal"
        return Finding("signature", "not checked", words)
    key = given or _key_of(seal)
    if key is None or not _is_signed(seal, key):
        return Finding("signature", "fails", "it was not made with this key over this content")
    if public_key is None:
        words = f"made with the key {seal.public_key[:16]}; give --public-key to check whose that is"
        return Finding("signature", "not checked", words)
    return Finding("signature", "holds", f"made with the key in {public_key}")


def _is_signed(seal: Seal, key: Ed25519PublicKey) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(bytes.fromhex(seal.signature), seal.sha256.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


def _check_rows(request: Request, forget: str | None, columns: Columns | None) -> Finding:
    """Check that the rows of `forget` are those of the request: all of them, and no others."""
    if forget is None:
        return Finding("rows", "not checked", "give --forget, the rows that were to be forgotten")
    source = read_source(forget, columns)
    salt = bytes.fromhex(request.salt)
    given = {row_hash(salt, *row.key): row.name for row in source.rows}
    asked = set(request.rows)
    others = [name for digest, name in given.items() if digest not in asked]
    missing = [str(number) for number, digest in enumerate(request.rows, 1) if digest not in given]
    if others or missing:
        found = [
            f"{len(others)} of {len(given)} rows were not in the request: {first_names(others)}" if others else "",
            f"{len(missing)} of its {len(request.rows)} rows are not in {forget}: row {first_names(missing)}"
            if missing
            else "",
        ]
        return Finding("rows", "fails", "; ".join(filter(None, found)))
    return Finding("rows", "holds", f"{forget} has the {len(given)} rows of the request and no others")


def _check_model(record: DeletionRecord, model: ModelIdentity | None) -> Finding:
    """Check that the files of `model` are those of the model that the record is about."""
    if model is None:
        return Finding("model", "not checked", "give --model, the model that is said to have forgotten")
    if model.same_files(record.after):
        return Finding("model", "holds", f"{model.name} has the files of {record.after.name}")
    if model.same_files(record.before):
        return Finding("model", "fails", f"{model.name} is the model before the request was answered")
    return Finding("model", "fails", f"{model.name} has other weights, configuration or tokenizer")


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    remedy = "make one with openssl genpkey -algorithm ed25519 -out key.pem"
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise UserError(f"--key {path}: is no private key in PEM without a password: {remedy}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"--key {path}: is not of the kind Ed25519: {remedy}")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    remedy = "make it with openssl pkey -in key.pem -pubout -out public.pem"
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError):
        raise UserError(f"--public-key {path}: is no public key in PEM: {remedy}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"--public-key {path}: is not of the kind Ed25519: {remedy}")
    return key


def _key_of(seal: Seal) -> Ed25519PublicKey | None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(seal.public_key))
    except ValueError:
        return None
