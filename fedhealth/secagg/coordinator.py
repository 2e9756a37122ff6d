"""The coordinator's side of a secure sum, I/O-free: it can open the sum over the survivors and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from fedhealth.errors import PolicyError, ProtocolError
from fedhealth.secagg.messages import OpenMessage, ShareMessage, decode
from fedhealth.secagg.plan import SumPlan
from fedhealth.secagg.prg import SEED_BYTES, commit, derive
from fedhealth.secagg.shamir import rebuild
from fedhealth.secagg.words import Words


@dataclass(frozen=True, slots=True)
class OpenedSum:
    """The sum over the survivors: int64, signed, of the plan's length; modulo the ring where it is a small one.

    ``tag`` is of an exact sum: whoever has the sites' tag key can tell by it that the vector is right.
    """

    vector: NDArray[np.int64]
    lanes: NDArray[np.int64]
    tag: int | None
    survivors: tuple[str, ...]
    blamed: Mapping[str, str]


@dataclass(slots=True)
class CoordinatorSum:
    """One secure sum. Memory does not grow with the number of sites times the vector.

    Attributes:
      plan: the plan that was posted.
      blamed: sites whose message was wrong, with the reason.
    """

    plan: SumPlan
    blamed: dict[str, str] = field(default_factory=dict)
    _shares: dict[str, ShareMessage] = field(default_factory=dict)
    _total: Words | None = None
    _received: list[str] = field(default_factory=list)
    _survivors: tuple[str, ...] = ()

    def receive_shares(self, payloads: Mapping[str, bytes]) -> tuple[str, ...]:
        """R1: take the share messages that fit the plan; returns U1, sorted.

        Raises:
          PolicyError: fewer than the threshold.
        """
        for site, payload in sorted(payloads.items()):
            try:
                self._shares[site] = self._checked(site, payload)
            except ProtocolError as error:
                self.blamed[site] = error.problem
        while disputed := self._disputed():  # until none is left, so that U1 alone gives U1 again
            for site in disputed:
                self.blamed[site] = "its pair seeds are disputed by most of the other sites"
                del self._shares[site]
        self._require(len(self._shares), "sent usable shares")
        return tuple(self._shares)

    def receive_masked(self, site: str, payload: bytes | memoryview) -> None:
        """R2: add one masked vector to the running sum.

        Raises:
          ProtocolError: a wrong size, a site outside U1, a second vector, or one after `propose`.
        """
        if self._survivors:
            raise ProtocolError(
                f"the vector of site {site} came after the list was closed", f"leave {site} out"
            )
        if site not in self._shares or site in self._received:
            raise ProtocolError(f"site {site} sent a vector that nobody asked for", f"reject {site}")
        try:
            masked = Words.from_bytes(self.plan, payload)
        except ValueError:
            raise ProtocolError(
                f"the masked vector of site {site} has a wrong size", f"reject {site}"
            ) from None
        if self._total is None:
            self._total = Words.zeros(self.plan)
        self._total.add(masked)
        self._received.append(site)

    def leave_out(self, site: str, payload: bytes) -> None:
        """Take a site's masked vector, the one that came, off the running sum again: the site counts as dropped out.

        Raises:
          RuntimeError: its vector is not in the sum, or the list is closed.
        """
        if self._total is None or site not in self._received or self._survivors:
            raise RuntimeError("leave_out comes between receive_masked and propose")
        self._total.subtract(Words.from_bytes(self.plan, payload))
        self._received.remove(site)

    def propose(self) -> tuple[str, ...]:
        """R3: U2, the sites whose vectors are in, sorted. Closes the list: the sites sign this one.

        Raises:
          PolicyError: fewer than the plan's smallest number of survivors.
        """
        self._require(len(self._received), "sent masked vectors")
        self._survivors = tuple(sorted(self._received))
        return self._survivors

    def unmask(self, opens: Mapping[str, bytes]) -> OpenedSum:
        """R4: rebuild b_j of the survivors and k_j of the dropped, take their masks off.

        A share that does not fit its commitment is left out and its sender blamed.

        Raises:
          PolicyError: too few good shares.
          ProtocolError: a rebuilt secret does not fit its owner's commitment.
          RuntimeError: called before `propose`, or after it has opened.
        """
        survivors = self._survivors
        if self._total is None or not survivors:
            raise RuntimeError("unmask comes after propose")
        messages, total = self._decoded(opens), self._total
        mask_shares = {site: message.mask_shares for site, message in messages.items()}
        masks = [(self._rebuild(owner, mask_shares, kind="mask"), -1) for owner in survivors]
        key_shares = {site: message.key_shares for site, message in messages.items()}
        for owner in (site for site in self._shares if site not in survivors):
            seeds = self._unwrap(owner, self._rebuild(owner, key_shares, kind="key"))
            masks += [(seed, -1 if peer > owner else 1) for peer, seed in seeds.items() if peer in survivors]
        self._total = None  # from here on it is no sum of masked vectors any more
        total.apply_masks(masks)
        return OpenedSum(
            vector=total.signed_vector(),
            lanes=total.signed_lanes(),
            tag=total.opened_tag(),
            survivors=survivors,
            blamed=dict(self.blamed),
        )

    def _decoded(self, opens: Mapping[str, bytes]) -> dict[str, OpenMessage]:
        """The R4 messages that parse; who sent another is blamed and left out."""
        messages = {}
        for site, data in sorted(opens.items()):
            try:
                messages[site] = decode(data, OpenMessage, sender=site)
            except ProtocolError as error:
                self.blamed[site] = error.problem
        return messages

    def _checked(self, site: str, payload: bytes) -> ShareMessage:
        message = decode(payload, ShareMessage, sender=site)
        cohort, peers = set(self.plan.cohort), set(self.plan.cohort) - {site}
        if (
            set(message.sealed) != peers
            or set(message.pair_seeds) != peers
            or set(message.mask_shares) != cohort
            or set(message.key_shares) != cohort
        ):
            raise ProtocolError(f"the shares of site {site} are not for this cohort", f"reject {site}")
        return message

    def _disputed(self) -> tuple[str, ...]:
        """Sites whose H(s_ij) differs from what most of the others committed to."""
        against = {
            site: sum(
                message.pair_seeds[peer] != self._shares[peer].pair_seeds[site]
                for peer in self._shares
                if peer != site
            )
            for site, message in self._shares.items()
        }
        return tuple(site for site, count in against.items() if 2 * count > len(self._shares) - 1)

    def _rebuild(self, owner: str, by_holder: Mapping[str, Mapping[str, bytes]], *, kind: str) -> bytes:
        """One secret from at least t shares that fit their commitments."""
        message, digest = self._shares[owner], self.plan.digest
        committed = message.mask_shares if kind == "mask" else message.key_shares
        good: dict[int, bytes] = {}
        for holder, shares in by_holder.items():
            share = shares.get(owner)
            if share is None or commit(f"{kind} share", digest, share) != committed[holder]:
                self.blamed[holder] = f"its share of site {owner} is missing or does not fit"
                continue
            good[self.plan.cohort.index(holder) + 1] = share
        if len(good) < self.plan.threshold:
            self._require(len(good), "opened good shares")
        chosen = dict(sorted(good.items())[: self.plan.threshold])
        secret = rebuild(chosen, size=SEED_BYTES)
        label, expected = (
            ("mask seed", message.mask_seed) if kind == "mask" else ("wrap key", message.wrap_key)
        )
        if secret is None or commit(label, digest, secret) != expected:
            raise ProtocolError(
                f"site {owner} shared another secret than it committed to", f"exclude {owner}"
            )
        return secret

    def _unwrap(self, owner: str, key: bytes) -> dict[str, bytes]:
        """The pair seeds of a dropped site, checked against both ends' commitments."""
        digest = self.plan.digest
        peers = [peer for peer in self.plan.cohort if peer != owner]
        try:
            wrapped = AESGCM(derive(key, "wrap", digest))
            plain = wrapped.decrypt(bytes(12), self._shares[owner].wrapped, digest.encode())
        except InvalidTag:
            raise ProtocolError(
                f"site {owner} wrapped its seeds under another key", f"exclude {owner}"
            ) from None
        if len(plain) != SEED_BYTES * len(peers):
            raise ProtocolError(f"site {owner} wrapped another seed than it used", f"exclude {owner}")
        seeds = {peer: plain[i * SEED_BYTES : (i + 1) * SEED_BYTES] for i, peer in enumerate(peers)}
        for peer, seed in seeds.items():
            if peer in self._shares and self._shares[peer].pair_seeds[owner] != commit(
                "pair seed", digest, seed
            ):
                raise ProtocolError(f"site {owner} wrapped another seed than it used", f"exclude {owner}")
        return seeds

    def _require(self, count: int, what: str) -> None:
        needed = max(self.plan.threshold, self.plan.min_survivors)
        if count < needed:
            raise PolicyError(
                f"only {count} of {len(self.plan.cohort)} sites {what}; {needed} are needed",
                "bring the missing sites back and start the round again",
            )
