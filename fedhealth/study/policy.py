"""What a site allows: its own file, read by itself; nothing that a coordinator sends can widen it."""

import fnmatch
import json
from collections.abc import Sequence
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
      require_masks: whether updates must be secret, masked or encrypted (``aggregation.mode`` masks or he).
      share_figures: whether the consortium may see how the final model does on this site's test rows.
    """

    allowed_studies: tuple[Pattern, ...] = ("*",)
    max_epsilon: float = Field(default=10.0, gt=0.0, allow_inf_nan=False)
    max_delta: float = Field(default=1.0e-5, gt=0.0, lt=1.0)
    allow_without_privacy: tuple[Pattern, ...] = ("*",)
    min_sites: int = Field(default=3, ge=1)
    min_cohort_patients: int = Field(default=1, ge=1)
    require_masks: bool = True
    share_figures: bool = False

    @classmethod
    def load(cls, path: Path) -> Self:
        """The policy file, or the defaults where there is none.

        Raises:
          ConfigError: the file is there and is not a policy; never the defaults instead.
        """
        if not path.exists():
            return cls()
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls.model_validate_json(json.dumps({} if data is None else data, allow_nan=False))
        except ValidationError as error:
            problem, fix = explain(error, cls)
            raise ConfigError(f"the site policy {path.name}: {problem}", fix) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError, ValueError):
            raise ConfigError(f"the site policy {path.name} cannot be read", "correct its YAML") from None

    def check(self, study: Study, *, n_sites: int) -> None:
        """Refuse a study that this site does not allow.

        Args:
          study: the study as it came.
          n_sites: the sites in the cohort, this one included.

        Raises:
          PolicyError: the first rule that says no.
        """
        for is_refused, problem, fix in self._rules(study, n_sites):
            if is_refused:
                raise PolicyError(f"the site policy refuses study {study.name}: {problem}", fix)

    def check_cohort(self, study: Study, *, patients: int) -> None:
        """Refuse to take part with fewer patients than the study or the site wants.

        Raises:
          PolicyError: too few; the message holds no count.
        """
        if patients < max(study.cohort.min_patients, self.min_cohort_patients):
            raise PolicyError(
                f"too few eligible patients for study {study.name}", "abstain, or widen the study's cohort"
            )

    def _rules(self, study: Study, n_sites: int) -> Sequence[tuple[bool, str, str]]:
        privacy = study.privacy
        is_named = any(fnmatch.fnmatchcase(study.name, pattern) for pattern in self.allowed_studies)
        is_without = privacy.mode == "none"
        may_be_without = any(basis in ("*", privacy.legal_basis) for basis in self.allow_without_privacy)
        too_weak = not is_without and (privacy.epsilon > self.max_epsilon or privacy.delta > self.max_delta)
        unmasked = self.require_masks and study.aggregation.mode == "plain"
        return (
            (not is_named, "its name is not allowed", "add it to allowed_studies at the site"),
            (
                is_without and not may_be_without,
                "it has no privacy and its legal basis is not allowed",
                "use privacy.mode local, or add the basis to allow_without_privacy at the site",
            ),
            (too_weak, "its epsilon or delta is above the ceiling", "lower privacy.epsilon or privacy.delta"),
            (unmasked, "its updates are not masked", "set aggregation.mode to masks"),
            (n_sites < self.min_sites, "the cohort has too few sites", "wait for more sites"),
        )
