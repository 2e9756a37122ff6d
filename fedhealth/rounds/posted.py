"""What the coordinator posted of a run, read and held against what it must follow from: by sites, by whoever replays a run."""

from fedhealth import __version__
from fedhealth.errors import ProtocolError
from fedhealth.exchange.board import Reader
from fedhealth.exchange.envelope import Opened
from fedhealth.models import weights as weight_codec
from fedhealth.models.weights import Weights
from fedhealth.rounds.groups import circle_of, is_grouped
from fedhealth.rounds.layout import RoundShape, sum_layout
from fedhealth.rounds.objects import (
    PREPROCESSING_ROUND,
    Manifest,
    part_of,
    round_key,
    settings_digest,
    study_key,
    sum_counter,
    sum_prefix,
)
from fedhealth.secagg.plan import SumPlan
from fedhealth.study.spec import Study


def read_posted(board: Reader, run: str, number: int, kind: str, *, name: str = "") -> Opened:
    """An object of a round that the coordinator posted; its ``name`` under the round is its kind, if no other is given.

    Raises:
      MissingObjectError: it is not there.
      ProtocolError: it is not the coordinator's, or another object.
    """
    return board.read(
        round_key(run, number, name or kind),
        kind=kind,
        sender=board.roster.coordinator,
        role="coordinator",
        run=run,
        round=number,
    )


def read_manifest(board: Reader, run: str, number: int) -> Manifest:
    """The manifest of a round.

    Raises:
      MissingObjectError: the round was never opened.
      ProtocolError: it is of another round or roster, or of another study or seed than the run began with.
    """
    manifest = Manifest.from_bytes(read_posted(board, run, number, "manifest").payload)
    if (manifest.run, manifest.round) != (run, number):
        raise ProtocolError("a manifest stands under another round's key", "report the coordinator")
    if manifest.roster_digest != board.roster.digest:
        raise ProtocolError("a manifest names another roster", "enrol this site again")
    if number > PREPROCESSING_ROUND:
        first = read_manifest(board, run, PREPROCESSING_ROUND)
        if any(getattr(manifest, field) != getattr(first, field) for field in _OF_RUN):
            raise ProtocolError(
                "a manifest is of another study than its run began with", "report the coordinator"
            )
    return manifest


_OF_RUN = ("study", "study_digest", "seed")


def read_study(board: Reader, manifest: Manifest) -> Study:
    """The study that a manifest names.

    Raises:
      ProtocolError: what stands there is another study.
    """
    key = f"studies/{manifest.study}/{manifest.study_digest}/study"
    opened = board.read(key, kind="study", sender=board.roster.coordinator, role="coordinator")
    study = Study.from_canonical(opened.payload)
    if study.digest != manifest.study_digest or study_key(study) != key:
        raise ProtocolError("the study on the exchange is not the one the manifest names", "report it")
    return study


def read_transferred(board: Reader, run: str, study: Study) -> Weights:
    """The posted model of round 1 of a run that starts from a registered one, which the study names by its digest.

    Raises:
      ProtocolError: it is another one.
    """
    weights = weight_codec.from_bytes(read_posted(board, run, 1, "model").payload)
    if weight_codec.digest(weights) != study.training.initial.digest:
        raise ProtocolError("the transferred model is not the one the study names", "report the coordinator")
    return weights


def judge_manifest(manifest: Manifest, *, purposes: tuple[str, ...], weights: Weights) -> None:
    """Refuse a manifest that asks for other sums than its study has, or names another model than the rounds before give (R0).

    Raises:
      ProtocolError: it does.
    """
    if manifest.purposes != purposes:
        raise ProtocolError("a manifest asks for sums that its study does not have", "report it")
    if manifest.model_digest != weight_codec.digest(weights):
        raise ProtocolError(
            "the model of this round is not the last aggregate's",
            "report the coordinator to the consortium",
        )


def read_plan(board: Reader, manifest: Manifest, name: str) -> SumPlan:
    """The plan of a sum of a round, as it was posted.

    Raises:
      MissingObjectError: there is none.
    """
    purpose, step = part_of(name)
    coordinator = board.roster.coordinator
    opened = board.read(
        f"{sum_prefix(manifest.run, manifest.round, purpose, step=step)}/plan/{coordinator}",
        kind="plan",
        sender=coordinator,
        role="coordinator",
        study=manifest.study_digest,
        run=manifest.run,
        round=manifest.round,
        purpose=purpose,
        step=step,
    )
    return SumPlan.from_bytes(opened.payload)


def judge_plan(board: Reader, manifest: Manifest, shape: RoundShape, name: str, plan: SumPlan) -> None:
    """Refuse a plan that is not exactly what study, manifest and roster imply.

    Raises:
      ProtocolError: it departs from them, or its cohort is too small or holds strangers.
    """
    purpose, step = part_of(name)
    study, layout = shape.study, sum_layout(shape, name)
    circle = circle_of(study, name, board.roster.sites)
    expected = {
        "study_digest": manifest.study_digest,
        "run": manifest.run,
        "round": manifest.round,
        "purpose": purpose,
        "step": step,
        "attempt": 0,
        "model_digest": manifest.model_digest,
        "settings_digest": settings_digest(study, __version__),
        "roster_digest": board.roster.digest,
        "ring_bits": layout.ring_bits,
        "length": layout.length,
        "lanes": layout.lanes,
        "counter": sum_counter(manifest.round, manifest.purposes, name),
        "min_survivors": circle.survivors_needed(len(plan.cohort)),
        "colluders": study.aggregation.colluders,
    }
    wrong = sorted(key for key, value in expected.items() if getattr(plan, key) != value)
    if wrong == ["settings_digest"]:
        raise ProtocolError("a plan was made by another version of the software", "use that version")
    if wrong:
        raise ProtocolError(f"a plan departs from its manifest in {', '.join(wrong)}", "report it")
    if not set(plan.cohort) <= set(circle.sites):
        where = "this site's group" if is_grouped(study, name) else "the roster"
        raise ProtocolError(f"a plan names a site that is not in {where}", "report it")
    if len(plan.cohort) < circle.least_cohort:
        raise ProtocolError("a plan has fewer sites than its study asks for", "report it")
