"""Find planted text in any file, through the encodings that software hides it in."""

import base64
import binascii
import contextlib
import gzip
import io
import pickletools
import re
import sqlite3
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DEPTH = 5
_BASE64 = re.compile(rb"[A-Za-z0-9+/_\-]{16,}={0,2}")
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){8,}")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")


def found_in(data: bytes, needles: dict[str, tuple[bytes, ...]], depth: int = DEPTH) -> set[str]:
    """Names of the needles of which any form is in the data, decoded as deep as ``depth``."""
    found = {name for name, forms in needles.items() if any(form in data for form in forms)}
    if depth:
        for layer in _layers(data):
            found |= found_in(layer, needles, depth - 1)
    return found


def forms_of(text: str) -> tuple[bytes, ...]:
    """A text as UTF-8 and as UTF-16."""
    return text.encode(), text.encode("utf-16-le")


def forms_of_number(number: float) -> tuple[bytes, ...]:
    """A number as decimal text and as a double of either byte order."""
    return (*forms_of(repr(number)), struct.pack("<d", number), struct.pack(">d", number))


def files_with(folder: Path, needles: dict[str, tuple[bytes, ...]]) -> dict[str, set[str]]:
    """Needles by the file below a folder that holds them; files without any are left out."""
    found = {
        str(path.relative_to(folder)): found_in(path.read_bytes(), needles) | _in_database(path, needles)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    return {name: needles for name, needles in found.items() if needles}


def _in_database(path: Path, needles: dict[str, tuple[bytes, ...]]) -> set[str]:
    """Every value of every table: a page boundary may cut a text in the file itself."""
    if not path.read_bytes().startswith(b"SQLite format 3"):
        return set()
    found: set[str] = set()
    connection = sqlite3.connect(path)
    try:
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            for row in connection.execute(f'SELECT * FROM "{name}"'):
                for value in row:
                    if isinstance(value, str | bytes):
                        found |= found_in(value.encode() if isinstance(value, str) else value, needles)
    finally:
        connection.close()
    return found


def _layers(data: bytes) -> Iterator[bytes]:
    """What is packed inside: base64, hex, gzip, zlib, zip, Parquet, pickled texts."""
    if data[:4] == b"PAR1":
        yield from _columns(data)
        return
    if data[:4] == b"PK\x03\x04":
        yield from _members(data)
    for match in _BASE64.finditer(data):
        yield from _from_base64(match.group())
    for match in _HEX.finditer(data):
        yield binascii.unhexlify(match.group())
    for magic, bits in ((b"\x1f\x8b\x08", 31), (b"\x78\x9c", 15), (b"\x78\xda", 15), (b"\x78\x01", 15)):
        for match in re.finditer(re.escape(magic), data):
            try:
                inflated = zlib.decompressobj(bits).decompress(data[match.start() :], 50_000_000)
            except zlib.error:
                continue
            if inflated:
                yield inflated
    for match in _PICKLE.finditer(data):
        yield _pickled_texts(data[match.start() :])


def _from_base64(text: bytes) -> Iterator[bytes]:
    """A run of the alphabet decodes from any of four offsets: what stands before it may belong to the alphabet."""
    standard = text.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    for offset in range(4):
        rest = standard[offset:]
        rest = rest[: len(rest) - (len(rest) % 4 == 1)]
        try:
            yield base64.b64decode(rest + b"=" * (-len(rest) % 4))
        except binascii.Error:
            continue


def _columns(data: bytes) -> Iterator[bytes]:
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError):
        return
    for column in table.columns:
        values = column.to_pylist()
        yield "\n".join(value if isinstance(value, str) else repr(value) for value in values).encode()


def _members(data: bytes) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield archive.read(name)
    except (zipfile.BadZipFile, gzip.BadGzipFile, OSError, RuntimeError):
        return


def _pickled_texts(data: bytes) -> bytes:
    """The constants of a pickle, read from its opcodes; nothing is ever unpickled."""
    texts = []
    with (
        warnings.catch_warnings(),
        contextlib.suppress(Exception),
    ):  # most of what looks like one is no pickle
        warnings.simplefilter("ignore")
        for _, argument, _ in pickletools.genops(data):
            if isinstance(argument, bytes):
                texts.append(argument)
            elif argument is not None:
                texts.append(repr(argument).encode())
    return b"\n".join(texts)
