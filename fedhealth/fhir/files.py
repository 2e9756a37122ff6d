"""Find FHIR files, cut them into parts of equal work, and read a part as blocks of JSON texts for DuckDB.

NDJSON is cut at newlines only, so that one bad line stays one bad line. A ``.json`` file is one resource, one
bundle (transaction, batch, searchset, collection, document, message, history) or NDJSON under another name.
"""

import gzip
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedhealth.errors import ConfigError, DataError

MEBI = 2**20
PART_BYTES = 96 * MEBI
"""Bytes of JSON that one part has about, if there are so many."""
BLOCK_BYTES = 8 * MEBI
"""Bytes of one read: below 32 MiB, above which every block of memory is new pages."""
MAX_TEXT_BYTES = 64 * MEBI
"""A line, or a ``.json`` file that is no NDJSON, longer than this is quarantined (``too_large``) unread."""
MAX_EXPANSION = 200
"""How many times its size a gzip file may hold; FHIR in NDJSON holds 10 to 50 times, a zip bomb 1000."""
FREE_EXPANSION_BYTES = 256 * MEBI
_GZIP_GUESS = 12
NDJSON = (".ndjson", ".jsonl")
SUFFIXES = (*NDJSON, ".json")
_BOM = b"\xef\xbb\xbf"

SCHEMA = pa.schema(
    [
        ("line", pa.int64()),
        ("text", pa.large_string()),
        ("full_url", pa.string()),
        ("fhir_version", pa.string()),
        ("state", pa.string()),
        ("stamp", pa.string()),
    ]
)
"""A block: line number from 1, JSON text, and for bundle entries the full URL, the version and the time that the
bundle states; ``state`` (``no_resource``, ``deleted``, ``not_utf8``, ``too_large``) when the text is not loaded."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file (its place in the list of files), or those of its lines that begin in [start, end)."""

    file: int
    start: int = 0
    end: int | None = None


def find_files(folder: Path) -> tuple[Path, ...]:
    """All FHIR files below a folder, in the order of their names.

    Raises:
      ConfigError: the folder does not exist.
      DataError: it holds no FHIR file.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"the FHIR folder {folder} does not exist", "give the folder that holds the NDJSON files"
        )
    found = sorted(path for path in folder.rglob("*") if path.is_file() and is_fhir_name(path.name))
    if not found:
        raise DataError(
            f"the FHIR folder {folder} holds no FHIR file",
            "put files named *.ndjson, *.ndjson.gz or *.json there",
        )
    return tuple(found)


def is_fhir_name(name: str) -> bool:
    """Whether a file of this name is read."""
    return not name.startswith(".") and name.removesuffix(".gz").endswith(SUFFIXES)


def plan_parts(paths: Sequence[Path]) -> tuple[tuple[Piece, ...], ...]:
    """Cut files into parts of about ``PART_BYTES``: small files together, large NDJSON files in ranges.

    A gzip file cannot be cut, nor can a ``.json`` file.
    """
    parts: list[tuple[Piece, ...]] = []
    current: list[Piece] = []
    filled = 0
    for file, path in enumerate(paths):
        size = path.stat().st_size
        if path.name.endswith(NDJSON) and size > PART_BYTES:
            step = -(
                -size // round(size / PART_BYTES)
            )  # equal ranges: a short last one costs as much as a long one
            parts += [(Piece(file, start, start + step),) for start in range(0, size, step)]
            continue
        weight = size * _GZIP_GUESS if path.name.endswith(".gz") else size
        if current and filled + weight > PART_BYTES:
            parts.append(tuple(current))
            current, filled = [], 0
        current.append(Piece(file))
        filled += weight
    return (*parts, tuple(current)) if current else tuple(parts)


def read_blocks(
    path: Path, *, called: str, start: int = 0, end: int | None = None
) -> Generator[pa.Table, None, int]:
    """The texts of one file, or of its lines that begin in [start, end), in blocks with schema ``SCHEMA``.

    Lines are numbered from 1 at ``start``; the generator returns how many there were.

    Args:
      path: the file.
      called: how an error calls it, such as ``file 3 of 12``. Errors may leave the site, and exports by
        patient are named after people.
      start, end: byte offsets; of an NDJSON file that is not compressed.

    Raises:
      DataError: the file cannot be read to its end, or holds more than a gzip file of its size should; its
        name is in a note alone.
    """
    try:
        with _open(path) as stream:
            if path.name.removesuffix(".gz").endswith(NDJSON):
                return (yield from _ndjson(stream, start=start, end=end))
            return (yield from _json(stream))
    except _TooLargeError:
        error = DataError(
            f"{called} expands to more than {MAX_EXPANSION} times its size (code too_large)",
            "find it in site.log or by counting the FHIR files sorted by path; unpack it yourself if it is right",
        )
    except (EOFError, zlib.error, OSError):
        error = DataError(
            f"{called} cannot be read to its end (code unreadable_file)",
            "find it in site.log or by counting the FHIR files sorted by path; copy or export it again, "
            "and check it with gzip -t",
        )
    # quoted: a name may hold line ends and bytes that are no text
    error.add_note(f"the file: {str(path)!r}")
    raise error from None


class _TooLargeError(Exception):
    """A gzip file holds more than it should."""


class _Guarded:
    """A gzip file that refuses to expand without end."""

    def __init__(self, stream: IO[bytes], *, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int) -> bytes:
        return self._spend(self._stream.read(size))

    def readline(self, size: int) -> bytes:
        return self._spend(self._stream.readline(size))

    def _spend(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise _TooLargeError
        return data

    def __enter__(self) -> "_Guarded":
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


def _open(path: Path) -> IO[bytes]:
    if not path.name.endswith(".gz"):
        return path.open("rb")
    size = path.stat().st_size
    if size == 0:  # gzip reads it as empty, but a compressed nothing has 20 bytes
        raise EOFError
    limit = max(FREE_EXPANSION_BYTES, MAX_EXPANSION * size)
    return cast(IO[bytes], _Guarded(cast(IO[bytes], gzip.open(path, "rb")), limit=limit))


def _ndjson(
    stream: IO[bytes], *, start: int = 0, end: int | None = None, rest: bytes = b"", first: int = 1
) -> Generator[pa.Table, None, int]:
    position = start
    if start:
        stream.seek(start - 1)
        position += _skip_line(stream) - 1
    while True:
        if end is None or position < end:
            chunk = stream.read(BLOCK_BYTES if end is None else min(BLOCK_BYTES, end - position))
        else:  # the range ends here, its last line may not
            chunk = stream.readline(BLOCK_BYTES) if rest else b""
        if not chunk:
            break
        begun = rest
        if position == 0:
            chunk, position = chunk.removeprefix(_BOM), len(chunk)
        else:
            position += len(chunk)
        cut = chunk.rfind(b"\n") + 1
        rest = chunk[cut:] if cut else begun + chunk
        if cut:
            ends = _line_ends(data := b"".join((begun, memoryview(chunk)[:cut])))
            yield lines_block(data, first=first, ends=ends)
            first += len(ends)
        if len(rest) > MAX_TEXT_BYTES:
            position += _skip_line(stream)
            rest = b""
            yield _table(np.array([first]), pa.array([""], pa.large_string()), states=["too_large"])
            first += 1
    if rest:
        yield lines_block(rest, first=first)
        first += 1
    return first - 1


def _skip_line(stream: IO[bytes]) -> int:
    """Read on behind the next line end; returns the number of bytes."""
    skipped = 0
    while chunk := stream.readline(BLOCK_BYTES):
        skipped += len(chunk)
        if chunk.endswith(b"\n"):
            break
    return skipped


def _line_ends(data: bytes) -> NDArray[np.int64]:
    """The places behind the line ends; the end of ``data`` is one."""
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == 10) + 1
    return ends if len(ends) and ends[-1] == len(data) else np.append(ends, len(data))


def lines_block(data: bytes, *, first: int, ends: NDArray[np.int64] | None = None) -> pa.Table:
    """The lines of ``data``, blank ones left out; lines that are not UTF-8 have the state ``not_utf8``."""
    try:
        if not data.isascii():  # many times faster than to decode
            data.decode()
    except UnicodeDecodeError:
        return _odd_lines(data, first=first)
    ends = _line_ends(data) if ends is None else ends
    offsets = np.concatenate([[0], ends])
    texts = pa.LargeStringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(data))
    table = _table(np.arange(first, first + len(ends)), texts)
    spaced = np.flatnonzero(np.frombuffer(data, dtype=np.uint8)[offsets[:-1]] <= ord(" "))
    blank = [int(i) for i in spaced if not data[offsets[i] : offsets[i + 1]].strip()]
    if not blank:
        return table
    kept = np.ones(len(ends), dtype=bool)
    kept[blank] = False
    return table.filter(pa.array(kept))


def _odd_lines(data: bytes, *, first: int) -> pa.Table:
    numbers, texts, states = [], [], []
    for number, line in enumerate(data.split(b"\n"), first):
        if line.strip():
            decoded, state = _decode(line)
            numbers.append(number)
            texts.append(decoded)
            states.append(state)
    return _table(np.array(numbers, dtype=np.int64), pa.array(texts, pa.large_string()), states=states)


def _decode(line: bytes) -> tuple[str, str | None]:
    try:
        return line.decode(), None
    except UnicodeDecodeError:
        return "", "not_utf8"


def _table(
    numbers: np.ndarray[tuple[int], np.dtype[np.int64]],
    texts: pa.Array,
    *,
    states: list[str | None] | None = None,
) -> pa.Table:
    none = pa.nulls(len(numbers), pa.string())
    state = none if states is None else pa.array(states, pa.string())
    return pa.Table.from_arrays(
        [pa.array(numbers, pa.int64()), texts, none, none, state, none], schema=SCHEMA
    )


def _json(stream: IO[bytes]) -> Generator[pa.Table, None, int]:
    data = stream.read(MAX_TEXT_BYTES + 1)
    is_whole = len(data) <= MAX_TEXT_BYTES
    data = data.removeprefix(_BOM)
    if not is_whole:
        cut = data.rfind(b"\n") + 1
        if _has_resource_line(data[:cut]):
            yield lines_block(data[:cut], first=1)
            return (yield from _ndjson(stream, rest=data[cut:], first=data.count(b"\n") + 1))
        yield _table(np.array([1]), pa.array([""], pa.large_string()), states=["too_large"])
        return 1
    if not _is_json(data) and _has_resource_line(data):
        yield lines_block(data, first=1)
        return data.count(b"\n") + 1
    if data.strip():
        text, state = _decode(data)
        yield _table(np.array([1]), pa.array([text], pa.large_string()), states=[state])
    return 1


class _Typed(msgspec.Struct):
    resourceType: str


def _has_resource_line(data: bytes) -> bool:
    """Whether a line is a resource by itself: lines of one JSON text over many lines are none."""
    return any(line[:1] == b"{" and _is_json(line, of=_Typed) for line in map(bytes.strip, data.split(b"\n")))


def _is_json(data: bytes, *, of: type[msgspec.Raw | _Typed] = msgspec.Raw) -> bool:
    try:
        msgspec.json.decode(data, type=of)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True
