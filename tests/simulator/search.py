"""Find planted values in any file, through the encodings that software hides them in.

What is packed inside a file (base64, hex, gzip, zlib, zip, zstd, Parquet, SQLite) is searched like a file, as deep as
asked. A pickle is not unpacked: its texts and numbers stand in it as they are.
"""

import binascii
import contextlib
import math
import re
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq

DEPTH = 5
MAX_LAYER_BYTES = 50_000_000

_RUN_OF_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}(?:(?:\r?\n|(?:\\r)?\\n)[A-Za-z0-9+/_-]+)*")
_RUN_OF_HEX = re.compile(rb"[0-9a-fA-F]{16,}")
_GZIP_OR_ZLIB = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
_ZIP_MEMBER = re.compile(rb"PK\x03\x04.{22}(..)(..)", re.DOTALL)
_ZSTD = re.compile(rb"\x28\xb5\x2f\xfd")
_FOLD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ+", b"abcdefghijklmnopqrstuvwxyz ")
_STANDARD_BASE64 = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True, slots=True)
class Needle:
    """The forms of one value: folded texts, bytes that mean it anywhere, a float32 among others of its kind."""

    texts: tuple[bytes, ...]
    packed: tuple[bytes, ...] = ()
    single: float | None = None

    def is_in(self, data: bytes, folded: bytes) -> bool:
        return (
            any(text in folded for text in self.texts)
            or any(packed in data for packed in self.packed)
            or (self.single is not None and _is_among_floats(self.single, data))
        )


def a_text(*texts: str) -> Needle:
    """A text in any case, as UTF-8 or UTF-16, quoted for an address or not."""
    return Needle(tuple(_fold(text.encode()) for text in texts))


def a_number(number: float) -> Needle:
    """A number in decimals or in scientific notation, exact or as float32; as a double; as a float32 among others."""
    single = struct.unpack("<f", struct.pack("<f", number))[0]
    decimals = (f"{number:.7g}", f"{single:.10g}")
    mantissas = (f"{each:.8e}".partition("e")[0] for each in (number, single))
    return Needle(a_text(*decimals, *mantissas).texts, _packed("d", number, single), single)


def a_whole_number(*numbers: int) -> Needle:
    """Any of some numbers of many digits: in decimals, as eight bytes and as a double."""
    return Needle(a_text(*map(str, numbers)).texts, _packed("q", *numbers) + _packed("d", *numbers))


def a_moment(moment: datetime) -> Needle:
    """A moment of UTC as ISO 8601 and as a ``datetime`` in a pickle; in seconds, milli-, micro- or nanoseconds."""
    seconds = int(moment.replace(tzinfo=UTC).timestamp())
    texts = a_text(f"{moment:%Y-%m-%dT%H:%M:%S}", f"{moment:%Y-%m-%d %H:%M:%S}", str(seconds)).texts
    counts = _packed("q", *(seconds * unit for unit in (1, 10**3, 10**6, 10**9)))
    pickled = struct.pack(">H5B", *moment.timetuple()[:6])
    return Needle(texts, (*counts, *_packed("d", seconds), pickled))


def found_in(data: bytes, needles: dict[str, Needle], depth: int = DEPTH) -> set[str]:
    """Names of the needles that are in the data, unpacked as deep as ``depth``."""
    folded = _fold(data)
    found = {name for name, needle in needles.items() if needle.is_in(data, folded)}
    if depth:
        for layer in filter(None, _layers(data)):
            found |= found_in(layer, needles, depth - 1)
    return found


def files_with(folder: Path, needles: dict[str, Needle]) -> dict[str, set[str]]:
    """Needles by the path below a folder that holds them, in its name or its content; others are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = set().union(*(found_in(each, needles) for each in (name.encode(), *_contents(path))))
    return {name: held for name, held in found.items() if held}


def _contents(path: Path) -> Iterator[bytes]:
    """A file as it lies there, and a database also with what its write-ahead log adds."""
    if path.is_symlink() or not path.is_file():
        return
    yield path.read_bytes()
    if path.with_name(f"{path.name}-wal").exists():
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            yield connection.serialize()


def _fold(data: bytes) -> bytes:
    """Lower case without address quotes; without NULs, UTF-16 of ASCII is ASCII."""
    return unquote_to_bytes(data.translate(_FOLD, b"\0"))


def _packed(kind: str, *numbers: float) -> tuple[bytes, ...]:
    return tuple(struct.pack(order + kind, number) for order in "<>" for number in numbers)


def _is_among_floats(number: float, data: bytes) -> bool:
    """Four bytes occur by chance: two in a row next to them must be floats that people compute with."""
    for order in "<>":
        for match in re.finditer(re.escape(struct.pack(order + "f", number)), data):
            around = (match.start() + 4 * step for step in (-2, -1, 1, 2))
            likely = [_is_likely_float(data, at, order) for at in around]
            if any(first and second for first, second in pairwise(likely)):
                return True
    return False


def _is_likely_float(data: bytes, at: int, order: str) -> bool:
    if not 0 <= at <= len(data) - 4:
        return False
    number = struct.unpack_from(order + "f", data, at)[0]
    return number == 0 or math.isnan(number) or 1e-6 < abs(number) < 1e6


def _layers(data: bytes) -> Iterator[bytes]:
    """What is packed inside, all base64 as four layers and all hex as two."""
    if data.startswith(b"PAR1"):
        yield from _columns(data)
    if data.startswith(b"SQLite format 3\0"):
        yield from _tables(data)
    yield from _decoded_base64(data)
    yield from _decoded_hex(data)
    view = memoryview(data)
    for match in _GZIP_OR_ZLIB.finditer(data):
        yield _inflated(view[match.start() :], wbits=47)
    for match in _ZIP_MEMBER.finditer(data):
        name, extra = (int.from_bytes(size, "little") for size in match.groups())
        yield _inflated(view[match.end() + name + extra :], wbits=-15)
    for match in _ZSTD.finditer(data):
        yield _unpacked_zstd(view[match.start() :])


def _decoded_base64(data: bytes) -> list[bytes]:
    """A run decodes from any of four offsets: what stands before it may belong to the alphabet."""
    layers: list[list[bytes]] = [[], [], [], []]
    for run in _RUN_OF_BASE64.findall(data):
        standard = run.replace(rb"\r", b"").replace(rb"\n", b"").translate(_STANDARD_BASE64, b"\r\n")
        for offset, layer in enumerate(layers):
            rest = standard[offset:]
            layer.append(binascii.a2b_base64(rest[: len(rest) - (len(rest) % 4 == 1)] + b"==="))
    return [b"\n".join(layer) for layer in layers]


def _decoded_hex(data: bytes) -> list[bytes]:
    """Of two offsets, for the same reason."""
    layers: list[list[bytes]] = [[], []]
    for run in _RUN_OF_HEX.findall(data):
        for offset, layer in enumerate(layers):
            rest = run[offset:]
            layer.append(binascii.unhexlify(rest[: len(rest) - len(rest) % 2]))
    return [b"\n".join(layer) for layer in layers]


def _inflated(packed: memoryview, wbits: int) -> bytes:
    with contextlib.suppress(zlib.error):  # most of what looks like a beginning is none
        return zlib.decompressobj(wbits).decompress(packed, MAX_LAYER_BYTES)
    return b""


def _unpacked_zstd(packed: memoryview) -> bytes:
    """Byte by byte: a longer read would lose its bytes to whatever follows the frame."""
    unpacked = bytearray()
    with contextlib.suppress(OSError), pa.CompressedInputStream(pa.py_buffer(packed), "zstd") as stream:
        while len(unpacked) < MAX_LAYER_BYTES and (byte := stream.read(1)):
            unpacked += byte
    return bytes(unpacked)


def _columns(data: bytes) -> Iterator[bytes]:
    """The columns of a Parquet file, a value a line."""
    for column in pq.read_table(pa.py_buffer(data)).columns:
        yield _lines(column.to_pylist())


def _tables(data: bytes) -> Iterator[bytes]:
    """The tables of an SQLite file, a value a line: the file itself cuts what is longer than a page."""
    without_journal = data[:18] + b"\1\1" + data[20:]
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(without_journal)
        connection.text_factory = bytes
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = connection.execute(f'SELECT * FROM "{table.decode()}"')
            yield _lines(value for row in rows for value in row)


def _lines(values: Iterable[object]) -> bytes:
    return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in values)
