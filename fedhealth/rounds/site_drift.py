"""Is a site unlike the others? Its own profile against the consortium's, at the site, before it gives anything else.

The first sum of round 0 is over the sites' profiles. What is published is the consortium's, without bins of fewer than 11
people; each site takes its own part away and looks at the rest (`fedhealth.validation.drift`). One that is unlike the others is
in no other sum.
"""

import json
from datetime import datetime

import duckdb
import numpy as np

from fedhealth.aggregation.profiles import Counts, Profile, profile_length, reference_of
from fedhealth.cdm.consent import read_consents
from fedhealth.errors import DataError
from fedhealth.privacy.consent import left_out
from fedhealth.rounds.aggregate import PROFILE, Aggregate
from fedhealth.rounds.objects import PREPROCESSING_ROUND, DriftFound
from fedhealth.rounds.site_consent import evidence_of
from fedhealth.rounds.site_data import SiteFolder
from fedhealth.validation.drift import find_drift
from fedhealth.validation.profile import profile_cdm


def own_profile(folder: SiteFolder, run: str) -> Profile | None:
    """The site's profile of those who consented when round 0 of a run started; None if its CDM cannot be counted."""
    try:
        decided = json.loads(evidence_of(folder, run, PREPROCESSING_ROUND).read_bytes())
        consents, rules = read_consents(folder.cdm)
        with duckdb.connect(":memory:") as database:
            rows = database.from_parquet(str(folder.cdm / "person.parquet")).project("person_id").fetchall()
        people = np.array([person for (person,) in rows], np.int64)
        out = left_out(people, consents, rules=rules, now=datetime.fromisoformat(decided["at"]))
        return profile_cdm(folder.cdm, without=people[out])
    except (DataError, OSError, duckdb.Error):
        return None


def vector_of(own: Profile | None) -> Counts:
    """What the site adds to the sum: zeros if it cannot be counted."""
    return np.zeros(profile_length(), np.int64) if own is None else own.to_vector()


def drift_of(own: Profile | None, opened: Aggregate, *, site: str) -> DriftFound:
    """In what a site with this profile is unlike the rest of its consortium; nothing where there is nothing to compare.

    Args:
      own: the site's profile.
      opened: holds the consortium's, and who is in it.
      site: whose profile it is.
    """
    if own is None or PROFILE not in opened.tensors:
        return DriftFound(found={})
    total = np.asarray(opened.tensors[PROFILE], np.int64)
    if site not in opened.survivors.get(PROFILE, ()):
        total = total + own.to_vector()
    found = find_drift(own, reference_of(total))
    return DriftFound(found={each.code: each.severity for each in found})
