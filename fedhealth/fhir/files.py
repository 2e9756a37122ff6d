"""Find FHIR files and read them once, as blocks of JSON texts that DuckDB can scan without a copy.

NDJSON is cut at newlines only, so that one bad line stays one bad line. A ``.json`` file is one resource, one
bundle (transaction, batch, searchset, collection, document, message, history) or NDJSON under another name.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import msgspec
import numpy as np
import pyarrow as pa

from fedhealth.errors import ConfigError, DataError

BLOCK_BYTES = 64 * 2**20
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
    ]
)
"""A block: line (or entry) number from 1, JSON text, and for bundle entries the full URL, the version that the
bundle states, and a state (``no_resource``, ``deleted``, ``not_utf8``) when the text is not to be loaded."""


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


def read_blocks(path: Path, *, called: str) -> Iterator[pa.Table]:
    """The texts of one file in blocks of about 64 MiB (a ``.json`` file: one block), with schema ``SCHEMA``.

    Args:
      path: the file.
      called: how an error calls it, such as ``file 3 of 12``. Errors may leave the site, and exports by
        patient are named after people.

    Raises:
      DataError: the file cannot be read to its end; its name is in a note alone.
    """
    try:
        with _open(path) as stream:
            if path.name.removesuffix(".gz").endswith(NDJSON):
                yield from _ndjson(stream)
            else:
                yield from _json(stream.read().removeprefix(_BOM))
    except (EOFError, zlib.error, OSError):
        error = DataError(
            f"{called} cannot be read to its end (code unreadable_file)",
            "find it in site.log or by counting the FHIR files sorted by path; copy or export it again, "
            "and check it with gzip -t",
        )
        # quoted: a name may hold line ends and bytes that are no text
        error.add_note(f"the file: {str(path)!r}")
        raise error from None


def _open(path: Path) -> IO[bytes]:
    if not path.name.endswith(".gz"):
        return path.open("rb")
    if path.stat().st_size == 0:  # gzip reads it as empty, but a compressed nothing has 20 bytes
        raise EOFError
    return cast(IO[bytes], gzip.open(path, "rb"))


def _ndjson(stream: IO[bytes]) -> Iterator[pa.Table]:
    rest, first, is_start = b"", 1, True
    while chunk := stream.read(BLOCK_BYTES):
        data = rest + (chunk.removeprefix(_BOM) if is_start else chunk)
        is_start = False
        cut = data.rfind(b"\n") + 1
        rest = data[cut:]
        if cut:
            yield lines_block(data[:cut], first=first)
            first += data.count(b"\n", 0, cut)
    if rest:
        yield lines_block(rest, first=first)


def lines_block(data: bytes, *, first: int) -> pa.Table:
    """The lines of ``data``, blank ones left out; lines that are not UTF-8 have the state ``not_utf8``."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return _odd_lines(data, first=first)
    ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == 10) + 1
    if not len(ends) or ends[-1] != len(data):
        ends = np.append(ends, len(data))
    offsets = np.concatenate([[0], ends]).astype(np.int64)
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
    return pa.Table.from_arrays([pa.array(numbers, pa.int64()), texts, none, none, state], schema=SCHEMA)


class _Request(msgspec.Struct):
    method: str = ""
    url: str = ""


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw(b"null")
    fullUrl: str | None = None
    request: _Request = msgspec.field(default_factory=_Request)


class _Bundle(msgspec.Struct):
    resourceType: str = ""
    fhirVersion: str | None = None
    type: str = ""
    entry: list[_Entry] = msgspec.field(default_factory=list)


_BUNDLE = msgspec.json.Decoder(_Bundle)


def _json(data: bytes) -> Iterator[pa.Table]:
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if data.count(b"\n") and data.lstrip().split(b"\n", 1)[0].rstrip().endswith(b"}"):
            yield lines_block(data, first=1)
            return
    if data.strip():
        text, state = _decode(data)
        yield _table(np.array([1]), pa.array([text], pa.large_string()), states=[state])


def bundle_block(text: str, *, line: int) -> pa.Table | None:
    """The entries of a bundle, or None when the text is no well-formed bundle.

    Entry n of the bundle in line L has line number L. An entry without a resource is kept with its state, so
    that it is counted: ``deleted`` (a history's DELETE) or ``no_resource``. Older versions of a resource that
    the bundle says was deleted are ``deleted`` too.
    """
    try:
        bundle = _BUNDLE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # nested deeper than JSON is read
        return None
    rows: list[tuple[int, str, str | None, str | None, str | None]] = []
    seen: set[str] = set()
    deleted: set[str] = set()
    for entry in bundle.entry:
        raw = bytes(entry.resource).decode()
        is_delete = entry.request.method == "DELETE"
        target = entry.request.url or "/".join((entry.fullUrl or "").split("/")[-2:])
        if is_delete and target not in seen:
            deleted.add(target)
        seen.add(target)
        state = "deleted" if is_delete or (bundle.type == "history" and target in deleted) else None
        if state is None and raw == "null":
            state = "no_resource"
        rows.append((line, raw, entry.fullUrl, bundle.fhirVersion, state))
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in SCHEMA]
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
