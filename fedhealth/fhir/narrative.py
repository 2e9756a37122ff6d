"""Narrative: the XHTML that R4 allows in ``text.div`` (invariants txt-1 and txt-2)."""

from xml.etree import ElementTree

_XHTML = "{http://www.w3.org/1999/xhtml}"
_ALLOWED = """
    a abbr acronym b big blockquote br caption cite code col colgroup dd del dfn div dl dt em h1 h2 h3 h4 h5 h6 hr i
    img ins kbd li ol p pre q s samp small span strike strong sub sup table tbody td tfoot th thead tr tt u ul var
"""
_ELEMENTS = frozenset(_ALLOWED.split())


def narrative_fault(div: str) -> str | None:
    """Why a ``div`` is no narrative, as a reason code, or None.

    ``narrative_not_xhtml``: no well-formed XML without a document type and entities of its own, no ``div`` of
    XHTML outermost, or an element or event handler that R4 does not allow (txt-1). ``narrative_empty``: neither
    text nor image (txt-2).
    """
    if "<!" in div.replace("<!--", ""):
        return "narrative_not_xhtml"
    try:
        root = ElementTree.fromstring(div)  # no DOCTYPE gets here, so nothing expands
    except (ElementTree.ParseError, ValueError):
        return "narrative_not_xhtml"
    nodes = list(root.iter())
    if root.tag != f"{_XHTML}div" or not all(_is_allowed(node) for node in nodes):
        return "narrative_not_xhtml"
    has_content = any(text.strip() for text in root.itertext()) or any(
        node.tag == f"{_XHTML}img" for node in nodes
    )
    return None if has_content else "narrative_empty"


def _is_allowed(node: ElementTree.Element) -> bool:
    tag = str(node.tag)
    if not tag.startswith(_XHTML) or tag.removeprefix(_XHTML) not in _ELEMENTS:
        return False
    return not any(name.lower().startswith("on") for name in node.attrib)
