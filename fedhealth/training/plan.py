"""What a site will do in every round of a study, fixed before the first: sampling, steps, noise."""

import hashlib
import math
from dataclasses import dataclass, replace

from fedhealth.errors import ConfigError
from fedhealth.privacy.accounting import noise_multiplier_for
from fedhealth.privacy.buckets import bucket
from fedhealth.study.spec import Study


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """One round of local training. Sampler, clipping, noise and accounting share these numbers.

    Attributes:
      sampling_probability: with which each patient enters each step, in (0, 1].
      steps: gradient steps per round.
      noise_multiplier: noise in units of the clip norm; None without differential privacy.
      expected_batch_size: what noisy sums are divided by; public, never the actual size.
      passes: over the rows, in place of ``steps``; only without differential privacy.
    """

    sampling_probability: float
    steps: int
    noise_multiplier: float | None
    expected_batch_size: int
    passes: int | None = None


def plan_local(study: Study, *, declared_patients: int) -> LocalPlan:
    """Plan every round of a site's training from public numbers only.

    Guarantees: with privacy mode ``local`` all ``training.rounds`` rounds together spend at most
    ``privacy.epsilon * privacy.shares.training`` at ``privacy.delta`` (RDP, one patient added or removed),
    the same in every round.

    Args:
      study: the study.
      declared_patients: the site's training patients, or a bucket of them; under DP it is rounded down to its
        bucket (`fedhealth.privacy.buckets`), so the plan does not tell the count.

    Raises:
      ConfigError: the privacy mode is not built, or no noise is enough for the budget.
      ValueError: fewer than one patient.
    """
    is_private = study.privacy.mode != "none"
    if is_private and study.privacy.mode != "local":
        raise ConfigError(
            f"the privacy mode {study.privacy.mode} is not built", "set privacy.mode to local or none"
        )
    size = bucket(declared_patients) if is_private else max(declared_patients, 1)
    batch = min(study.training.batch_size, size)
    probability = batch / size
    steps = study.training.local.steps or math.ceil(size / batch) * (study.training.local.epochs or 1)
    noise = None
    if is_private:
        noise = _noise(study, sampling_probability=probability, steps=steps * study.training.rounds)
    return LocalPlan(
        sampling_probability=probability,
        steps=steps,
        noise_multiplier=noise,
        expected_batch_size=batch,
        passes=None if is_private else study.training.local.epochs,
    )


def plan_tuning(plan: LocalPlan, *, passes: int) -> LocalPlan:
    """Plan the fine-tuning of a given model at one site, for its own use.

    There is no noise, whatever the study's privacy: what is trained by this plan must never leave the site.
    """
    return replace(plan, noise_multiplier=None, passes=passes)


def _noise(study: Study, *, sampling_probability: float, steps: int) -> float:
    try:
        return noise_multiplier_for(
            epsilon=study.privacy.epsilon * study.privacy.shares.training,
            delta=study.privacy.delta,
            sampling_probability=sampling_probability,
            steps=steps,
        )
    except ValueError:
        raise ConfigError(
            "no noise is enough for the training's part of epsilon",
            "raise privacy.epsilon or privacy.shares.training, or train fewer rounds",
        ) from None


def local_seed(seed: int, *, site: str, number: int) -> int:
    """The seed of one site's shuffling and dropout in one round, where there is no privacy to keep.

    Returns:
      63 bits, a function of the run's seed, the site's name and the round's number.
    """
    text = f"fedhealth/local-seed/{seed}/{site}/{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
