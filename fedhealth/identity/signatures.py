"""A signature is two: Ed25519 and ML-DSA-65 over the same bytes, and both must verify.

A forger then has to break a classical scheme and a post-quantum one.
"""

from functools import lru_cache
from typing import Annotated, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from pydantic import BaseModel, ConfigDict

from fedhealth.errors import ProtocolError
from fedhealth.identity.encoding import decode, encode, exactly

ED25519_BYTES = 64
MLDSA65_BYTES = 3309
SIGNATURES_BYTES = ED25519_BYTES + MLDSA65_BYTES


class Signatures(BaseModel):
    """One party's two signatures over the same bytes, as base64url."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    ed25519: Annotated[str, exactly(ED25519_BYTES, "an Ed25519 signature")]
    mldsa65: Annotated[str, exactly(MLDSA65_BYTES, "an ML-DSA-65 signature")]

    def to_bytes(self) -> bytes:
        """Return Ed25519 || ML-DSA-65, 3373 bytes."""
        return decode(self.ed25519) + decode(self.mldsa65)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` wrote.

        Raises:
          ProtocolError: not 3373 bytes.
        """
        if len(data) != SIGNATURES_BYTES:
            raise ProtocolError(
                f"a signature block has {len(data)} bytes, not {SIGNATURES_BYTES}",
                "ask the sender to post the object again",
            )
        return cls(ed25519=encode(data[:ED25519_BYTES]), mldsa65=encode(data[ED25519_BYTES:]))


# Parsing an ML-DSA key costs about as much as verifying with it, and a roster has few keys.
@lru_cache(maxsize=1024)
def _ed25519(key: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(decode(key))


@lru_cache(maxsize=1024)
def _mldsa65(key: str) -> MLDSA65PublicKey:
    return MLDSA65PublicKey.from_public_bytes(decode(key))


def check_signatures(message: bytes, signatures: Signatures, *, ed25519: str, mldsa65: str, who: str) -> None:
    """Return only when both signatures over ``message`` verify.

    Args:
      message: the bytes that were signed.
      signatures: the two signatures.
      ed25519: public key, base64url of 32 bytes.
      mldsa65: public key, base64url of 1952 bytes.
      who: name for the error.

    Raises:
      ProtocolError: either signature does not verify, or a key is not a key.
    """
    try:
        _ed25519(ed25519).verify(decode(signatures.ed25519), message)
        _mldsa65(mldsa65).verify(decode(signatures.mldsa65), message)
    except (InvalidSignature, ValueError):
        raise ProtocolError(
            f"a signature by {who} does not verify",
            "treat the object as forged and ask its sender for the original",
        ) from None
