"""What a site allows: its own file, read by itself; nothing that a coordinator sends can widen it."""

import fnmatch
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import Field, ValidationError

from fedhealth.errors import ConfigError, PolicyError
from fedhealth.study.explain import explain
from fedhealth.study.language import Section
from fedhealth.study.spec import Study

Pattern = Annotated[str, Field(min_length=1, max_length=100)]


class SitePolicy(Section):
    """The rules of one site.

    Args:
      allowed_studies: shell patterns of study names, such as ``readmission-*``.
      max_epsilon: the largest epsilon of one study.
      max_delta: the largest delta of one study.
      allow_without_privacy: legal bases under which a study with privacy none may run (compared exactly);
        empty means never, ``*`` any that is declared.
      min_sites: the fewest sites in a cohort.
      min_cohort_patients: the fewest patients of its own with which the site takes part.
      min_colluders: the fewest colluding sites that a study must withstand (``aggregation.colluders``).
      min_ring_bits: the smallest ring for updates; from 32 on all sums are exact, so that a wrong mask is found.
      require_masks: whether updates must be secret, masked or encrypted (``aggregation.mode`` masks or he).
      share_figures: whether the consortium may see how the final model does on this site's test rows.
    """

    allowed_studies: tuple[Pattern, ...] = ("*",)
    max_epsilon: float = Field(default=10.0, gt=0.0, allow_inf_nan=False)
    max_delta: float = Field(default=1.0e-5, gt=0.0, lt=1.0)
    allow_without_privacy: tuple[Pattern, ...] = ("*",)
    min_sites: int = Field(default=3, ge=1)
    min_cohort_patients: int = Field(default=1, ge=1)
    min_colluders: int = Field(default=0, ge=0)
    min_ring_bits: int = Field(default=4, ge=4, le=32)
    require_masks: bool = True
    share_figures: bool = False

    @classmethod
    def load(cls, path: Path, *, called: str = "") -> Self:
        """The policy file, or the defaults where there is none.

        Args:
          path: of the file.
          called: what an error calls it; its name alone by default, as errors may leave the site.

        Raises:
          ConfigError: the file is there and is not a policy; never the defaults instead.
        """
        if not path.exists():
            return cls()
        file = f"the site policy {called or path.name}"
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls.model_validate_json(json.dumps({} if data is None else data, allow_nan=False))
        except ValidationError as error:
            problem, fix = explain(error, cls)
            raise ConfigError(f"{file}: {problem}", fix) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError):
            raise ConfigError(f"{file} cannot be read", "correct its YAML") from None

    def check(self, study: Study, *, n_sites: int) -> None:
        """Refuse a study that this site does not allow.

        Args:
          study: the study as it came.
          n_sites: the sites in the cohort, this one included.

        Raises:
          PolicyError: every rule that says no, with its key.
        """
        unmet = [each for each in demands_of(study, n_sites=n_sites) if not each.is_met(self)]
        if unmet:
            problems = "; ".join(f"{each.problem} ({each.key})" for each in unmet)
            raise PolicyError(
                f"the site policy refuses study {study.name}: {problems}", "; ".join(e.fix for e in unmet)
            )

    def check_cohort(self, study: Study, *, patients: int) -> None:
        """Refuse to take part with fewer patients than the study or the site wants.

        Raises:
          PolicyError: too few; the message holds no count.
        """
        if patients < max(study.cohort.min_patients, self.min_cohort_patients):
            raise PolicyError(
                f"too few eligible patients for study {study.name}", "abstain, or widen the study's cohort"
            )


@dataclass(frozen=True, slots=True)
class Demand:
    """What a study asks of one key of a site's policy.

    Attributes:
      key: of the policy.
      allowance: what the key must say, or more generously.
      is_met: whether a policy says so.
      problem: what is wrong with the study under another policy.
      in_study: what to change in the study instead; empty if nothing is.
    """

    key: str
    allowance: str
    is_met: Callable[[SitePolicy], bool]
    problem: str
    in_study: str = ""

    @property
    def fix(self) -> str:
        """What to change, here or there."""
        there = f"write {self.key}: {self.allowance} into the site's policy.yaml"
        return f"{self.in_study}, or {there}" if self.in_study else there


def demands_of(study: Study, *, n_sites: int) -> tuple[Demand, ...]:
    """What the policy of every site in a study must allow: all that a site's refusal can be about.

    Args:
      study: the study.
      n_sites: the sites in its smallest sum.
    """
    colluders, ring_bits = study.aggregation.colluders, study.aggregation.ring_bits
    demands = [
        Demand(
            "allowed_studies",
            f"[{study.name}]",
            lambda policy: any(fnmatch.fnmatchcase(study.name, each) for each in policy.allowed_studies),
            "its name is not allowed",
        ),
        *_demands_on_privacy(study),
        Demand(
            "min_sites",
            f"{n_sites} or fewer",
            lambda policy: policy.min_sites <= n_sites,
            "the cohort has too few sites",
            "enrol more sites",
        ),
        Demand(
            "min_colluders",
            f"{colluders} or fewer",
            lambda policy: policy.min_colluders <= colluders,
            "it withstands too few colluding sites",
            "raise aggregation.colluders",
        ),
        Demand(
            "min_ring_bits",
            f"{ring_bits} or fewer",
            lambda policy: policy.min_ring_bits <= ring_bits,
            "its updates are summed in too small a ring",
            "raise aggregation.ring_bits",
        ),
    ]
    if study.aggregation.mode == "plain":
        demands.append(
            Demand(
                "require_masks",
                "false",
                lambda policy: not policy.require_masks,
                "its updates are not masked",
                "set aggregation.mode to masks",
            )
        )
    return tuple(demands)


def allowances(study: Study, *, n_sites: int) -> str:
    """What policies must say for a study to run, in one line: first of all what the default policy does not."""
    ordered = sorted(demands_of(study, n_sites=n_sites), key=lambda each: each.is_met(SitePolicy()))
    return ", ".join(f"{each.key}: {each.allowance}" for each in ordered)


def _demands_on_privacy(study: Study) -> tuple[Demand, ...]:
    privacy = study.privacy
    if privacy.mode == "none":
        return (
            Demand(
                "allow_without_privacy",
                f"[{json.dumps(privacy.legal_basis)}]",
                lambda policy: any(
                    each in ("*", privacy.legal_basis) for each in policy.allow_without_privacy
                ),
                "it has no privacy and its legal basis is not allowed",
                "set privacy.mode to local",
            ),
        )
    return (
        Demand(
            "max_epsilon",
            f"{_number(privacy.epsilon)} or more",
            lambda policy: privacy.epsilon <= policy.max_epsilon,
            "its epsilon is above the ceiling",
            "lower privacy.epsilon",
        ),
        Demand(
            "max_delta",
            f"{_number(privacy.delta)} or more",
            lambda policy: privacy.delta <= policy.max_delta,
            "its delta is above the ceiling",
            "lower privacy.delta",
        ),
    )


def _number(value: float) -> str:
    """A number as YAML reads one: 1e-05 would be text."""
    digits, exponent, power = repr(value).partition("e")
    return f"{digits if '.' in digits else digits + '.0'}{exponent}{power}"
