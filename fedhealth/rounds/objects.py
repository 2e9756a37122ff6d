"""What a round puts on the exchange: keys and payloads.

Round 0 is preprocessing; rounds 1..N score the model that they were opened with and train it; round N+1, or the
one in which a run stops early, only scores the final model.
"""

import hashlib
import json
import math
from typing import Annotated, ClassVar, Literal, Self, TypedDict

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedhealth.errors import ConfigError, ProtocolError
from fedhealth.models.stepwise import STEPWISE
from fedhealth.secagg.plan import RunId, SumPlan
from fedhealth.study.spec import Study

QualitySeverity = Literal["fatal", "convention", "characterisation"]
CheckName = Annotated[str, Field(pattern=r"^[a-z_]{1,40}/[A-Za-z0-9_.:]{1,120}$")]
DriftCode = Annotated[str, Field(pattern=r"^drift/[a-z_]{1,40}/[a-z0-9_:]{1,80}$")]

PREPROCESSING_ROUND = 0
MAX_DECLARED = 2**40
"""Beyond every number that a site declares; a word that is not plausible is none."""
MOST_GROUPS = 64
"""A round has fewer than 100 sums, each with a counter of its own."""


def check_run_id(run: str) -> None:
    """Refuse a run id that could not be part of a key or a path.

    Raises:
      ConfigError: it is no segment of an exchange key (lower-case letters, digits, hyphens, underscores, single
        dots), or too long.
    """
    try:
        TypeAdapter(RunId).validate_python(run)
    except ValidationError:
        raise ConfigError(
            "the run id is not valid",
            "use lower-case letters, digits, hyphens, underscores and single dots, at most 128",
        ) from None


def study_key(study: Study) -> str:
    """Key of the canonical study."""
    return f"studies/{study.name}/{study.digest}/study"


def approval_key(study: Study, site: str) -> str:
    """Key of one site's approval of a study."""
    return f"studies/{study.name}/{study.digest}/approvals/{site}"


def round_key(run: str, number: int, name: str) -> str:
    """Key of a round's ``manifest``, ``model`` or ``aggregate``."""
    return f"runs/{run}/rounds/{number}/{name}"


def site_key(run: str, number: int, site: str, name: str) -> str:
    """Key of a site's ``ready`` or ``abstain``."""
    return f"runs/{run}/rounds/{number}/sites/{site}/{name}"


class Address(TypedDict):
    """The header fields that say where an object of a sum belongs."""

    study: str
    run: str
    round: int
    purpose: str
    step: int
    attempt: int
    plan: str


def address_of(plan: SumPlan) -> Address:
    """The header fields of every object of a sum."""
    return Address(
        study=plan.study_digest,
        run=plan.run,
        round=plan.round,
        purpose=plan.purpose,
        step=plan.step,
        attempt=plan.attempt,
        plan=plan.digest,
    )


def sum_prefix(run: str, number: int, purpose: str, *, step: int = 0, attempt: int = 0) -> str:
    """Prefix of all objects of one sum."""
    return f"runs/{run}/sums/{number}/{purpose}/{step}/{attempt}"


def sum_key(plan: SumPlan, phase: str, sender: str) -> str:
    """Key of one party's object in one phase of a sum."""
    prefix = sum_prefix(plan.run, plan.round, plan.purpose, step=plan.step, attempt=plan.attempt)
    return f"{prefix}/{phase}/{sender}"


def last_round(study: Study) -> int:
    """The round that only scores the final model, unless the run stops before."""
    return study.training.rounds + 1


def sum_counter(number: int, purposes: tuple[str, ...], name: str) -> int:
    """The counter of a sum: one for each sum of a run, and growing with every sum."""
    return 100 * number + purposes.index(name)


def sites_needed(study: Study, *, enrolled: int) -> int:
    """The smallest cohort of a sum: the study's quorum of the enrolled sites, its minimum, and 3."""
    return max(math.ceil(study.aggregation.quorum * enrolled), study.aggregation.min_sites, 3)


def group_count(study: Study, *, sites: int) -> int:
    """How many groups of at least ``group_size`` so many enrolled sites make, where updates are summed by groups."""
    return min(sites // study.aggregation.group_size, MOST_GROUPS)


def purposes_of(study: Study, number: int, *, is_final: bool, sites: int) -> tuple[str, ...]:
    """The secure sums that a round of a study consists of, in their order: ``purpose`` or ``purpose/step``.

    A model that grows by sums (gbm, cox) has a sum ``growth/STEP`` for each step of a round in place of ``update``; a study by
    groups ``update/GROUP`` for each group of its enrolled ``sites``. Sites compare themselves (``profile``) first of all, so
    that one that is unlike the others gives nothing else.
    """
    if number == PREPROCESSING_ROUND:
        profile = ("profile",) if study.evaluation.compare_sites else ()
        return (*profile, *(("vocabulary",) if study.features.categories else ()), "moments")
    if is_final:
        return ("evaluation",) if study.training.fine_tune.epochs is None else ("evaluation", "personalised")
    if study.model.kind in STEPWISE:
        steps = STEPWISE[study.model.kind].steps_of(study)
        return ("evaluation", *(f"growth/{step}" for step in range(steps)))
    if study.aggregation.robust == "groups":
        return ("evaluation", *(f"update/{group}" for group in range(group_count(study, sites=sites))))
    return ("evaluation", "update")


def is_needed_within(name: str) -> bool:
    """Whether sites need what a sum came to before their round is closed: they compare themselves, or grow the next step."""
    return part_of(name)[0] in ("profile", "growth")


def compares_before(purposes: tuple[str, ...], name: str) -> bool:
    """Whether a sum of a round is only of the sites that are like the others."""
    return "profile" in purposes and name != "profile"


def trains(purposes: tuple[str, ...]) -> bool:
    """Whether a round of these sums changes the model."""
    return any(part_of(name)[0] in ("update", "growth") for name in purposes)


def part_of(name: str) -> tuple[str, int]:
    """The purpose and the step of a sum by its name."""
    purpose, _, step = name.partition("/")
    return purpose, int(step or 0)


class Payload(BaseModel):
    """A JSON payload: strict, frozen, closed, canonical (RFC 8785)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    kind: ClassVar[str]

    def to_bytes(self) -> bytes:
        """The RFC 8785 bytes."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse canonical bytes.

        Raises:
          ProtocolError: not JSON, an unknown field, a wrong type.
        """
        try:
            json.loads(data)
            return cls.model_validate_json(data)
        except (ValidationError, ValueError):
            raise ProtocolError(
                f"a {cls.kind} object does not follow its schema", "ask its sender which version it runs"
            ) from None


class Manifest(Payload):
    """The coordinator's signed opening of a round."""

    kind: ClassVar[str] = "manifest"
    schema_version: int = 1
    study: str
    study_digest: str
    run: RunId
    round: int
    purposes: tuple[str, ...]
    model_digest: str
    roster_digest: str
    seed: int


class Approval(Payload):
    """A site's agreement to run a study under its own policy."""

    kind: ClassVar[str] = "approval"
    study_digest: str
    policy_digest: str


class ConsentStatement(BaseModel):
    """Whom a site counts in a round: a salted commitment to the list, and coarse numbers of people.

    Attributes:
      commitment: SHA-256, 64 hex digits (`fedhealth.privacy.consent.commitment`).
      patients: of the study, who consent: a bucket, 0 for fewer than 11.
      left_out: who do not: likewise.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    commitment: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    patients: Annotated[int, Field(ge=0, le=MAX_DECLARED)]
    left_out: Annotated[int, Field(ge=0, le=MAX_DECLARED)]


class Ready(Payload):
    """A site takes part in a round.

    Under differential privacy ``weight`` and ``patients`` are declared buckets, constant over the run; without
    it both are absent and the weight travels hidden, inside the sum.
    """

    kind: ClassVar[str] = "ready"
    weight: Annotated[float, Field(gt=0.0, le=MAX_DECLARED, allow_inf_nan=False)] | None
    patients: Annotated[int, Field(ge=0, le=MAX_DECLARED)] | None
    noise_multiplier: Annotated[float, Field(ge=0.0, le=MAX_DECLARED, allow_inf_nan=False)] | None
    steps: Annotated[int, Field(ge=0, le=MAX_DECLARED)] | None
    consent: ConsentStatement | None = None

    def declares(self, study: Study) -> bool:
        """Whether it declares what a study counts and accounts with."""
        told = (self.weight, self.patients, self.noise_multiplier, self.steps)
        return study.privacy.mode == "none" or None not in told

    @property
    def declaration(self) -> Self:
        """What stays the same over a run: all but the consents, which are asked anew each round."""
        return self.model_copy(update={"consent": None})


class Abstain(Payload):
    """A site sits a round out, for a reason given as a code."""

    kind: ClassVar[str] = "abstain"
    reason: str


class Quality(Payload):
    """What a site tells of its gate: numbers of checks, never of people, and names of those that did not pass.

    ``passed`` and ``failed`` are by severity; names are ``TABLE/CHECK`` from the closed list of the gate.
    """

    kind: ClassVar[str] = "quality"
    passed: dict[QualitySeverity, int]
    failed: dict[QualitySeverity, int]
    failed_checks: tuple[CheckName, ...]


class DriftFound(Payload):
    """In which quantities a site's data is unlike the others': names and how grave, never a number of people.

    ``found`` is by ``drift/TABLE/QUANTITY`` from the closed list of quantities.
    """

    kind: ClassVar[str] = "drift"
    found: dict[DriftCode, Literal["fatal", "convention"]]

    @property
    def fatal(self) -> str | None:
        """The first of what is so unlike that no case mix explains it: the reason to abstain."""
        return next((code for code, severity in sorted(self.found.items()) if severity == "fatal"), None)


class Figures(Payload):
    """Metrics of the final model on a site's own test rows, where its policy lets them be seen; None below 11 people."""

    kind: ClassVar[str] = "figures"
    metrics: dict[str, float | None]


class Verdict(Payload):
    """A site's word on a closed round, after it has opened the round's sums anew from what lies on the exchange (R5).

    ``aggregate`` is the hex SHA-256 of what they come to: of the coordinator's aggregate, if that is right.
    """

    kind: ClassVar[str] = "verdict"
    aggregate: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class PhaseRoster(Payload):
    """The coordinator's signed list of a phase: whose objects count, and their digests."""

    kind: ClassVar[str] = "roster"
    digests: dict[str, str]

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites listed, sorted."""
        return tuple(sorted(self.digests))


class SketchCommitment(Payload):
    """The coordinator's commitment, before any upload, to the nonce in the seed of the sketches."""

    kind: ClassVar[str] = "commitment"
    commitment: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class UploadList(PhaseRoster):
    """The coordinator's signed list of all masked vectors, and the nonce that it had committed to."""

    kind: ClassVar[str] = "uploads"
    nonce: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def settings_digest(study: Study, software: str) -> str:
    """What H(code + settings) of a plan is: the study's canonical form and the software version."""
    return hashlib.sha256(study.canonical() + b"\0" + software.encode()).hexdigest()
