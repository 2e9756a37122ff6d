"""What travels in a secure sum: closed, size-limited MessagePack records."""

from typing import TypeVar

import msgspec

from fedhealth.errors import ProtocolError

MAX_MESSAGE_BYTES = 1 << 20


class ShareMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """R1: by receiver the sealed shares; the wrapped pair seeds; commitments to everything opened later."""

    sealed: dict[str, bytes]
    wrapped: bytes
    mask_seed: bytes
    wrap_key: bytes
    mask_shares: dict[str, bytes]
    key_shares: dict[str, bytes]
    pair_seeds: dict[str, bytes]


class AgreeMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """R3: the one statement over (H(plan), U1, U2) that a site signs."""

    plan: str
    included: tuple[str, ...]
    survivors: tuple[str, ...]


class OpenMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """R4: shares of b_j for survivors, of k_j for the dropped; never both of one site."""

    mask_shares: dict[str, bytes]
    key_shares: dict[str, bytes]


class SketchMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Between R2 and R3, where updates are judged: the public projections of a site's vector, and the seed they are under."""

    seed: bytes
    values: tuple[int, ...]


Message = ShareMessage | AgreeMessage | OpenMessage | SketchMessage
M = TypeVar("M", ShareMessage, AgreeMessage, OpenMessage, SketchMessage)


def encode(message: Message) -> bytes:
    """Canonical bytes: dictionaries sorted."""
    return msgspec.msgpack.encode(message, order="deterministic")


def decode(data: bytes, kind: type[M], *, sender: str) -> M:
    """Parse one message.

    Raises:
      ProtocolError: too large, malformed or with unknown fields.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {sender} is too large", f"reject {sender}")
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError):
        raise ProtocolError(f"a message of {sender} is malformed", f"reject {sender}") from None
