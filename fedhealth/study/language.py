"""The sections of a study file: what may be written under each key, and the default of every key.

Strict, frozen, unknown keys forbidden; ``features`` has a module of its own (`fedhealth.study.features`). The language
is wider than what is built: `fedhealth.study.built` refuses the rest with one line.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from fedhealth.study.explain import Unfit


def _is_addressable(code: str) -> str:
    system, _, concept = code.partition("|")
    if system == "omop" and not (concept.isascii() and concept.isdigit() and int(concept) > 0):
        raise ValueError("an OMOP concept is omop|NUMBER, such as omop|3016723")
    return code


Code = Annotated[str, Field(pattern=r"^[^|\s]+\|\S[^|]*$"), AfterValidator(_is_addressable)]
"""``system|code``; a trailing ``*`` is a prefix; an OMOP concept is ``omop|3016723``."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=64)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Hours = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a study: strict, frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Index(Section):
    """Which visits make a row."""

    visit: Literal["inpatient", "emergency", "outpatient", "any"] = "inpatient"
    take: Literal["every", "first", "last"] = "every"


class AgeRange(Section):
    """Years at the index; both ends included."""

    min: int | None = Field(default=18, ge=0, le=130)
    max: int | None = Field(default=None, ge=0, le=130)

    @model_validator(mode="after")
    def _somebody_is_that_old(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is more than max: nobody is that old")
        return self


class Exclude(Section):
    """Stays that leave the cohort; hours count from admission."""

    stay_under_h: Hours | None = None
    event_before_h: Hours | None = None
    measured_hours_under: Annotated[int, Field(ge=0)] | None = None
    gap_over_h: Hours | None = None
    reasons: tuple[Literal["psychiatric", "rehabilitation", "cancer"], ...] = ()


class Cohort(Section):
    """Who is in the study; a site with fewer than ``min_patients`` patients abstains."""

    index: Index = Index()
    age: AgeRange = AgeRange()
    exclude: Exclude = Exclude()
    min_patients: Count = 20


class Prediction(Section):
    """When the prediction is made: at discharge, some hours after admission, or every few hours."""

    at: Literal["discharge", "admission", "every"] = "discharge"
    plus_h: Positive | None = None
    step_h: Annotated[float, Field(ge=0.25, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _hours_fit(self) -> Self:
        if (self.plus_h is not None) != (self.at == "admission"):
            raise ValueError("plus_h belongs to {at: admission, plus_h: 24} and to nothing else")
        if (self.step_h is not None) != (self.at == "every"):
            raise ValueError("step_h belongs to {at: every, step_h: 6} and to nothing else")
        return self


class Split(Section):
    """The test share; a patient's fold is an HMAC under the site's secret, or the site's own record of it.

    ``validation`` is a share of the other patients, on whom the rounds before the last are scored; null means .15 where
    something is chosen by that score (a learning rate, the last round), else nobody.
    """

    test: float = Field(default=0.3, gt=0.0, lt=1.0)
    validation: float | None = Field(default=None, ge=0.0, lt=1.0)
    by: Literal["patient"] = "patient"
    stratify: bool = False
    assigned: Code | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.stratify and self.assigned is not None:
            raise ValueError("stratify and assigned are two ways to split: keep one")
        return self


Width = Annotated[int, Field(ge=1, le=4096)]
Widths = tuple[Width, ...]
_LAYERS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden": (256, 128, 64), "dropout": (0.3, 0.2)},
    "lstm": {"units": (128, 64), "dense": (64,), "dropout": (0.2,)},
    "multitask": {"shared": (256, 128), "heads": (64,), "dropout": (0.3, 0.2)},
}
"""By kind of network, the keys that belong to it, and their defaults."""
_STEPWISE_KEYS = {"gbm": ("depth", "learning_rate", "l2", "min_people"), "cox": ("ridge",)}


def _of_kind(key: str, otherwise: Widths | None) -> Any:
    """A field whose default is that of the section's kind."""
    return Field(default_factory=lambda section: _LAYERS.get(section.get("kind", ""), {}).get(key, otherwise))


class Model(Section):
    """The network. Each kind has keys of its own; dropout comes behind the first layers of hidden, shared or dense.

    linear: none. mlp: ``hidden``. lstm: ``units`` of its stacked recurrent layers, ``dense`` behind them.
    multitask: ``shared`` layers, and behind them the layers of each outcome's ``heads``. gbm: ``depth`` of a tree,
    ``learning_rate`` of its leaves, ``l2`` on their values, ``min_people`` on each side of a split. cox: ``ridge`` on
    coefficients per standard deviation.
    """

    kind: Literal["linear", "mlp", "lstm", "multitask", "gbm", "cox"] = "mlp"
    hidden: Widths = _of_kind("hidden", ())
    dropout: tuple[Annotated[float, Field(ge=0.0, lt=1.0)], ...] = _of_kind("dropout", ())
    units: Annotated[Widths, Field(min_length=1, max_length=4)] | None = _of_kind("units", None)
    dense: Widths | None = _of_kind("dense", None)
    shared: Widths | None = _of_kind("shared", None)
    heads: Widths | None = _of_kind("heads", None)
    depth: int = Field(default=4, ge=1, le=6)
    learning_rate: float = Field(default=0.1, gt=0.0, le=1.0)
    l2: Positive = 1.0
    min_people: int = Field(default=20, ge=11)
    ridge: Positive = 1.0

    @model_validator(mode="after")
    def _keys_belong_to_the_kind(self) -> Self:
        own = _LAYERS.get(self.kind, {})
        for key in ("hidden", "dropout", "units", "dense", "shared", "heads"):
            if key not in own and getattr(self, key):
                raise ValueError(f"{key} does not belong to kind {self.kind}")
            if key in own and getattr(self, key) is None:
                raise ValueError(f"kind {self.kind} needs {key}")
        for kind, keys in _STEPWISE_KEYS.items():
            for key in keys:
                if kind != self.kind and getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} belongs to kind {kind}")
        return self

    @model_validator(mode="after")
    def _dropout_fits(self) -> Self:
        for key in ("hidden", "dense", "shared"):
            layers = getattr(self, key)
            if key in _LAYERS.get(self.kind, {}) and len(self.dropout) > len(layers or ()):
                raise ValueError(f"dropout has more entries than {key}")
        return self


class Local(Section):
    """A site's work in a round: passes over its patients, or a number of steps."""

    epochs: Count | None = None
    steps: Count | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("needs exactly one of epochs and steps")
        return self


class Optimizer(Section):
    """The optimiser at the sites. ``momentum`` is of sgd; adam adds the decay to the gradient, adamw does not."""

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Positive = 0.02
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Self:
        if self.momentum > 0.0 and self.kind != "sgd":
            raise ValueError(f"momentum does not belong to kind {self.kind}")
        return self


class Server(Section):
    """The optimiser that applies the mean update; all but ``lr`` belong to the adaptive ones."""

    kind: Literal["sgd", "adam", "yogi", "adagrad"] = "sgd"
    lr: Positive = 1.0
    beta_1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta_2: float = Field(default=0.99, ge=0.0, lt=1.0)
    tau: Positive = 1.0e-3

    @model_validator(mode="after")
    def _keys_belong_to_the_kind(self) -> Self:
        for key in ("beta_1", "beta_2", "tau"):
            if self.kind == "sgd" and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} belongs to kind adam, yogi or adagrad")
        return self


class EarlyStopping(Section):
    """Stop after so many rounds without a gain."""

    patience: Count | None = None


class Search(Section):
    """Learning rates of the sites to try one after the other, each for so many of the first ``training.rounds``."""

    lr: tuple[Positive, ...] = ()
    rounds: int = Field(default=2, ge=2, le=100)

    @property
    def last(self) -> int:
        """The last round of the trials; 0 without them."""
        return len(self.lr) * self.rounds

    @model_validator(mode="after")
    def _something_to_choose(self) -> Self:
        if len(self.lr) == 1 or len(set(self.lr)) < len(self.lr):
            raise ValueError("search.lr needs two or more different rates, or none")
        if not self.lr and self.rounds != type(self).model_fields["rounds"].default:
            raise ValueError("rounds belongs to lr: name two or more rates to try")
        return self


class FineTune(Section):
    """So many passes of every site over its own rows, from the final model; what comes out stays at the site."""

    epochs: Count | None = None


class Initial(Section):
    """Transfer: a registered model, ``name/version``, the digest of its weights, and its frozen layers."""

    model: Annotated[str, Field(pattern=r"^[a-z0-9-]+/[0-9]+$")] | None = None
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    freeze: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _model_and_digest(self) -> Self:
        if (self.model is None) != (self.digest is None):
            raise ValueError("model and digest belong together: the digest is the version's tag model_digest")
        return self


Algorithm = Literal["fedavg", "fedprox", "scaffold", "fedadam", "fedyogi", "fedadagrad", "fedbn", "fedbuff"]


_SERVERS: dict[Algorithm, str] = {"fedadam": "adam", "fedyogi": "yogi", "fedadagrad": "adagrad"}
"""The server optimiser of an algorithm; sgd for all others."""


class Training(Section):
    """How the model is trained."""

    algorithm: Algorithm = "fedavg"
    weighting: Literal["examples", "uniform"] = "examples"
    rounds: int = Field(default=30, ge=1, le=10_000)
    local: Local = Local(epochs=1)
    batch_size: Count = 32
    optimizer: Optimizer = Optimizer()
    server: Server = Server()
    proximal_mu: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    personal: tuple[str, ...] = ()
    search: Search = Search()
    early_stopping: EarlyStopping = EarlyStopping()
    fine_tune: FineTune = FineTune()
    initial: Initial = Initial()

    @model_validator(mode="after")
    def _algorithm_has_what_it_needs(self) -> Self:
        wanted = _SERVERS.get(self.algorithm, "sgd")
        if self.server.kind != wanted:
            raise ValueError(f"algorithm {self.algorithm} goes with server.kind {wanted}")
        if self.algorithm == "scaffold" and self.local.steps is None:
            raise ValueError(
                "scaffold needs local.steps, the same at every site: its control is a mean per step"
            )
        if self.algorithm == "scaffold" and (self.optimizer.kind != "sgd" or self.optimizer.momentum > 0.0):
            raise ValueError(
                "scaffold needs optimizer.kind sgd without momentum: its control is a mean gradient"
            )
        if self.algorithm == "scaffold" and self.personal:
            raise ValueError("scaffold has no control of personal parameters: use fedbn or fedavg with them")
        if self.search.lr and (self.personal or self.algorithm in ("scaffold", "fedbn")):
            raise ValueError(
                "search needs sites that remember nothing from round to round: no scaffold, fedbn, personal"
            )
        if self.search.lr and self.search.last >= self.rounds:
            raise ValueError(f"search takes {self.search.last} rounds: training.rounds must be more")
        if (self.proximal_mu > 0.0) != (self.algorithm == "fedprox"):
            raise ValueError("algorithm fedprox needs proximal_mu above 0, and no other algorithm has it")
        return self


class Shares(Section):
    """How epsilon is divided among the three kinds of release."""

    preprocessing: Share = 0.1
    training: Share = 0.8
    evaluation: Share = 0.1

    @model_validator(mode="after")
    def _within_the_whole(self) -> Self:
        if self.preprocessing + self.training + self.evaluation > 1.0 + 1e-9:
            raise ValueError("the shares must not exceed 1 together")
        if self.training == 0.0:
            raise ValueError("training needs a share, or no step of it could be noised enough")
        return self


class Privacy(Section):
    """The promise to patients; ``none`` needs a declared legal basis."""

    mode: Literal["local", "distributed", "none"] = "local"
    epsilon: Positive = 1.0
    delta: float = Field(default=1.0e-5, gt=0.0, lt=1.0)
    l2_clip_norm: Positive = 1.0
    allocation: Literal["constant", "linear", "adaptive"] = "constant"
    engine: Literal["auto", "opacus", "fused"] = "auto"
    linkage_factor: Count = 1
    shares: Shares = Shares()
    reinitialise: Literal["never", "yearly"] = "never"
    legal_basis: Annotated[str, Field(min_length=3, max_length=200)] | None = None

    @model_validator(mode="after")
    def _none_is_declared(self) -> Self:
        if self.mode == "none" and self.legal_basis is None:
            raise ValueError("mode none needs a legal_basis, such as 'public data' or 'consented'")
        for key in ("epsilon", "delta", "l2_clip_norm"):
            if self.mode == "none" and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(
                    f"{key} promises what mode none does not keep: remove it, or choose mode local"
                )
        return self


_PLAIN_RULES = ("median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "centred_clipping")
"""What needs every site's update in the clear."""
_COUNTING_RULES = {"trimmed_mean": 1, "krum": 3, "multi_krum": 3}
"""Rules that are told how many sites may lie; two for each, and so many more, is the fewest sites they need."""


class Aggregation(Section):
    """How the sites' numbers become one; in mode plain the updates, and only they, travel in the clear.

    ``robust`` is the rule against wrong updates: ``plausibility`` and ``groups`` go with masks, all others with plain.
    ``attackers`` is how many lying sites trimmed_mean, krum, multi_krum and groups bear. ``group_size`` is the fewest enrolled
    sites of a group: each group's sum is opened.
    """

    mode: Literal["masks", "he", "plain"] = "masks"
    quorum: float = Field(default=0.7, gt=0.0, le=1.0)
    min_sites: Count = 3
    colluders: int = Field(default=1, ge=0)
    ring_bits: Literal[4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 32] = 32
    sent_share: Share = 1.0
    robust: Literal[
        "none",
        "plausibility",
        "groups",
        "median",
        "trimmed_mean",
        "krum",
        "multi_krum",
        "geometric_median",
        "centred_clipping",
    ] = "none"
    attackers: Count = 1
    group_size: int = Field(default=3, ge=3)

    @model_validator(mode="after")
    def _robust_fits_the_mode(self) -> Self:
        if self.robust in _PLAIN_RULES and self.mode != "plain":
            raise Unfit(
                f"robust {self.robust} needs every update in the clear",
                "set aggregation.mode to plain, or aggregation.robust to plausibility",
            )
        if self.robust in ("plausibility", "groups") and self.mode != "masks":
            raise Unfit(f"robust {self.robust} is what masks leave room for", "set aggregation.mode to masks")
        if self.compresses and (self.mode == "plain" or self.robust != "none"):
            raise Unfit(
                "mode plain and robust rules look at one site's update, which ring_bits under 32 wrap",
                "set aggregation.ring_bits to 32",
            )
        if self.mode == "he" and self.compresses:
            raise Unfit(
                "mode he opens one exact sum, which ring_bits under 32 wrap",
                "set aggregation.ring_bits to 32",
            )
        return self

    @model_validator(mode="after")
    def _attackers_fit_the_rule(self) -> Self:
        default = type(self).model_fields["attackers"].default
        if self.robust not in (*_COUNTING_RULES, "groups") and self.attackers != default:
            raise Unfit(
                "attackers belongs to robust trimmed_mean, krum, multi_krum or groups",
                "remove aggregation.attackers",
            )
        needed = 2 * self.attackers + _COUNTING_RULES.get(self.robust, 0)
        if self.robust in _COUNTING_RULES and self.min_sites < needed:
            raise Unfit(
                f"robust {self.robust} needs more sites for its attackers",
                f"set aggregation.min_sites to {needed} or more, or lower aggregation.attackers",
            )
        return self

    @model_validator(mode="after")
    def _groups_hide_their_sites(self) -> Self:
        least = self.colluders + 2
        if self.robust != "groups" and self.group_size != type(self).model_fields["group_size"].default:
            raise Unfit("group_size belongs to robust groups", "remove aggregation.group_size")
        if self.robust == "groups" and self.group_size < least:
            raise Unfit(
                "group_size is too small: two sites must be left beside the colluders",
                f"set aggregation.group_size to {least} or more, or lower aggregation.colluders",
            )
        return self

    @model_validator(mode="after")
    def _secrecy_needs_three(self) -> Self:
        if self.mode != "plain" and self.min_sites < 3:
            raise Unfit(
                f"min_sites is under 3 in mode {self.mode}: a sum of two tells each the other's",
                "set aggregation.min_sites to 3 or more",
            )
        return self

    @model_validator(mode="after")
    def _a_share_is_sent_compressed(self) -> Self:
        if self.sent_share == 0.0:
            raise Unfit(
                "sent_share must be above 0: an update of no parameters trains nothing",
                "set aggregation.sent_share to 1.0, or to a share such as 0.25",
            )
        if self.sent_share < 1.0 and not self.compresses:
            raise Unfit(
                "sent_share under 1 goes with compressed updates",
                "set aggregation.ring_bits to 4 to 16, or aggregation.sent_share to 1.0",
            )
        return self

    @property
    def compresses(self) -> bool:
        """Whether updates are rounded to a ring in which sums wrap."""
        return self.ring_bits < 32


class Evaluation(Section):
    """What is reported, the smallest cell that is shown, and whether sites compare their data (round 0)."""

    compare_sites: bool = True
    subgroups: tuple[Literal["sex", "age_band", "race"], ...] = ("sex", "age_band")
    min_cell: int = Field(default=11, ge=11)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.subgroups)) < len(self.subgroups):
            raise ValueError("subgroups names one twice")
        return self


class Release(Section):
    """The gates before a model is released."""

    min_gain: float = Field(default=0.0, allow_inf_nan=False)
    max_ece: Share = 0.05
    worst_site_drop: Share = 0.05
    attack_audit: Literal["required", "optional"] = "required"
    reviewers: int = Field(default=2, ge=0)


class Schedule(Section):
    """When the sites train."""

    cron: str = "0 2 * * *"
    timezone: str = "UTC"
    priority: Literal["training", "background"] = "training"
