"""Random draws for differential privacy, from a cryptographic stream.

AES-256-CTR under a 32-byte key that never leaves the site. The same key gives the same draws in the same
order, so a site that was killed answers again with the same bytes: two different noisy answers for one
charge would be a leak.

Normals are Box-Muller in double precision. Their values lie on a grid of doubles, so the guarantee is that of
the ideal Gaussian up to floating point (Mironov 2012); docs/explanation/privacy-accounting.md says what
follows.
"""

import math

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from numpy.typing import NDArray

KEY_BYTES = 32
_TWO_PI = 2.0 * math.pi
_BLOCK = 16_384


def derive_key(site_noise_key: bytes, plan_digest: str, step: int) -> bytes:
    """The key of all draws for one step of one plan: HKDF-SHA256(site_noise_key, H(plan) || step).

    Args:
      site_noise_key: 32 secret bytes of the site.
      plan_digest: hex SHA-256 of the plan.
      step: number within the plan, >= 0.

    Returns:
      32 bytes, independent for every (plan, step).

    Raises:
      ValueError: the key is not 32 bytes, the digest not 32 bytes in hex, or the step negative.
    """
    digest = bytes.fromhex(plan_digest)
    if len(site_noise_key) != KEY_BYTES or len(digest) != 32 or step < 0:
        raise ValueError("a noise key needs 32 secret bytes, a SHA-256 digest and a step >= 0")
    info = b"fedhealth/noise/v1|" + digest + step.to_bytes(8, "big")
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(site_noise_key)


class NoiseSource:
    """Uniforms, normals, Bernoulli draws and choices from one AES-256-CTR stream.

    Guarantees: a function of the key and the order of calls; sources of different keys or labels are
    independent to anyone without the key.

    Args:
      key: 32 secret bytes, used for this source alone.

    Raises:
      ValueError: the key is not 32 bytes.
    """

    __slots__ = ("_encryptor", "_key")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError("a noise source needs a key of 32 bytes")
        self._key = key
        self._encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def fork(self, label: str) -> "NoiseSource":
        """A new source for one use, under HKDF-Expand(key, label); it does not advance this one."""
        info = b"fedhealth/noise/fork|" + label.encode()
        return NoiseSource(HKDFExpand(algorithm=SHA256(), length=KEY_BYTES, info=info).derive(self._key))

    def words(self, size: int) -> NDArray[np.uint64]:
        """``size`` uniform 64-bit words."""
        return np.frombuffer(self._encryptor.update(bytes(8 * size)), dtype="<u8")

    def uniforms(self, size: int) -> NDArray[np.float64]:
        """``size`` uniforms in [0, 1), multiples of 2^-53."""
        return (self.words(size) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normals(self, size: int) -> NDArray[np.float64]:
        """``size`` independent standard normals.

        Source: Box and Muller 1958; the radius is from 1 - u in (0, 1], so the logarithm is finite.
        """
        pairs = (size + 1) // 2
        out = np.empty((pairs, 2))
        for start in range(0, pairs, _BLOCK):  # blocks that stay in the cache
            block = out[start : start + _BLOCK]
            draws = self.uniforms(2 * len(block)).reshape(-1, 2)
            radius = np.sqrt(-2.0 * np.log1p(-draws[:, 0]))
            angle = _TWO_PI * draws[:, 1]
            np.multiply(radius, np.cos(angle), out=block[:, 0])
            np.multiply(radius, np.sin(angle), out=block[:, 1])
        return out.reshape(-1)[:size]

    def bernoulli(self, size: int, *, probability: float) -> NDArray[np.bool_]:
        """``size`` independent draws that are true with ``probability``, to 2^-53.

        Raises:
          ValueError: not a probability.
        """
        if not 0.0 <= probability <= 1.0:
            raise ValueError("not a probability")
        return self.uniforms(size) < probability

    def choices(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """One index below each count, uniform to counts * 2^-53.

        Raises:
          ValueError: a count is not positive.
        """
        if (counts < 1).any():
            raise ValueError("nothing to choose from")
        drawn = (self.uniforms(len(counts)) * counts).astype(np.int64)
        return np.minimum(drawn, counts - 1)

    def seed(self) -> int:
        """63 bits that seed a generator of another library for draws that carry no guarantee (dropout)."""
        return int(self.words(1)[0] >> np.uint64(1))
