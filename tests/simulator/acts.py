"""What the parties of `simulator.party` do: honestly with the library's own code, and the lies of coordinators, sites and stores.

A liar has its own keys and nobody else's, so everything it says of itself is validly signed. A store that lies is another
process without any keys (`relay`), or the test's own hand on the folder.
"""

import json
import re
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import rfc8785
from simulator.party import COORDINATOR, vector_of

from fedhealth.audit.log import TransparencyLog
from fedhealth.exchange import FolderExchange
from fedhealth.identity import SiteSecrets
from fedhealth.rounds.coordinator import CoordinatorNode
from fedhealth.rounds.coordinator_sum import CoordinatorSumContext, run_sum
from fedhealth.rounds.journal import SiteJournal
from fedhealth.rounds.objects import PhaseRoster, address_of, sum_key
from fedhealth.rounds.site_data import SiteFolder
from fedhealth.rounds.site_environment import join
from fedhealth.rounds.site_sum import SiteSumContext, take_part
from fedhealth.secagg.messages import OpenMessage, decode
from fedhealth.secagg.plan import SumPlan
from fedhealth.study import Study

# --- sites


def node_of(party):
    """The site, joined to the exchange with its pair keys (E0)."""
    folder = SiteFolder(party.folder)
    roster = party.roster()
    return join(
        folder,
        keys=party.board().keys,
        roster=roster,
        secrets=SiteSecrets.load_or_create(folder.keys),
        exchange_url=f"file://{party.exchange}?durable=no",
        timeouts=party.timeouts,
    )


def join_only(party):
    """E0 alone."""
    return sorted(node_of(party).pair_keys)


def answer_sums(party, *, keys, lie=None, variant="", delay_s=0.0):
    """Answer the sums whose plans are posted under the keys, in order; says for each whether this site is in it."""
    node = node_of(party)
    return [_answer(node, key, lie=lie, variant=variant, delay_s=delay_s) for key in keys]


def _answer(node, key, *, lie, variant, delay_s):
    plan = _plan_under(node, key)
    board = Lying(node.board, SITE_LIES[lie]) if lie else node.board
    context = SiteSumContext(
        board=board,
        journal=SiteJournal(node.folder.journal),
        site=node.name,
        coordinator=COORDINATOR,
        pair_keys={peer: node.pair_keys[peer] for peer in plan.cohort if peer != node.name},
        tag_key=node.tag_key,
        timeouts=node.timeouts,
    )

    def vector(plan):
        time.sleep(delay_s)
        return vector_of(node.name, plan, variant)

    return take_part(context, plan, vector_of=vector)


def _plan_under(node, key):
    node.board.wait(key, timeout_s=node.timeouts.coordinator_timeout_s)
    run, number, purpose, step, attempt = re.match(r"runs/(.+)/sums/(.+)/(.+)/(.+)/(.+)/plan/", key).groups()
    place = {"run": run, "round": int(number), "purpose": purpose, "step": int(step), "attempt": int(attempt)}
    opened = node.board.read(key, kind="plan", sender=COORDINATOR, role="coordinator", **place)
    return SumPlan.from_bytes(opened.payload)


def follow(party, *, run, rounds, lie=None):
    """Answer whole rounds under the site's own policy, and see each closed before the next."""
    node, told = node_of(party), []
    if lie:
        node.board = Lying(node.board, SITE_LIES[lie])
    for number in range(rounds):
        node.board.wait(
            f"runs/{run}/rounds/{number}/manifest", timeout_s=party.timeouts.coordinator_timeout_s
        )
        told.append(node.answer(run, number))
        if told[-1] != "abstained":
            node.close(run, number)
    return told


class Lying:
    """A site's board on which other things are posted than the site's own code says; the code is told that all is well."""

    def __init__(self, board, lie):
        self._board, self._lie, self._meant = board, lie, {}

    def __getattr__(self, name):
        return getattr(self._board, name)

    def post(self, key, *, kind, payload, **place):
        self._meant[key] = payload = bytes(payload)
        said = self._lie(kind, payload, place)
        if isinstance(said, Unsigned):
            return self._put_unsigned(key, kind, payload, place)
        return self._board.post(key, kind=kind, payload=said, **place)

    def read(self, key, **expected):
        opened = self._board.read(key, **expected) if key not in self._meant else None
        return opened or _Meant(self._meant[key])

    def _put_unsigned(self, key, kind, payload, place):
        """The envelope with its Ed25519 signature alone: where the ML-DSA-65 signature belongs, there are zeros."""
        aside = FolderExchange(Path(self._board.exchange.root).parent / f"aside-{self._board.keys.name}")
        replace(self._board, exchange=aside).post(key, kind=kind, payload=payload, **place)
        self._board.exchange.put(key, aside.get(key)[:-3309] + bytes(3309))


class _Meant:
    def __init__(self, payload):
        self.payload = payload


class Unsigned:
    """Stands for a payload that is to go out with its classical signature alone."""


def _in(phase, change):
    return lambda kind, payload, place: change(payload) if kind == phase else payload


def _open_garbage(payload):
    message = decode(payload, OpenMessage, sender="")
    garbage = {name: sha256(share).digest() * 2 + b"xx" for name, share in message.mask_shares.items()}
    return msgspec.msgpack.encode(msgspec.structs.replace(message, mask_shares=garbage))


TAG_BYTES = 8
"""At the end of an exact upload. The lies below let it be a tag, or the upload would be refused at sight."""


def _other_pair_mask(payload):
    """As if one pair's seed had been another: the words of another stream are added."""
    words = np.frombuffer(payload[:-TAG_BYTES], dtype="<u4")
    wrong = np.frombuffer(sha256(b"wrong").digest() * (len(payload) // 32 + 1), dtype="<u4")[: len(words)]
    return (words + wrong).tobytes() + payload[-TAG_BYTES:]


def _big_endian(payload):
    return np.frombuffer(payload[:-TAG_BYTES], dtype="<u4").byteswap().tobytes() + payload[-TAG_BYTES:]


SITE_LIES = {
    "garbage shares": _in("open", _open_garbage),
    "other pair mask": _in("masked", _other_pair_mask),
    "big endian": _in("masked", _big_endian),
    "too long": _in("masked", lambda payload: payload + bytes(4)),
    "too short": _in("masked", lambda payload: payload[:-4]),
    "one word": _in("masked", lambda payload: payload[:4]),
    "nothing": _in("masked", lambda payload: b""),
    "floats with NaN": _in("masked", lambda payload: np.full(len(payload) // 4, np.nan).tobytes()),
    "classical signature": _in("masked", lambda payload: Unsigned()),
}


# --- coordinators


def run_rounds(party, *, study, run, rounds, lies=()):
    """Run rounds with the library's own coordinator; ``lies`` are (kind, round, changes): what it posts is changed.

    Changes are fields of a JSON payload, or none: then the last byte of the payload becomes another.
    """
    board = party.board()
    node = CoordinatorNode(
        name=COORDINATOR,
        folder=party.folder,
        board=lying_board(board, lies) if lies else board,
        log=TransparencyLog(board.exchange, board),
        timeouts=party.timeouts,
    )
    node.start_run(Study.model_validate_json(study), run=run, seed=7)
    told = []
    for number in range(rounds):
        purposes = node.open_round(run, number).purposes
        attendance = node.wait_for_sites(run, number)
        for name in purposes:
            node.secure_sum(run, number, name, cohort=tuple(attendance.ready))
        told.append(
            {"states": attendance.states(), "survivors": dict(node.close_round(run, number).survivors)}
        )
    return told


def lying_board(board, lies):
    """A coordinator's board: what it posts of a kind in a round has other fields than its code says."""

    def lie(kind, payload, place):
        for of_kind, number, changes in lies:
            if (kind, place.get("round", 0)) == (of_kind, number):
                changed = payload[:-1] + bytes([payload[-1] ^ 1])
                return changed if changes is None else rfc8785.dumps(json.loads(payload) | changes)
        return payload

    return Lying(board, lie)


def run_sums(party, *, plans):
    """Run sums honestly, in order."""
    blamed = {}
    board = party.board()
    context = CoordinatorSumContext(
        board=board, coordinator=COORDINATOR, timeouts=party.timeouts, blame=blamed.__setitem__
    )
    told = []
    for text in plans:
        opened = run_sum(context, SumPlan.from_bytes(text.encode()))
        told.append(
            {
                "vector": opened.vector.tolist(),
                "survivors": opened.survivors,
                "blamed": blamed | dict(opened.blamed),
            }
        )
    return told


def split_lists(party, *, plan, views, phase, victim, blind):
    """Show some sites a list of a phase without the victim, and the others the full one.

    Args:
      plan: of the sum.
      views: folder of each site's view.
      phase: ``share`` for U1, after which the victim is dropped everywhere; or ``masked`` for U2.
      victim: whose vector is wanted.
      blind: the sites from whom the victim is hidden.

    Returns:
      Who opened shares.
    """
    plan, hub = SumPlan.from_bytes(plan.encode()), party.board()
    hub.post(sum_key(plan, "plan", COORDINATOR), kind="plan", payload=plan.to_bytes(), **address_of(plan))
    for each in ("share", "masked", "agree"):
        waited = [site for site in plan.cohort if (each, phase, site) != ("agree", "share", victim)]
        found = _gather(hub, plan, each, waited, party.timeouts.phase_timeout_s)
        for site, folder in views.items():
            is_hidden = (each == phase and site in blind) or (each == "masked" and phase == "share")
            listed = {name: each for name, each in found.items() if not (is_hidden and name == victim)}
            _post_list(party.board(Path(folder)), plan, each, listed)
    return sorted(_gather(hub, plan, "open", plan.cohort, 1.0))


def two_plans(party, *, plans, views):
    """Show each site its own plan of one sum, and lists of all sites under it."""
    hub = party.board()
    made = {site: SumPlan.from_bytes(text.encode()) for site, text in plans.items()}
    boards = {site: party.board(Path(folder)) for site, folder in views.items()}
    for site, plan in made.items():
        key = sum_key(plan, "plan", COORDINATOR)
        boards[site].post(key, kind="plan", payload=plan.to_bytes(), **address_of(plan))
    some = next(iter(made.values()))
    found = _gather(hub, some, "share", some.cohort, party.timeouts.phase_timeout_s)
    for site, plan in made.items():
        _post_list(boards[site], plan, "share", found)
    return sorted(_gather(hub, some, "masked", some.cohort, 1.0))


def ask_again(party, *, plan, without):
    """A second list of survivors for a sum that is over, without one of them."""
    plan, board = SumPlan.from_bytes(plan.encode()), party.board()
    found = _gather(board, plan, "masked", plan.cohort, 1.0)
    _post_list(board, plan, "masked", {site: each for site, each in found.items() if site != without})


def _gather(board, plan, phase, sites, timeout_s):
    """Digests of the objects of a phase, of whoever posts in time; nothing is verified."""
    deadline = time.monotonic() + timeout_s
    found = {}
    while len(found) < len(sites) and time.monotonic() < deadline:
        for site in sites:
            if board.exists(key := sum_key(plan, phase, site)):
                found[site] = sha256(board.exchange.get(key)).hexdigest()
        time.sleep(0.01)
    return found


def _post_list(board, plan, phase, digests):
    roster = PhaseRoster(digests=dict(sorted(digests.items())))
    key = sum_key(plan, phase, COORDINATOR)
    board.post(key, kind="roster", payload=roster.to_bytes(), **address_of(plan))


# --- stores


def relay(party, *, views, keeps="^$", seconds=30.0):
    """A store that shows each party another folder: everything but the keys that match ``keeps`` is in all of them."""
    stores = [FolderExchange(view, durable=False) for view in views]
    deadline, known = time.monotonic() + seconds, [set() for _ in views]
    while time.monotonic() < deadline:
        for store, seen in zip(stores, known, strict=True):
            for key in set(store.list()) - seen:
                seen.add(key)
                if not re.search(keeps, key):
                    for other, others in zip(stores, known, strict=True):
                        if other is not store and key not in others:
                            other.put(key, store.get(key))
                            others.add(key)
        time.sleep(0.01)


ACTS = {
    act.__name__: act
    for act in (
        join_only,
        answer_sums,
        follow,
        run_rounds,
        run_sums,
        split_lists,
        two_plans,
        ask_again,
        relay,
    )
}
