"""Start a run from the model that its study names: transfer to a department from what the consortium has learnt."""

from fedhealth.errors import ConfigError
from fedhealth.registry.store import Registry
from fedhealth.rounds.coordinator import CoordinatorNode
from fedhealth.rounds.possible import check_possible
from fedhealth.study.columns import numeric_columns
from fedhealth.study.spec import Study


def start_study(node: CoordinatorNode, registry: Registry, study: Study, *, run: str, seed: int) -> int:
    """Open round 0 of a study; returns the number of the last round.

    Guarantees: sites take a transferred model only if its weights have the digest in the study they approved.

    Raises:
      ConfigError: the run id cannot be part of a key, or the registered model has another digest or other columns, or
        was trained without the privacy that this study promises.
      PolicyError: the enrolled sites cannot carry the study out.
      TransportError: the registry has no such version, or does not answer.
    """
    check_possible(study, node.board.roster.sites)
    wanted = study.training.initial.model
    if wanted is None:
        return node.start_run(study, run=run, seed=seed)
    name, _, version = wanted.rpartition("/")
    known = registry.study(name, int(version))
    if study.features.categories or numeric_columns(known) != numeric_columns(study):
        raise ConfigError(
            f"training.initial: {wanted} sees other columns than this study, or the study has categories",
            "give the study the features of the registered model",
        )
    if study.privacy.mode != "none" and known.privacy.mode == "none":
        raise ConfigError(
            f"training.initial: {wanted} was trained without differential privacy, which this study promises",
            "start from a private model, or from none",
        )
    return node.start_run(study, run=run, seed=seed, transferred=registry.weights(name, int(version)))
