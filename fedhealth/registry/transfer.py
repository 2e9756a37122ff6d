"""Start a run from the model that its study names: transfer to a department from what the consortium has learnt."""

from fedhealth.registry.store import Registry
from fedhealth.rounds.coordinator import CoordinatorNode
from fedhealth.study.spec import Study


def start_study(node: CoordinatorNode, registry: Registry, study: Study, *, run: str, seed: int) -> int:
    """Open round 0 of a study; returns the number of the last round.

    Guarantees: sites take a transferred model only if its weights have the digest in the study they approved.

    Raises:
      ConfigError: the run id cannot be part of a key, or the registered model has another digest.
      TransportError: the registry has no such version, or does not answer.
    """
    wanted = study.training.initial.model
    if wanted is None:
        return node.start_run(study, run=run, seed=seed)
    name, _, version = wanted.rpartition("/")
    return node.start_run(study, run=run, seed=seed, transferred=registry.weights(name, int(version)))
