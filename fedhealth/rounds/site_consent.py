"""Who of a study's patients consents when a round starts, what is told of it, and what stays as evidence.

A site asks anew at every round, of the consents of its last load and by its own clock. What it decided is kept in
``consent/<run>-<round>.json`` before anything is posted: a site that was killed goes on with the same people, or not at all.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fedhealth.cdm.consent import read_consents
from fedhealth.errors import DataError
from fedhealth.features.rows import Rows
from fedhealth.privacy.consent import coarse, commitment, left_out
from fedhealth.rounds.journal import write_durably
from fedhealth.rounds.objects import ConsentStatement
from fedhealth.rounds.site_data import SiteFolder


@dataclass(frozen=True, slots=True)
class Consenting:
    """The rows of those who consent, and what the site says of them."""

    rows: Rows
    statement: ConsentStatement


def consenting(
    folder: SiteFolder, rows: Rows, *, site_secret: bytes, run: str, number: int, now: datetime
) -> Consenting:
    """Keep the rows of those who consent at the start of a round.

    Guarantees: who is not in the CDM any more is left out; the first answer for a round is kept, with the list of ids that
    opens its commitment; later calls for the round return the same people, or none.

    Args:
      folder: the site's folder.
      rows: all rows of the study.
      site_secret: 32 bytes; it salts the commitment.
      run: the run.
      number: the round.
      now: with a time zone.

    Raises:
      DataError: the consents cannot be read, or those who consent are others than this round was answered with.
    """
    evidence = evidence_of(folder, run, number)
    before = json.loads(evidence.read_bytes()) if evidence.exists() else None
    consents, rules = read_consents(folder.cdm)
    people = np.unique(rows.person)
    out = left_out(people, consents, rules=rules, now=now) | _gone(folder, people)
    kept = people[~out]
    told = commitment(kept, site_secret=site_secret, run=run, number=number)
    if before is None:
        _keep(
            folder,
            evidence.name,
            kept,
            {"at": now.isoformat(), "commitment": told, "left_out": int(out.sum())},
        )
    elif before["commitment"] != told:
        raise DataError(
            "the consents changed within a round (code consent_changed)", "wait for the next round"
        )
    statement = ConsentStatement(
        commitment=told, patients=coarse(len(kept)), left_out=coarse(len(people) - len(kept))
    )
    return Consenting(rows.where(np.isin(rows.person, kept)), statement)


def _gone(folder: SiteFolder, people: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of the people the CDM does not hold any more: a load since may have taken them out."""
    path = folder.cdm / "person.parquet"
    if not path.exists():
        return np.zeros(len(people), np.bool_)
    try:
        held = pq.read_table(path, columns=["person_id"]).column(0).to_numpy()
    except (OSError, pa.ArrowException):
        raise DataError("the CDM's people cannot be read", "harmonise the site's data again") from None
    return np.asarray(~np.isin(people, held))


def people_of(folder: SiteFolder, run: str, number: int) -> NDArray[np.int64]:
    """The people whom a site counted in a round, as it decided then; nobody if it decided nothing."""
    evidence = evidence_of(folder, run, number)
    if not evidence.exists():
        return np.zeros(0, dtype=np.int64)
    listed = evidence.with_name(json.loads(evidence.read_bytes())["ids"])
    return np.frombuffer(listed.read_bytes(), dtype=">i8").astype(np.int64)


def evidence_of(folder: SiteFolder, run: str, number: int) -> Path:
    """Where a site keeps what it decided for a round."""
    return folder.path / "consent" / f"{run}-{number}.json"


def _keep(folder: SiteFolder, name: str, kept: NDArray[np.int64], decided: dict[str, str | int]) -> None:
    """Write the list of ids (once for rounds that share it), then the decision that names it."""
    place = folder.path / "consent"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    data = kept.astype(">i8").tobytes()
    ids = f"{hashlib.sha256(data).hexdigest()[:32]}.ids"
    if not (place / ids).exists():
        write_durably(place / ids, data)
    write_durably(place / name, json.dumps(decided | {"ids": ids, "patients": len(kept)}).encode())
