"""What the launcher refuses before any process starts: wrong folders, impossible studies, sites that will not take part."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from fedhealth.config import Workdir
from fedhealth.embedded.consortium import Consortium, check_sources
from fedhealth.errors import ConfigError, PolicyError
from fedhealth.rounds.groups import smallest_circle
from fedhealth.rounds.objects import sites_needed
from fedhealth.rounds.possible import check_possible
from fedhealth.study import Study
from fedhealth.study.policy import SitePolicy


def check_launch(studies: Iterable[Study], consortium: Consortium, workdir: Workdir) -> None:
    """Refuse what cannot come to a model, before any site has begun to work. Nothing is written.

    Raises:
      ConfigError: a source folder is missing, or policy files are broken (all of them are named).
      DataError: a FHIR folder holds no FHIR file.
      PolicyError: so many sites cannot carry a study out, or too few sites' policies allow it.
    """
    check_sources(consortium)
    sites = tuple(entry.name for entry in consortium.sites)
    policies = read_policies({site: workdir.site(site) / "policy.yaml" for site in sites})
    for study in studies:
        check_possible(study, sites)
        check_allowed(study, policies)


def read_policies(files: Mapping[str, Path]) -> dict[str, SitePolicy]:
    """The policy of every site.

    Raises:
      ConfigError: files are broken: all of them, each with its key.
    """
    policies, broken = {}, []
    for site, path in files.items():
        try:
            policies[site] = SitePolicy.load(path, called=str(path))
        except ConfigError as error:
            broken.append(f"{error.problem} ({error.fix})")
    if broken:
        raise ConfigError("; ".join(broken), "correct what is named in each file, or remove the file")
    return policies


def check_allowed(study: Study, policies: Mapping[str, SitePolicy]) -> None:
    """Refuse a study that too few sites' policies allow.

    Raises:
      PolicyError: with what each policy says against it.
    """
    refused: dict[str, PolicyError] = {}
    for site, policy in policies.items():
        try:
            policy.check(study, n_sites=smallest_circle(study, tuple(policies)))
        except PolicyError as error:
            refused[site] = error
    willing, needed = len(policies) - len(refused), sites_needed(study, enrolled=len(policies))
    if willing < needed:
        told = {error.problem: error.fix for error in refused.values()}
        by_problem = (
            f"{problem}, says {', '.join(site for site, error in refused.items() if error.problem == problem)}"
            for problem in told
        )
        raise PolicyError(
            f"{'; '.join(by_problem)}; {willing} sites are left, {needed} are needed",
            "; ".join(told.values()),
        )
