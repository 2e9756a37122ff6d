"""A site's side of a secure sum, I/O-free: R1 share, R2 mask, R3 agree, R4 open."""

import secrets as system_secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from fedhealth.errors import ProtocolError
from fedhealth.secagg.messages import AgreeMessage, OpenMessage, ShareMessage, decode, encode
from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.prg import SEED_BYTES, commit, derive
from fedhealth.secagg.shamir import SHARE_BYTES, split
from fedhealth.secagg.tags import tag_of
from fedhealth.secagg.words import Words

_NO_LANES = np.zeros(0, dtype=np.int64)
_ONE_USE_NONCE = bytes(12)
"""Every sealing key is derived for one message of one plan, so the nonce may be constant."""


@dataclass(frozen=True, slots=True)
class SumSecrets:
    """b_i, k_i, the seeds of their sharing polynomials and, for mode he, that of s_i and e_i (`fedhealth.secagg.rlwe`).

    Never in a log: the representation is empty.
    """

    mask_seed: bytes
    wrap_key: bytes
    mask_polynomial: bytes
    key_polynomial: bytes
    cipher_seed: bytes

    @classmethod
    def draw(cls) -> Self:
        """Fresh secrets from the system's cryptographic generator."""
        return cls(*(system_secrets.token_bytes(SEED_BYTES) for _ in fields(cls)))

    def to_bytes(self) -> bytes:
        """For the site's own journal."""
        return b"".join(getattr(self, each.name) for each in fields(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse `to_bytes`.

        Raises:
          ValueError: a wrong length.
        """
        if len(data) != len(fields(cls)) * SEED_BYTES:
            raise ValueError("journaled secrets have a wrong length")
        return cls(*(data[start : start + SEED_BYTES] for start in range(0, len(data), SEED_BYTES)))

    def __repr__(self) -> str:
        return "SumSecrets()"


class SiteSum:
    """One site in one secure sum. Calls out of order are bugs (RuntimeError), hostile input is ProtocolError.

    Args:
      plan: the plan, already judged by the site's policy.
      site: this site, a member of the cohort.
      pair_keys: K_ij by peer, 32 bytes each, for every other member of the cohort.
      tag_key: 32 bytes that the sites share and the coordinator does not have.
      secrets: drawn for this plan and journaled before `share` is sent.

    Raises:
      ValueError: the site is not in the cohort, or a pair key is missing.
    """

    def __init__(
        self,
        plan: SumPlan,
        *,
        site: str,
        pair_keys: Mapping[str, bytes],
        tag_key: bytes,
        secrets: SumSecrets,
    ) -> None:
        peers = tuple(peer for peer in plan.cohort if peer != site)
        if site not in plan.cohort or set(peers) != set(pair_keys):
            raise ValueError("a site needs one pair key for each other member of the cohort, and no more")
        self._plan, self._site, self._peers, self._secrets = plan, site, peers, secrets
        self._pair_keys, self._tag_key = dict(pair_keys), tag_key
        self._pair_seeds = {peer: derive(key, "mask", plan.digest) for peer, key in pair_keys.items()}
        count, threshold = len(plan.cohort), plan.threshold
        self._mask_shares = split(
            secrets.mask_seed, threshold=threshold, holders=count, polynomial_seed=secrets.mask_polynomial
        )
        self._key_shares = split(
            secrets.wrap_key, threshold=threshold, holders=count, polynomial_seed=secrets.key_polynomial
        )
        self._held: dict[str, tuple[bytes, bytes]] = {}
        self._included: tuple[str, ...] = ()
        self._statement: bytes | None = None
        self._masked: bytes | memoryview | None = None

    def share(self) -> bytes:
        """R1: sealed shares, wrapped pair seeds, commitments. The same secrets give the same bytes."""
        plan, own = self._plan, self._secrets
        position = {name: index for index, name in enumerate(plan.cohort)}
        sealed = {
            peer: self._seal(peer, self._mask_shares[position[peer]] + self._key_shares[position[peer]])
            for peer in self._peers
        }
        wrap = AESGCM(derive(own.wrap_key, "wrap", plan.digest))
        seeds = b"".join(self._pair_seeds[peer] for peer in self._peers)
        digest = plan.digest
        return encode(
            ShareMessage(
                sealed=sealed,
                wrapped=wrap.encrypt(_ONE_USE_NONCE, seeds, digest.encode()),
                mask_seed=commit("mask seed", digest, own.mask_seed),
                wrap_key=commit("wrap key", digest, own.wrap_key),
                mask_shares={
                    name: commit("mask share", digest, self._mask_shares[index])
                    for name, index in position.items()
                },
                key_shares={
                    name: commit("key share", digest, self._key_shares[index])
                    for name, index in position.items()
                },
                pair_seeds={peer: commit("pair seed", digest, s) for peer, s in self._pair_seeds.items()},
            )
        )

    def mask(
        self, shares: Mapping[str, bytes], vector: NDArray[np.int64], lanes: NDArray[np.int64] = _NO_LANES
    ) -> bytes | memoryview:
        """R2: check every share message of U1, then mask the vector and the lanes.

        Args:
          shares: R1 messages by site: U1, this site included.
          vector: int64 of the plan's length; what may be in it, `fedhealth.secagg.words.Words.of` says.
          lanes: int64, as many as the plan has.

        Returns:
          y_i as words on the wire.

        Raises:
          ProtocolError: too few sites, or a message that does not fit this site's keys; it names the sender.
          ValueError: a wrong vector, or wrong lanes.
          RuntimeError: called twice with another vector or another U1.
        """
        plan = self._plan
        included = tuple(sorted(shares))
        self._check_included(included)
        for peer in included:
            self._held[peer] = self._open_sealed(peer, decode(shares[peer], ShareMessage, sender=peer))
        masked = Words.of(plan, vector, lanes)
        if not plan.wraps:
            masked.put_tag(tag_of(masked.vector, key=self._tag_key, plan=plan, site=self._site))
        pairs = [
            (self._pair_seeds[peer], 1 if self._site > peer else -1)
            for peer in included
            if peer != self._site
        ]
        masked.apply_masks([(self._secrets.mask_seed, 1), *pairs])
        upload = masked.to_bytes()
        if self._masked is not None and self._masked != upload:
            raise RuntimeError(f"the sum {plan.purpose} was masked before with other input")
        self._included, self._masked = included, upload
        return upload

    def agree(self, survivors: tuple[str, ...]) -> bytes:
        """R3: the statement over (H(plan), U1, U2) that this site signs, once.

        Raises:
          ProtocolError: U2 is too small, not within U1, without this site, or a second one.
          RuntimeError: called before `mask`.
        """
        if self._masked is None:
            raise RuntimeError("agree comes after mask")
        names = tuple(sorted(set(survivors)))
        if not set(names) <= set(self._included) or self._site not in names:
            raise _dishonest("proposed survivors that do not fit the sites whose shares count")
        if len(names) < max(self._plan.threshold, self._plan.min_survivors):
            raise _dishonest("proposed too few survivors")
        statement = encode(AgreeMessage(plan=self._plan.digest, included=self._included, survivors=names))
        if self._statement is not None and self._statement != statement:
            raise _dishonest("showed this site two lists of survivors")
        self._statement = statement
        return statement

    def open(self, agreements: Mapping[str, bytes]) -> bytes:
        """R4: with t equal statements, the share of b_j for survivors and of k_j for the dropped, never both.

        Args:
          agreements: R3 statements by site; the caller has verified who signed which.

        Raises:
          ProtocolError: fewer than t survivors signed the statement that this site signed.
          RuntimeError: called before `agree`.
        """
        if self._statement is None:
            raise RuntimeError("open comes after agree")
        survivors = decode(self._statement, AgreeMessage, sender=self._site).survivors
        equal = [name for name, said in agreements.items() if name in survivors and said == self._statement]
        if len(equal) < self._plan.threshold:
            raise _dishonest("did not show enough equal statements of the survivors")
        return encode(
            OpenMessage(
                mask_shares={peer: self._held[peer][0] for peer in survivors},
                key_shares={peer: self._held[peer][1] for peer in self._included if peer not in survivors},
            )
        )

    def _check_included(self, included: tuple[str, ...]) -> None:
        if not set(included) <= set(self._plan.cohort) or self._site not in included:
            raise _dishonest("listed sites that do not fit the plan's cohort")
        if len(included) < max(self._plan.threshold, self._plan.min_survivors):
            raise _dishonest("listed too few sites")
        if self._masked is not None and included != self._included:
            raise _dishonest("showed this site two lists of shares")

    def _seal(self, peer: str, plain: bytes) -> bytes:
        key = derive(self._pair_keys[peer], "seal", self._site, peer, self._plan.digest)
        return AESGCM(key).encrypt(_ONE_USE_NONCE, plain, self._plan.digest.encode())

    def _open_sealed(self, peer: str, message: ShareMessage) -> tuple[bytes, bytes]:
        """This site's two shares of a peer's secrets, checked against the peer's commitments."""
        plan, position = self._plan, self._plan.cohort.index(self._site)
        if peer == self._site:
            return self._mask_shares[position], self._key_shares[position]
        key = derive(self._pair_keys[peer], "seal", peer, self._site, plan.digest)
        try:
            plain = AESGCM(key).decrypt(_ONE_USE_NONCE, message.sealed[self._site], plan.digest.encode())
        except (InvalidTag, KeyError):
            raise _bad_share(peer) from None
        mask_share, key_share = plain[:SHARE_BYTES], plain[SHARE_BYTES:]
        if (
            len(plain) != 2 * SHARE_BYTES
            or message.mask_shares.get(self._site) != commit("mask share", plan.digest, mask_share)
            or message.key_shares.get(self._site) != commit("key share", plan.digest, key_share)
            or message.pair_seeds.get(self._site) != commit("pair seed", plan.digest, self._pair_seeds[peer])
        ):
            raise _bad_share(peer)
        return mask_share, key_share


def _bad_share(peer: str) -> ProtocolError:
    return ProtocolError(
        f"the shares of site {peer} do not fit its commitments", f"exclude {peer} and start anew"
    )


def _dishonest(what: str) -> ProtocolError:
    return ProtocolError(f"the coordinator {what}", "report it to the consortium; nothing was opened")
