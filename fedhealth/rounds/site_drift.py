"""Is a site unlike the others? Its own profile against the consortium's, at the site, from round 1 on.

In round 0 every site adds its profile to a secure sum. What is published is the consortium's, without bins of fewer than 11
people; each site takes its own part away and looks at the rest (`fedhealth.validation.drift`).
"""

import json
from datetime import datetime

import duckdb
import numpy as np

from fedhealth.aggregation.profiles import Counts, Profile, profile_length, reference_of
from fedhealth.cdm.consent import read_consents
from fedhealth.errors import DataError, MissingObjectError
from fedhealth.exchange.board import Board
from fedhealth.privacy.consent import left_out
from fedhealth.rounds.aggregate import PROFILE, read_aggregate
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


def drift_of(own: Profile | None, board: Board, coordinator: str, run: str) -> DriftFound:
    """In what a site with this profile is unlike the rest of its consortium; nothing where there is nothing to compare."""
    try:
        opening = read_aggregate(board, coordinator, run, PREPROCESSING_ROUND)
    except MissingObjectError:
        return DriftFound(found={})
    if own is None or PROFILE not in opening.tensors:
        return DriftFound(found={})
    total = np.asarray(opening.tensors[PROFILE], np.int64)
    if board.keys.name not in opening.survivors.get(PROFILE, ()):
        total = total + own.to_vector()
    found = find_drift(own, reference_of(total))
    return DriftFound(found={each.code: each.severity for each in found})


def fatal_drift(found: DriftFound) -> str | None:
    """The first of what is so unlike that no case mix explains it: the reason to abstain."""
    return next((code for code, severity in sorted(found.found.items()) if severity == "fatal"), None)
