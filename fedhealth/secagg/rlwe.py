"""Sum-only threshold homomorphic encryption: what anybody can decrypt is the sum, and nobody holds a key to one part.

Site i cuts its vector into blocks m_i of N = 4096 entries and uploads for each, in Z_q[X]/(X^N + 1),

    c_i = a * s_i + e_i + Delta * m_i

with a public and new for every block, s_i short, secret and new for every plan, e_i short and new for every block. The
s_i are summed by the masking protocol, under a plan of N entries (`fedhealth.secagg.encrypted`). With S = sum s_i over the
survivors anybody computes sum c_i - a * S = sum e_i + Delta * sum m_i. A ciphertext is a Ring-LWE sample plus the message, so
under the decisional Ring-LWE assumption, with d / N samples under one secret, it tells nothing; the one of a dropped site is
never opened.

    a       uniform: AES-256-CTR under a hash of H(plan) and the block, 24 bits at a time, what is not below q_j thrown away;
            drawn as the values of its transform, which are uniform exactly when its coefficients are
    s, e    64 fair bits counted, minus 32: binomial, of standard deviation 4 and at most 32 in size
    q       16760833 * 16736257, 48 bits, so that a ciphertext has 6 bytes an entry: 1.5 times the 32-bit ring
    Delta   2^15

**Exact, with certainty.** Let n <= 256 sites add up. Every coefficient of sum e_i is at most 32 n <= 2^13 < Delta / 2 in
size, and |sum m_i| < 2^31, as `encrypt` refuses an entry beyond (2^31 - 1) / n. So |sum e_i + Delta * sum m_i| <
2^46 + 2^13 < q / 2: nothing wraps, and rounding to the next multiple of Delta finds sum m_i.

**Parameters.** For N = 4096 and a secret as short as a ternary one the standard allows log q <= 109, 75 and 58 for 128,
192 and 256 bits (quantum: 101, 70, 54), at errors of deviation 3.2; here log q = 48, the deviation is 4 and the secret is
less short. Opened with a sum are S and, as a consequence, sum e_i. For Gaussian secrets and errors, what is left of h honest
sites is Ring-LWE of deviation 4 / sqrt(h) or more (of the joint distribution given the sums, this part is independent),
which costs as much security as log2(sqrt(h)) more bits of q: 51 for 64 sites, under 54. That binomial secrets behave
alike is an assumption. No external audit has seen this composition.

Source: Stevens et al. 2022 (USENIX Security) for masks from LWE whose secrets are summed; Lyubashevsky, Peikert, Regev 2010 for
Ring-LWE; Kim et al. 2023 (CRYPTO) for hints; the Homomorphic Encryption Security Standard v1.1, table 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.secagg.ntt import MODULUS, PRIMES, SIZE, Residues, balanced, canonical, product, transform
from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.prg import Ring, apply_mask, commit, derive

MAX_SITES = 256
SHORT = 32
"""Largest size of a coefficient of a secret or an error."""
SCALE_BITS = 15
"""Delta = 2^15."""
BYTES_PER_ENTRY = 6
"""Of a ciphertext."""
LARGEST_SUM = 2**31 - 1
"""Largest size of an entry of the opened sum."""
_CANDIDATES = SIZE + 256
"""Of which the first 4096 below q_j are used; 10 are not below it on average, more than 256 with probability < 2^-800."""
_INVERSE = pow(PRIMES[0], -1, PRIMES[1])

Vector = NDArray[np.int64]


class Ciphertext(NamedTuple):
    """Canonical residues modulo q_0 and q_1, each (2, length): their lower 16 bits, and those above."""

    low: NDArray[np.uint16]
    high: NDArray[np.uint8]

    def residues(self, part: slice) -> NDArray[np.uint32]:
        """Those of some entries, (2, entries)."""
        return (self.high[:, part].astype(np.uint32) << np.uint32(16)) | self.low[:, part]

    @property
    def is_canonical(self) -> bool:
        """Whether every residue is below its prime."""
        above = (self.high == _PRIMES.high) & (self.low >= _PRIMES.low)  # both primes begin with 0xFF
        return not above.any()


_PRIMES = Ciphertext(
    low=np.array([[prime & 0xFFFF] for prime in PRIMES], dtype=np.uint16),
    high=np.array([[prime >> 16] for prime in PRIMES], dtype=np.uint8),
)


def secret_key(plan: SumPlan, *, seed: bytes) -> Vector:
    """s_i: the vector that goes into the masked sum of the plan; int64, at most 32 in size, (4096,).

    Args:
      plan: of the masked sum, with 4096 entries.
      seed: 32 secret bytes, drawn for this plan alone.
    """
    return _short(derive(seed, "cipher key", plan.digest), SIZE)


def encrypt(plan: SumPlan, vector: Vector, *, seed: bytes) -> bytes:
    """One site's ciphertext. The same arguments give the same bytes; another vector must never follow under one seed.

    Args:
      plan: of the masked sum of the keys, with 4096 entries.
      vector: int64, (length,); no entry beyond (2^31 - 1) / n in size for a cohort of n sites.
      seed: the one that `secret_key` gets.

    Returns:
      6 bytes an entry: the lower 16 bits of the residues modulo q_0, then q_1, as little-endian words; then their upper
      8 bits in the same order.

    Raises:
      PolicyError: more sites than the sum is exact for.
      ValueError: a wrong vector or plan.
    """
    _check(plan)
    room = LARGEST_SUM // len(plan.cohort)
    if vector.dtype != np.int64 or vector.ndim != 1 or not len(vector):
        raise ValueError("the vector must be int64, of one axis")
    if max(int(vector.max()), -int(vector.min())) > room:
        raise ValueError("a value is so large that the sum could leave the ring")
    low, high = np.empty((2, len(vector)), "<u2"), np.empty((2, len(vector)), "u1")
    noise = _short(derive(seed, "cipher noise", plan.digest), len(vector))
    for part, pad in _pads(plan, secret_key(plan, seed=seed), length=len(vector)):
        message = (vector[part] << SCALE_BITS) + noise[part]
        residues = canonical(pad + message).astype(np.uint32)
        low[:, part], high[:, part] = residues & 0xFFFF, residues >> 16
    return low.tobytes() + high.tobytes()


@dataclass(slots=True)
class CipherSum:
    """A sum of ciphertexts, opened with the sum of their keys: by the coordinator, and by whoever replays it.

    Guarantees: memory does not grow with the number of sites; what `open` returns is the sum of the vectors that were
    encrypted, exactly, if every ciphertext was made by `encrypt` and ``key_sum`` is the sum of their keys.

    Args:
      plan: of the masked sum of the keys, with 4096 entries.
      length: of the vectors.

    Raises:
      PolicyError: more sites than the sum is exact for.
      ValueError: the plan is not one of keys.
    """

    plan: SumPlan
    length: int
    _count: int = 0
    _total: NDArray[np.uint32] = field(init=False)

    def __post_init__(self) -> None:
        _check(self.plan)
        self._total = np.zeros((2, self.length), dtype=np.uint32)

    def read(self, site: str, payload: bytes) -> Ciphertext:
        """One site's ciphertext, checked; nothing is added yet.

        Raises:
          ProtocolError: a wrong size, or a residue that is not below its prime.
        """
        if len(payload) != BYTES_PER_ENTRY * self.length:
            raise ProtocolError(f"the ciphertext of site {site} has a wrong size", f"reject {site}")
        low = np.frombuffer(payload, "<u2", count=2 * self.length).reshape(2, -1)
        high = np.frombuffer(payload, "u1", offset=low.nbytes).reshape(2, -1)
        ciphertext = Ciphertext(low, high)
        if not ciphertext.is_canonical:
            raise ProtocolError(f"the ciphertext of site {site} is not in canonical form", f"reject {site}")
        return ciphertext

    def add(self, ciphertext: Ciphertext) -> None:
        """Add what `read` returned.

        Raises:
          RuntimeError: more ciphertexts than the cohort has sites.
        """
        if self._count == len(self.plan.cohort):
            raise RuntimeError("a site has one ciphertext in a sum")
        self._count += 1
        for part in _parts(self.length):
            self._total[:, part] += ciphertext.residues(part)

    def open(self, key_sum: Vector) -> Vector:
        """The sum of the vectors; int64, (length,).

        Args:
          key_sum: the sum of the keys of the ciphertexts that were added, (4096,).

        Raises:
          ProtocolError: keys and ciphertexts do not belong together: what is left beside a multiple of Delta is more than
            the errors can be. Where all d entries are noise, that goes unseen with a probability of about 2^(-d) at most.
        """
        if np.abs(key_sum).max() > SHORT * self._count:
            raise _misfit(self.plan)
        opened = np.empty(self.length, dtype=np.int64)
        for part, pad in _pads(self.plan, key_sum, length=self.length):
            total = _lift(canonical(self._total[:, part] - pad))
            opened[part] = (total + (1 << SCALE_BITS - 1)) >> SCALE_BITS
            errors = total - (opened[part] << SCALE_BITS)
            if np.abs(errors).max() > SHORT * self._count or np.abs(opened[part]).max() > LARGEST_SUM:
                raise _misfit(self.plan)
        return opened


def _check(plan: SumPlan) -> None:
    if plan.length != SIZE or plan.ring_bits != 32:
        raise ValueError(f"keys are summed by a plan of {SIZE} entries of 32 bits")
    if len(plan.cohort) > MAX_SITES:
        raise PolicyError(
            f"aggregation.mode he: a sum over more than {MAX_SITES} sites would not be exact",
            "set aggregation.mode to masks",
        )


def _pads(plan: SumPlan, key: Vector, *, length: int) -> Iterator[tuple[slice, Residues]]:
    """By block its place in the vector and a * key, (2, entries of the block)."""
    spectrum = transform(balanced(np.broadcast_to(key.astype(np.float64), (2, SIZE))))
    for block, part in enumerate(_parts(length)):
        yield part, product(_public(plan, block), spectrum)[:, : part.stop - part.start]


def _parts(length: int) -> Iterator[slice]:
    """The places of the blocks in a vector; work goes block by block, so that it stays in the cache."""
    return (slice(start, min(start + SIZE, length)) for start in range(0, length, SIZE))


def _public(plan: SumPlan, block: int) -> Residues:
    """The transform of a for a block."""
    words = _words(commit("cipher public", plan.digest, block.to_bytes(4, "big")), 2 * _CANDIDATES, "<u4")
    rows = (words & 0xFFFFFF).reshape(2, _CANDIDATES)
    return np.stack([row[row < prime][:SIZE] for row, prime in zip(rows, PRIMES, strict=True)]).astype(
        np.float64
    )


def _short(seed: bytes, count: int) -> Vector:
    """So many draws of the number of ones in 64 fair bits, minus 32."""
    return np.bitwise_count(_words(seed, count, "<u8")).astype(np.int64) - SHORT


def _words(seed: bytes, count: int, dtype: str) -> Ring:
    words: Ring = np.zeros(count, dtype=dtype)
    apply_mask(words, seed, sign=1)
    return words


def _lift(residues: Residues) -> Vector:
    """The integers between -q/2 and q/2 with these canonical residues, (entries,)."""
    first, second = residues.astype(np.int64)
    values = first + PRIMES[0] * ((second - first) * _INVERSE % PRIMES[1])
    lifted: Vector = np.where(values > MODULUS // 2, values - MODULUS, values)
    return lifted


def _misfit(plan: SumPlan) -> ProtocolError:
    return ProtocolError(
        f"the ciphertexts of the sum {plan.purpose} in round {plan.round} do not fit the keys that were opened",
        "a site lied, and who cannot be told: nothing was published; start anew, or set aggregation.mode to masks",
    )
