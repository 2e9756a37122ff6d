"""What R4 asks of a bundle around its entries: invariants bdl-1 to bdl-12, full URLs, references of documents.

A bundle that breaks them is opened all the same, as its entries are judged by themselves.

Source: FHIR R4 (4.0.1), bundle.html and documents.html.
"""

import re
from collections import Counter
from collections.abc import Iterator

import msgspec

Broken = tuple[str, str]
"""A reason code and the JSON path."""

_RESTFUL = re.compile(r"^(https?://.+/)([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})$")
_ABSOLUTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*:\S+$")
_REFERENCE = re.compile(rb'"reference"\s*:\s*"([^"\\]*)"')
_WRITTEN = ("batch", "transaction", "history")
_ANSWERED = ("batch-response", "transaction-response", "history")


class _Meta(msgspec.Struct):
    versionId: str | None = None


class _Head(msgspec.Struct):
    resourceType: str = ""
    id: str | None = None
    meta: _Meta = msgspec.field(default_factory=_Meta)


class _Entry(msgspec.Struct):
    resource: msgspec.Raw = msgspec.Raw(b"")
    fullUrl: str | None = None
    search: msgspec.Raw = msgspec.Raw(b"")
    request: msgspec.Raw = msgspec.Raw(b"")
    response: msgspec.Raw = msgspec.Raw(b"")


class _Identifier(msgspec.Struct):
    system: str | None = None
    value: str | None = None


class _Link(msgspec.Struct):
    relation: str = ""


class _Bundle(msgspec.Struct):
    type: str = ""
    total: int | None = None
    timestamp: str | None = None
    identifier: _Identifier = msgspec.field(default_factory=_Identifier)
    link: list[_Link] | None = None
    entry: list[_Entry] | None = None


_BUNDLE = msgspec.json.Decoder(_Bundle)
_HEAD = msgspec.json.Decoder(_Head)
_TYPES = frozenset((*_WRITTEN, *_ANSWERED, "document", "message", "searchset", "collection"))


def broken_bundle_rules(text: str) -> list[Broken]:
    """The rules that a bundle breaks, each once; what cannot be read as a bundle at all breaks none here."""
    try:
        bundle = _BUNDLE.decode(text)
        heads = [_HEAD.decode(entry.resource) if entry.resource else _Head() for entry in bundle.entry or ()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    found = [*_of_whole(bundle, heads), *_of_entries(bundle, heads), *_of_urls(bundle, heads)]
    if bundle.type == "document":
        found += _of_document(bundle, heads)
    return sorted(set(found))


def _of_whole(bundle: _Bundle, heads: list[_Head]) -> Iterator[Broken]:
    first = heads[0].resourceType if heads else ""
    if bundle.type not in _TYPES:
        yield "invalid_code", "Bundle.type"
    if bundle.entry == []:
        yield "empty_element", "Bundle.entry"
    if bundle.link == []:
        yield "empty_element", "Bundle.link"
    if bundle.total is not None and bundle.type not in ("searchset", "history"):  # bdl-1
        yield "bundle_total", "Bundle.total"
    relations = Counter(link.relation for link in bundle.link or ())
    if any(n > 1 for n in relations.values()):  # a link relation names one link, RFC 5988 as R4 cites it
        yield "bundle_link", "Bundle.link.relation"
    if bundle.type == "document":
        if bundle.identifier.system is None or bundle.identifier.value is None:  # bdl-9
            yield "document_identifier", "Bundle.identifier"
        if bundle.timestamp is None:  # bdl-10
            yield "document_timestamp", "Bundle.timestamp"
        if first != "Composition":  # bdl-11
            yield "first_entry", "Bundle.entry.resource"
    if bundle.type == "message" and first != "MessageHeader":  # bdl-12
        yield "first_entry", "Bundle.entry.resource"


def _of_entries(bundle: _Bundle, heads: list[_Head]) -> Iterator[Broken]:
    for entry, head in zip(bundle.entry or (), heads, strict=True):
        if entry.search and bundle.type != "searchset":  # bdl-2
            yield "entry_search", "Bundle.entry.search"
        if bool(entry.request) != (bundle.type in _WRITTEN):  # bdl-3
            yield "entry_request", "Bundle.entry.request"
        if bool(entry.response) != (bundle.type in _ANSWERED):  # bdl-4
            yield "entry_response", "Bundle.entry.response"
        if not (entry.resource or entry.request or entry.response):  # bdl-5
            yield "empty_element", "Bundle.entry"
        if bundle.type == "searchset" and entry.search:
            is_outcome = b'"outcome"' in bytes(entry.search)
            if head.resourceType and is_outcome != (head.resourceType == "OperationOutcome"):
                yield "entry_search", "Bundle.entry.search.mode"


def _of_urls(bundle: _Bundle, heads: list[_Head]) -> Iterator[Broken]:
    """bdl-7, bdl-8; a full URL is absolute, and says the same of type and id as the resource."""
    entries = bundle.entry or []
    keys = Counter(
        (entry.fullUrl, head.meta.versionId)
        for entry, head in zip(entries, heads, strict=True)
        if entry.fullUrl
    )
    if bundle.type != "history" and any(n > 1 for n in keys.values()):
        yield "full_url_repeated", "Bundle.entry.fullUrl"
    for entry, head in zip(entries, heads, strict=True):
        if entry.fullUrl is None:
            continue
        if "/_history/" in entry.fullUrl:
            yield "full_url_versioned", "Bundle.entry.fullUrl"
        elif not _ABSOLUTE.match(entry.fullUrl):
            yield "full_url_relative", "Bundle.entry.fullUrl"
        elif bundle.type not in _WRITTEN and not _agrees(entry.fullUrl, head):
            yield "full_url_mismatch", "Bundle.entry.fullUrl"


def _agrees(url: str, head: _Head) -> bool:
    if not head.resourceType or not url.startswith(("http://", "https://")):
        return True
    if head.id is None:  # a place on a server, but no id to be found by
        return head.resourceType in ("OperationOutcome", "Parameters")
    match = _RESTFUL.match(url)
    return match is None or (match[2], match[3]) == (head.resourceType, head.id)


def _of_document(bundle: _Bundle, heads: list[_Head]) -> Iterator[Broken]:
    """What the Composition refers to is in the document."""
    entries = bundle.entry or []
    if not entries or heads[0].resourceType != "Composition":
        return
    base = _RESTFUL.match(entries[0].fullUrl or "")
    urls = {entry.fullUrl for entry in entries}
    urls |= {
        f"{entry.fullUrl}/_history/{head.meta.versionId}" for entry, head in zip(entries, heads, strict=True)
    }
    for match in _REFERENCE.finditer(bytes(entries[0].resource)):
        literal = match[1].decode()
        if literal.startswith("#") or literal in urls:
            continue
        if base is None or base[1] + literal not in urls:
            yield "unresolved_in_document", "Bundle.entry.resource"
