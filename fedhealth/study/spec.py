"""The study: one strict, frozen document that says everything about a study, and its digest.

Keys and defaults are those of the study file (docs/reference/study.md). What is accepted here but not built yet is refused by
`fedhealth.study.built`.
"""

import hashlib
import json
from functools import cached_property
from typing import Annotated, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, JsonValue

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]


class Part(BaseModel):
    """A frozen, strict, closed part of a study."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Index(Part):
    """Which visits start a row."""

    visit: Literal["inpatient", "emergency", "outpatient", "any"] = "inpatient"
    take: Literal["every", "first", "last"] = "every"


class Age(Part):
    """Years at index, inclusive; None is open."""

    min: int | None = 18
    max: int | None = None


class Exclude(Part):
    """Stays that do not count, in hours; None switches a rule off."""

    stay_under_h: float | None = None
    event_before_h: float | None = None
    measured_hours_under: int | None = None
    gap_over_h: float | None = None
    reasons: tuple[Literal["psychiatric", "rehabilitation", "cancer"], ...] = ()


class Cohort(Part):
    """Index event, age, exclusions, and the smallest number of patients with which a site takes part."""

    index: Index = Index()
    age: Age = Age()
    exclude: Exclude = Exclude()
    min_patients: Annotated[int, Field(ge=1)] = 20


class Prediction(Part):
    """The prediction time: discharge, hours after admission, or every so many hours."""

    at: Literal["discharge", "admission", "every"] = "discharge"
    plus_h: float | None = None
    step_h: float | None = None


MissingIf = Literal["died_in_stay", "left_against_advice", "transferred_acute"]
OutcomeKind = Literal[
    "readmission",
    "death",
    "kidney_injury",
    "icu_transfer",
    "length_of_stay",
    "disposition",
    "survival",
    "condition",
    "observation",
]


class Outcome(Part):
    """One outcome; which keys count depends on its kind."""

    kind: OutcomeKind
    within: Literal["stay"] | None = None
    within_days: int | None = None
    follow_up_days: int | None = None
    missing_if: tuple[MissingIf, ...] = ()
    onset_after_h: float | None = None
    over_days: float | None = None
    classes: tuple[str, ...] = ()
    event: str | None = None
    horizon_days: int | None = None
    codes: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()


class Series(Part):
    """Hourly grids."""

    preset: str = "icu-20"
    step_h: float = 1
    steps: int = 50


class Impute(Part):
    """How a missing value is filled: from federated statistics."""

    kind: Literal["median", "mean", "zero"] = "median"


class Features(Part):
    """Which columns a row has."""

    preset: str | None = "default-128"
    statics: tuple[str, ...] = ()
    measurements: tuple[JsonValue, ...] = ()
    categories: tuple[JsonValue, ...] = ()
    conditions: tuple[JsonValue, ...] = ()
    drugs: tuple[JsonValue, ...] = ()
    procedures: tuple[JsonValue, ...] = ()
    series: Series = Series()
    impute: Impute = Impute()
    standardise: Literal["consortium", "site", "none"] = "consortium"
    look_back_h: Positive = 48.0


class Split(Part):
    """The held-out share; a patient is on one side with all rows."""

    test: Share = 0.3
    by: Literal["patient"] = "patient"
    stratify: bool = False
    assigned: str | None = None


class Model(Part):
    """The architecture."""

    kind: Literal["linear", "mlp", "lstm", "multitask", "gbm", "cox"] = "mlp"
    hidden: tuple[int, ...] = (256, 128, 64)
    dropout: tuple[Share, ...] = (0.3, 0.2)


class Local(Part):
    """Work per round, in epochs or in steps."""

    epochs: int | None = 1
    steps: int | None = None


class Optimizer(Part):
    """The sites' optimiser."""

    kind: Literal["sgd", "adam"] = "sgd"
    lr: Positive = 0.02
    momentum: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Server(Part):
    """The coordinator's optimiser."""

    kind: Literal["sgd", "adam", "yogi", "adagrad"] = "sgd"
    lr: Positive = 1.0


class EarlyStopping(Part):
    """Stop when the pooled signal stalls."""

    patience: int | None = None


class Initial(Part):
    """Transfer from a registered model."""

    model: str | None = None
    freeze: tuple[str, ...] = ()


class Training(Part):
    """The federated algorithm and its settings."""

    algorithm: Literal[
        "fedavg", "fedprox", "scaffold", "fedadam", "fedyogi", "fedadagrad", "fedbn", "fedbuff"
    ] = "fedavg"
    weighting: Literal["examples", "uniform"] = "examples"
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 30
    local: Local = Local()
    batch_size: Annotated[int, Field(ge=1)] = 32
    optimizer: Optimizer = Optimizer()
    server: Server = Server()
    proximal_mu: Annotated[float, Field(ge=0)] = 0.0
    personal: tuple[str, ...] = ()
    early_stopping: EarlyStopping = EarlyStopping()
    initial: Initial = Initial()


class Shares(Part):
    """How the budget is divided."""

    preprocessing: Share = 0.1
    training: Share = 0.8
    evaluation: Share = 0.1


class Privacy(Part):
    """The privacy mode and its budget; the unit is the patient."""

    mode: Literal["local", "distributed", "none"] = "local"
    epsilon: Positive = 1.0
    delta: Annotated[float, Field(gt=0, lt=0.1)] = 1.0e-5
    l2_clip_norm: Positive = 1.0
    allocation: Literal["constant", "decaying", "plateau"] = "constant"
    engine: Literal["auto", "opacus", "ghost", "bookkeeping"] = "auto"
    linkage_factor: Annotated[int, Field(ge=1)] = 1
    shares: Shares = Shares()
    reinitialise: Literal["never"] | int = "never"
    legal_basis: str | None = None


class Aggregation(Part):
    """How updates are summed."""

    mode: Literal["masks", "he", "plain"] = "masks"
    quorum: Share = 0.7
    min_sites: Annotated[int, Field(ge=3)] = 3
    colluders: Annotated[int, Field(ge=0)] = 1
    ring_bits: int = 32
    robust: str = "none"


class Evaluation(Part):
    """Who is compared, and the smallest cell that is shown."""

    subgroups: tuple[str, ...] = ("sex", "age_band")
    min_cell: Annotated[int, Field(ge=11)] = 11


class Release(Part):
    """Gates before a release."""

    min_gain: float = 0.0
    max_ece: Share = 0.05
    worst_site_drop: Share = 0.05
    attack_audit: Literal["required", "off"] = "required"
    reviewers: Annotated[int, Field(ge=0)] = 2


class Schedule(Part):
    """When the study runs."""

    cron: str = "0 2 * * *"
    timezone: str = "UTC"
    priority: str = "training"


class Study(Part):
    """A study. Equal studies have equal canonical bytes and equal digests."""

    schema_version: Literal[1]
    name: Name
    title: str = ""
    cohort: Cohort = Cohort()
    prediction: Prediction = Prediction()
    outcomes: dict[str, Outcome]
    features: Features = Features()
    split: Split = Split()
    model: Model = Model()
    training: Training = Training()
    privacy: Privacy = Privacy()
    aggregation: Aggregation = Aggregation()
    evaluation: Evaluation = Evaluation()
    release: Release = Release()
    schedule: Schedule = Schedule()
    erasure: Literal["keep", "retrain"] = "retrain"

    @property
    def outcome_name(self) -> str:
        """Key of the study's outcome."""
        return next(iter(self.outcomes))

    @property
    def outcome(self) -> Outcome:
        """The study's outcome."""
        return self.outcomes[self.outcome_name]

    def canonical(self) -> bytes:
        """RFC 8785 form with defaults written out."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of `canonical`."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @classmethod
    def from_canonical(cls, data: bytes) -> "Study":
        """Parse `canonical` bytes.

        Raises:
          ConfigError: not a study of this version, or a value that is not built.
        """
        from fedhealth.study.load import study_from

        return study_from(json.loads(data))
