"""How finished resources are packed for export: references, times, contained resources, bundles, compression.

Packing says nothing new and leaves nothing out: a reader that follows FHIR R4 reads the same facts from any of them.
"""

import gzip
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

Lines = Mapping[str, Sequence[bytes]]
"""NDJSON lines by resource type."""

PATIENTS_PER_PAGE = 25
"""Patients in one bundle file of a search set or collection; transactions and batches hold one patient each."""
_UUIDS = uuid.UUID("6f1c6a52-30ce-4d0b-9f0b-7c2f4b0d6a11")
_REFERENCE = re.compile(rb'"reference":"([A-Za-z]+)/([A-Za-z0-9.\-]+)"')
_PATIENT = re.compile(rb'"reference":"Patient/([A-Za-z0-9.\-]+)"')
_TIME = re.compile(rb'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z"')
_IDENTIFIER = re.compile(rb'"identifier":\[\{"system":"([^"]+)","value":"([^"]+)"\}')
_ID = re.compile(rb'"id":"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Packing:
    """A way of export.

    Attributes:
      bundles: type of the bundles, or None for NDJSON of resources by type.
      compressed: files are gzip.
      references: relative (``Type/id``), absolute URLs, ``urn:uuid`` (of bundle entries' full URLs), or
        conditional (``Patient?identifier=...`` for patients).
      time_zone: IANA name of the zone in which times are written.
      offset: whether times carry their offset from UTC.
      contained: a drug is a contained Medication instead of a code.
    """

    bundles: Literal["transaction", "batch", "searchset", "collection"] | None = None
    compressed: bool = False
    references: Literal["relative", "absolute", "urn", "conditional"] = "relative"
    time_zone: str = "UTC"
    offset: bool = True
    contained: bool = False


def write_lines(folder: Path, lines: Lines, *, packing: Packing, name: str) -> None:
    """Write a hospital's resources into a new folder; the same arguments give the same bytes.

    Args:
      folder: where the files go.
      lines: the resources, with relative references and times in UTC.
      packing: the way of export.
      name: the hospital, for its base URL.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rewritten = rewrite(lines, packing=packing, name=name)
    files = _by_type(rewritten) if packing.bundles is None else _bundled(rewritten, packing, name)
    for path, data in files:
        if packing.compressed:
            path, data = f"{path}.gz", gzip.compress(data, compresslevel=1, mtime=0)
        (folder / path).write_bytes(data)


def rewrite(lines: Lines, *, packing: Packing, name: str) -> dict[str, list[bytes]]:
    """The lines with their references, times and drugs written as ``packing`` has it."""
    steps: list[Callable[[bytes], bytes]] = []
    if packing.contained:
        steps.append(_contain_drug)
    if packing.references != "relative":
        steps.append(_rewriter(packing, name, lines))
    if packing.time_zone != "UTC" or not packing.offset:
        to_local = partial(_local_time, zone=ZoneInfo(packing.time_zone), offset=packing.offset)
        steps.append(partial(_TIME.sub, to_local))
    return {kind: [_apply(line, steps) for line in each] for kind, each in lines.items()}


def _apply(line: bytes, steps: Sequence[Callable[[bytes], bytes]]) -> bytes:
    for step in steps:
        line = step(line)
    return line


def _local_time(found: re.Match[bytes], *, zone: ZoneInfo, offset: bool) -> bytes:
    local = datetime.fromisoformat(found[1].decode()).replace(tzinfo=UTC).astimezone(zone)
    return b'"' + (local if offset else local.replace(tzinfo=None)).isoformat().encode() + b'"'


def _rewriter(packing: Packing, name: str, lines: Lines) -> Callable[[bytes], bytes]:
    """What writes a line's references in the packing's style."""
    if packing.references == "absolute":
        base = _base_url(name).encode()
        return partial(_REFERENCE.sub, rb'"reference":"' + base + rb'\1/\2"')
    if packing.references == "urn":
        return partial(_REFERENCE.sub, lambda m: b'"reference":"' + _urn(m[1], m[2]) + b'"')
    known = _identifiers(lines)
    return partial(_PATIENT.sub, lambda m: b'"reference":"' + known.get(m[1], b"Patient/" + m[1]) + b'"')


def _identifiers(lines: Lines) -> dict[bytes, bytes]:
    """The conditional reference to every patient, by id."""
    known = {}
    for line in lines.get("Patient", ()):
        identity, identifier = _ID.search(line), _IDENTIFIER.search(line)
        if identity and identifier:
            known[identity[1]] = b"Patient?identifier=" + identifier[1] + b"|" + identifier[2]
    return known


def _contain_drug(line: bytes) -> bytes:
    """A resource with ``medicationCodeableConcept`` as one with a contained Medication; others as they are."""
    if b'"medicationCodeableConcept"' not in line:
        return line
    resource = msgspec.json.decode(line, type=dict[str, object])
    code = resource.pop("medicationCodeableConcept")
    resource["contained"] = [{"resourceType": "Medication", "id": "drug", "code": code}]
    resource["medicationReference"] = {"reference": "#drug"}
    return msgspec.json.encode(resource)


def _base_url(name: str) -> str:
    return f"https://ehr.{name}.example/fhir/"


def _urn(kind: bytes, identity: bytes) -> bytes:
    return f"urn:uuid:{uuid.uuid5(_UUIDS, (kind + b'/' + identity).decode())}".encode()


def _by_type(lines: Mapping[str, Sequence[bytes]]) -> Iterator[tuple[str, bytes]]:
    for kind, each in sorted(lines.items()):
        yield f"{kind}.ndjson", b"\n".join(each) + b"\n"


def _bundled(lines: Lines, packing: Packing, name: str) -> Iterator[tuple[str, bytes]]:
    """One NDJSON file of a bundle per patient, or a JSON file per page of patients."""
    groups = _by_patient(lines)
    if packing.bundles in ("transaction", "batch"):
        bundles = [_bundle(group, packing, name) for group in groups]
        yield f"{packing.bundles}.ndjson", b"\n".join(bundles) + b"\n"
        return
    for page, start in enumerate(range(0, len(groups), PATIENTS_PER_PAGE)):
        entries = [entry for group in groups[start : start + PATIENTS_PER_PAGE] for entry in group]
        yield f"page-{page:04d}.json", _bundle(entries, packing, name)


def _by_patient(lines: Lines) -> list[list[tuple[str, bytes]]]:
    """(type, line) in groups: what belongs to no patient, then patient after patient.

    Ids of this generator begin with the patient's own id, whatever becomes of their references.
    """
    groups: dict[bytes, list[tuple[str, bytes]]] = {b"": []}
    for kind, each in sorted(lines.items(), key=lambda item: item[0] != "Patient"):
        for line in each:
            identity = _ID.search(line)
            owner = b"-".join(identity[1].split(b"-")[:3]) if identity and kind != "Organization" else b""
            groups.setdefault(owner, []).append((kind, line))
    return [group for group in groups.values() if group]


def _bundle(entries: Sequence[tuple[str, bytes]], packing: Packing, name: str) -> bytes:
    body = b",".join(_entry(kind, line, packing, name) for kind, line in entries)
    kind = str(packing.bundles).encode()
    return b'{"resourceType":"Bundle","type":"' + kind + b'","entry":[' + body + b"]}"


def _entry(kind: str, line: bytes, packing: Packing, name: str) -> bytes:
    found = _ID.search(line)
    identity = found[1] if found else b""
    is_urn = packing.references == "urn"
    url = _urn(kind.encode(), identity) if is_urn else f"{_base_url(name)}{kind}/".encode() + identity
    entry = b'{"fullUrl":"' + url + b'","resource":' + line
    if packing.bundles in ("transaction", "batch"):
        entry += b',"request":{"method":"PUT","url":"' + kind.encode() + b"/" + identity + b'"}'
    return entry + b"}"
