"""Open a FHIR bundle: its entries as texts, and what it says was deleted."""

import msgspec
import pyarrow as pa

from fedhealth.fhir.files import SCHEMA


class _Request(msgspec.Struct):
    method: str = ""
    url: str = ""


class _Response(msgspec.Struct):
    lastModified: str | None = None


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw(b"null")
    fullUrl: str | None = None
    request: _Request = msgspec.field(default_factory=_Request)
    response: _Response = msgspec.field(default_factory=_Response)


class _Bundle(msgspec.Struct):
    resourceType: str = ""
    fhirVersion: str | None = None
    type: str = ""
    timestamp: str | None = None
    entry: list[msgspec.Raw] = msgspec.field(default_factory=list)


_BUNDLE = msgspec.json.Decoder(_Bundle)
_ENTRY = msgspec.json.Decoder(_Entry)


def bundle_block(text: str, *, line: int) -> pa.Table | None:
    """The entries of a bundle, or None when the text is no well-formed bundle.

    Every entry of the bundle in line L has line number L. An entry without a resource is kept with its state, so
    that it is counted: ``deleted`` (a DELETE; its ``full_url`` is then the ``Type/id`` that was deleted, and its
    ``stamp`` the time if the bundle says one), ``no_resource``, or ``malformed_entry`` (its text is then the whole
    entry's). Older versions of a resource that a history
    says was deleted are ``deleted`` too, without a ``full_url``.
    """
    try:
        bundle = _BUNDLE.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # nested deeper than JSON is read
        return None
    rows: list[tuple[int, str, str | None, str | None, str | None, str | None]] = []
    seen: set[str] = set()
    deleted: set[str] = set()
    for each in bundle.entry:
        try:
            entry = _ENTRY.decode(each)
        except msgspec.ValidationError:
            rows.append((line, bytes(each).decode(), None, bundle.fhirVersion, "malformed_entry", None))
            continue
        raw = bytes(entry.resource).decode()
        target = entry.request.url or "/".join((entry.fullUrl or "").split("/")[-2:])
        state, url, stamp = None, entry.fullUrl, None
        if entry.request.method == "DELETE":
            is_newest = target not in seen  # a history lists the newest version first
            state, url = "deleted", (target or None) if is_newest or bundle.type != "history" else None
            stamp = entry.response.lastModified or bundle.timestamp
            if is_newest and target:
                deleted.add(target)
        elif bundle.type == "history" and target in deleted:
            state, url = "deleted", None
        elif raw == "null":
            state = "no_resource"
        seen.add(target)
        rows.append((line, raw, url, bundle.fhirVersion, state, stamp))
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in SCHEMA]
    return pa.Table.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
