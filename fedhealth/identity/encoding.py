"""How keys, signatures and messages become text and bytes that are signed."""

import base64
import binascii
import re
from typing import Annotated

from pydantic import AfterValidator

from fedhealth.errors import ProtocolError

NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9_-]|\.(?!\.)){0,62}$"
"""Names of parties: they are one segment of an exchange key."""

_NAME = re.compile(NAME_PATTERN.replace("$", r"\Z"))


def encode(data: bytes) -> str:
    """Encode as base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Decode base64url without padding; one text for one value.

    Raises:
      ProtocolError: padding, an unknown letter, or spare bits that are not zero.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("a field is not base64url", "ask the sender to post it again") from None
    if encode(data) != text:
        raise ProtocolError("a base64url field is not canonical", "ask the sender to post it again")
    return data


def exactly(size: int, what: str) -> AfterValidator:
    """Build a pydantic check: base64url of exactly ``size`` bytes."""

    def check(text: str) -> str:
        try:
            found = len(decode(text))
        except ProtocolError as error:
            raise ValueError(error.problem) from None
        if found != size:
            raise ValueError(f"{what} has {found} bytes, not {size}")
        return text

    return AfterValidator(check)


RESERVED_NAMES = frozenset(
    {"study", "manifest", "model", "aggregate", "ready", "abstain", "quality", "drift", "sites"}
)
"""Last segments of keys that belong to a role, not to a party of that name."""


def _checked_name(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError("a party may not bear the name of a kind of object")
    if not _NAME.match(name) or name.endswith("."):
        raise ValueError("a name has 1-63 of a-z 0-9 . _ - and starts with a letter or digit")
    return name


PartyName = Annotated[str, AfterValidator(_checked_name)]
"""The name of a party, fit to be one segment of an exchange key."""


def pae(payload_type: str, body: bytes) -> bytes:
    """Return the DSSE pre-authentication encoding: what is signed instead of ``body``.

    Guarantees: two different (type, body) pairs never give the same bytes.

    Source: DSSE protocol v1.0.2 (secure-systems-lab/dsse).
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)
