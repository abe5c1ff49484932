"""Text files as text: UTF-8, or UTF-16 and UTF-32 that begin with a byte order mark; plain or gzipped."""

from __future__ import annotations

import codecs
import gzip
import zlib
from pathlib import Path
from typing import NamedTuple

from lethe.errors import UserError, first_line
from lethe.storage.files import refuse_pointer

GZIPPED = b"\x1f\x8b"
# UTF-32's marks first: the little-endian one begins with UTF-16's.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


class TextFile(NamedTuple):
    """The `text` of a file, whose lines end with a line feed, and the `encoding` that it was in."""

    text: str
    encoding: str


def read_text_file(path: Path) -> TextFile:
    """Read a text file. Raises UserError, with line and byte, for one in another encoding: which one it is, nobody can
    tell from the bytes."""
    refuse_pointer(path)
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(GZIPPED) else raw
    except (OSError, EOFError, zlib.error) as error:  # BadGzipFile is an OSError
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    encoding = next((encoding for mark, encoding in MARKS.items() if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        at, name = error.start, encoding.removesuffix("-sig").upper()
        line = error.object[:at].decode(encoding, errors="replace").count("\n") + 1
        raise UserError(
            f"{path} is not {name} text: line {line}, byte {at + 1} (0x{raw[at]:02X}): convert it, such as with"
            f" iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
        ) from None
    if (at := text.find("\0")) >= 0:
        line = text.count("\n", 0, at) + 1
        raise UserError(
            f"{path} is not text: line {line} has a NUL character: if it is UTF-16, convert it, such as with"
            f" iconv -f UTF-16LE -t UTF-8 {path.name} > utf8-{path.name}"
        )
    return TextFile(text.replace("\r\n", "\n").replace("\r", "\n"), encoding)
