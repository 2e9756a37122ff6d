"""A secure sum whose vectors come as ciphertexts: what is masked, and opened first, are the keys of the ciphertexts.

Every masked key ends in the SHA-256 of the one ciphertext that it is for, so that the list of survivors (R3), which names the
masked keys by their digests, is the list of the ciphertexts too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

from fedhealth.errors import ProtocolError
from fedhealth.secagg.coordinator import CoordinatorSum, OpenedSum
from fedhealth.secagg.rlwe import CipherSum

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class EncryptedSum:
    """In R2 and R4 in the place of the machine that sums the keys; for the coordinator, and for whoever replays the sum.

    Guarantees: a site is in the sum with both its key and the ciphertext it is bound to, or with neither.

    Attributes:
      keys: the machine that sums the keys.
      ciphers: sums the ciphertexts.
      ciphertext_of: a site's ciphertext as it was posted.
    """

    keys: CoordinatorSum
    ciphers: CipherSum
    ciphertext_of: Callable[[str], bytes]

    def receive_masked(self, site: str, payload: bytes) -> None:
        """R2: add one masked key, and the ciphertext that it is for.

        Raises:
          ProtocolError: as `CoordinatorSum.receive_masked`; the ciphertext is not whole, or another one.
        """
        posted = self.ciphertext_of(site)
        ciphertext = self.ciphers.read(site, posted)
        masked_key, digest = payload[:-_DIGEST_BYTES], payload[-_DIGEST_BYTES:]
        if sha256(posted).digest() != digest:
            raise ProtocolError(f"the key of site {site} is for another ciphertext", f"reject {site}")
        self.keys.receive_masked(site, masked_key)
        self.ciphers.add(ciphertext)

    def unmask(self, opens: Mapping[str, bytes]) -> OpenedSum:
        """R4: open the sum of the keys, and with it that of the ciphertexts.

        Raises:
          PolicyError, ProtocolError: as `CoordinatorSum.unmask`; the ciphertexts do not fit their keys.
        """
        opened = self.keys.unmask(opens)
        return replace(opened, vector=self.ciphers.open(opened.vector))
