"""A consortium in one folder: real keys, journals, exchange, sums and training; rows made here."""

import json
import threading
import time
from dataclasses import replace

import numpy as np

from fedhealth.audit.log import TransparencyLog
from fedhealth.cdm.consent import save_consents
from fedhealth.config import Timeouts
from fedhealth.exchange import Board, FolderExchange
from fedhealth.features.rows import Rows, save_rows
from fedhealth.identity import PartyKeys, Roster, SiteSecrets
from fedhealth.privacy.consent import ConsentRules
from fedhealth.rounds.coordinator import CoordinatorNode
from fedhealth.rounds.site import SiteNode
from fedhealth.rounds.site_data import SiteDataState, SiteFolder, record_state
from fedhealth.rounds.site_environment import join
from fedhealth.study import Study
from fedhealth.study.columns import SERIES, numeric_columns
from fedhealth.study.subgroups import SUBGROUPS
from fedhealth.study.targets import targets_of

SITES = ("hospital-01", "hospital-02", "hospital-03")
TIMEOUTS = Timeouts(
    phase_timeout_s=20, ready_timeout_s=20, verify_timeout_s=20, coordinator_timeout_s=60, poll_s=0.005
)


def make_study(**sections):
    document = {
        "schema_version": 1,
        "name": "tiny",
        "outcomes": {"readmission": {"kind": "readmission"}},
        "model": {"kind": "mlp", "hidden": [8], "dropout": [0.1]},
        "training": {"rounds": 2, "local": {"epochs": 1}, "batch_size": 16, "optimizer": {"lr": 0.1}},
        "privacy": {"mode": "none", "legal_basis": "public synthetic data"},
        "evaluation": {"compare_sites": False},
    }
    return Study.model_validate_json(json.dumps({**document, **sections}))


def make_rows(study, seed, patients=80):
    """Rows of so many patients, two fifths of them tested and, where the study asks for it, every fourth of the others scored.

    A label of every target follows the first column.
    """
    generator = np.random.default_rng(seed)
    columns = numeric_columns(study)
    low, high = np.array([(c.low, c.high) for c in columns]).T
    unit = generator.random((patients, len(columns)))
    signal = unit[:, 0] + 0.3 * generator.standard_normal(patients)
    features = (low + unit * (high - low)).astype(np.float32)
    flags = np.array([c.kind == "flag" for c in columns])
    features[:, flags] = np.round(unit[:, flags])
    is_test = generator.random(patients) < 0.4
    return Rows(
        features,
        np.stack([_label(target, signal) for target in targets_of(study)], axis=1).astype(np.float32),
        np.arange(patients, dtype=np.int64),
        is_test,
        is_validation=~is_test & (np.arange(patients) % 4 == 0) & (study.validation > 0.0),
        groups=generator.integers(-1, 2, (patients, len(SUBGROUPS))).astype(np.int8),
        **_extras(study, generator, patients),
    )


def _label(target, signal):
    share = np.clip(signal, 0.0, 0.999)
    if target.kind == "number":
        return target.low + share * (target.high - target.low)
    if target.kind == "classes":
        return np.floor(share * len(target.classes))
    if target.kind == "hazard":
        return 2 * np.floor((1 - share) * target.outputs) + (signal > 0.4)
    return signal > 0.5


def _extras(study, generator, patients):
    extras = {}
    if study.model.kind == "lstm":
        series = generator.normal(100.0, 20.0, (patients, study.features.series.steps, len(SERIES)))
        series[generator.random(series.shape) < 0.5] = np.nan
        extras["series"] = series.astype(np.float32)
    if study.features.categories:
        size = (patients, len(study.features.categories))
        extras["levels"] = generator.integers(-1, 3, size).astype(np.int32)
        extras["level_names"] = (("urn:x|1", "urn:x|2", "urn:x|3"),) * size[1]
    return extras


class Killed(BaseException):
    """The process of a site ends here."""


class FailingExchange:
    """An exchange whose user is killed when it is about to put an object of a phase."""

    def __init__(self, exchange, site, phase):
        self._exchange, self._end = exchange, f"/{phase}/{site}"

    def __getattr__(self, name):
        return getattr(self._exchange, name)

    def put(self, key, data):
        if key.endswith(self._end):
            raise Killed
        self._exchange.put(key, data)


class LyingRound:
    """A site's answers to a round, the vector of its update replaced by a lie about it."""

    def __init__(self, answered, lie):
        self._answered, self._lie = answered, lie

    def __getattr__(self, name):
        return getattr(self._answered, name)

    def vector(self, plan):
        vector = self._answered.vector(plan)
        return self._lie(vector) if plan.purpose == "update" else vector


def lying_node(node, lie):
    """The same node, which says another update than it computed."""

    class Liar(SiteNode):
        __slots__ = ()

        def _round(self, manifest, state):
            return LyingRound(SiteNode._round(self, manifest, state), lie)

    node.__class__ = Liar
    return node


class Network:
    """A consortium in one folder: keys and journals apart, one exchange between.

    ``lies`` gives by site what it makes of the integers of its update before it sends them.
    """

    def __init__(self, folder, study, sites=SITES, timeouts=TIMEOUTS, lies=None):
        self.lies = lies or {}
        self.folder, self.study, self.timeouts = folder, study, timeouts
        self.keys = {
            name: PartyKeys.load_or_create(folder / name / "keys", name=name, role="site") for name in sites
        }
        coordinator = PartyKeys.load_or_create(
            folder / "coordinator" / "keys", name="coordinator", role="coordinator"
        )
        self.coordinator_keys = coordinator
        self.roster = Roster.of((coordinator.public, *(keys.public for keys in self.keys.values())))
        self.url = str(folder / "exchange")
        exchange = FolderExchange(folder / "exchange")
        board = Board(exchange, self.roster, coordinator, clock=time.time)
        self.coordinator = CoordinatorNode(
            name="coordinator",
            folder=folder / "coordinator",
            board=board,
            log=TransparencyLog(exchange, board),
            timeouts=timeouts,
        )
        self.rows = {name: make_rows(study, seed) for seed, name in enumerate(sites)}
        for name, rows in self.rows.items():
            self.give_rows(name, rows)

    def site_folder(self, name):
        return SiteFolder(self.folder / name)

    def give_rows(self, name, rows):
        folder = self.site_folder(name)
        path = folder.rows(self.study)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_rows(path, rows)
        record_state(folder, SiteDataState(passed=True, reason=None))
        self.give_consents(name, [])

    def give_consents(self, name, consents, default="opt-out"):
        """Consents as a load leaves them."""
        private = self.site_folder(name).cdm / "private"
        private.mkdir(parents=True, exist_ok=True)
        save_consents(private, consents, ConsentRules(default))

    def allow_plain(self):
        """Every site's policy lets updates travel in the clear."""
        for name in self.keys:
            (self.folder / name / "policy.yaml").write_text("require_masks: false\n")

    def node(self, name, dies_at=None):
        folder = self.site_folder(name)
        node = join(
            folder,
            keys=self.keys[name],
            roster=self.roster,
            secrets=SiteSecrets.load_or_create(folder.keys),
            exchange_url=self.url,
            timeouts=self.timeouts,
        )
        if dies_at is not None:
            exchange = FailingExchange(node.board.exchange, name, dies_at)
            node.board = replace(node.board, exchange=exchange)
        return lying_node(node, self.lies[name]) if name in self.lies else node

    def follow(self, run, dying=None):
        """Start every site in a thread; ``dying`` says which sites die before which phase's object.

        Returns (threads, outcomes, errors).
        """
        outcomes, errors = {}, {}

        def work(name):
            try:
                outcomes[name] = [
                    outcome for _, outcome in self.node(name, (dying or {}).get(name)).follow(run)
                ]
            except Killed:
                errors[name] = "killed"
            except Exception as error:  # noqa: BLE001 - handed to the test
                errors[name] = error

        threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in self.keys]
        for thread in threads:
            thread.start()
        return threads, outcomes, errors

    def run_rounds(self, run, coordinator=None):
        node, closed = coordinator or self.coordinator, []
        while (number := node.next_round(run)) is not None:
            closed.append(self.run_round(run, number, node))
        return closed

    def run_round(self, run, number, coordinator=None):
        node = coordinator or self.coordinator
        purposes = node.open_round(run, number).purposes
        cohort = tuple(node.wait_for_sites(run, number).ready)
        for purpose in purposes:
            node.secure_sum(run, number, purpose, cohort=cohort)
        return node.close_round(run, number)
