"""Consents at the start of a round: who is in, what is told, what stays as evidence."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedhealth.cdm.consent import save_consents
from fedhealth.errors import DataError
from fedhealth.features.rows import Rows
from fedhealth.privacy.consent import Consent, ConsentRules, Provision, consent_salt
from fedhealth.rounds.site_consent import consenting
from fedhealth.rounds.site_data import SiteFolder

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECRET = bytes(range(32))
DENY = Provision(type="deny")
RULES = ConsentRules()


@pytest.fixture
def folder(tmp_path):
    folder = SiteFolder(tmp_path)
    (folder.cdm / "private").mkdir(parents=True)
    save_consents(folder.cdm / "private", [], ConsentRules())
    return folder


def say(folder, *people, root=DENY, rules=RULES):
    save_consents(folder.cdm / "private", [Consent(n, NOW, NOW, False, root) for n in people], rules)


def rows(patients=100):
    person = np.repeat(np.arange(patients, dtype=np.int64), 2)
    zeros = np.zeros(2 * patients, np.float32)
    return Rows(zeros[:, None], zeros, person, person % 5 == 0)


def ask(folder, number=1, now=NOW, run="run-1"):
    return consenting(folder, rows(), site_secret=SECRET, run=run, number=number, now=now)


def test_every_row_of_who_denies_is_left_out_and_no_other(folder):
    say(folder, 3, 8)
    asked = ask(folder)
    assert set(asked.rows.person) == set(range(100)) - {3, 8}
    assert len(asked.rows) == 196
    assert asked.rows.features.shape == (196, 1)


def test_a_withdrawal_counts_from_the_next_round_on(folder):
    before = ask(folder, 1)
    say(folder, 3)
    after = ask(folder, 2)
    assert 3 in before.rows.person
    assert 3 not in after.rows.person
    assert before.statement.commitment != after.statement.commitment
    assert (before.statement.patients, after.statement.patients) == (90, 90)  # one is not seen
    assert (before.statement.left_out, after.statement.left_out) == (0, 0)


def test_equal_lists_do_not_look_equal(folder):
    assert ask(folder, 1).statement.commitment != ask(folder, 2).statement.commitment
    assert ask(folder, 1).statement.commitment != ask(folder, 1, run="run-2").statement.commitment


def test_a_round_that_was_answered_is_answered_with_the_same_people_or_not_at_all(folder):
    say(folder, 3, root=Provision(type="permit", end=NOW.isoformat()))
    first = ask(folder, 1)
    assert ask(folder, 1).statement == first.statement
    later = NOW + timedelta(days=1)  # the permit has lapsed since
    with pytest.raises(DataError, match="consent_changed"):
        ask(folder, 1, now=later)
    assert 3 not in ask(folder, 2, now=later).rows.person
    say(folder, 4)
    with pytest.raises(DataError, match="consent_changed"):
        ask(folder, 1)


def test_who_is_not_in_the_cdm_any_more_is_left_out_of_rows_made_before(folder):
    kept = [n for n in range(100) if n != 7]
    pq.write_table(pa.table({"person_id": pa.array(kept, pa.int64())}), folder.cdm / "person.parquet")
    assert set(ask(folder).rows.person) == set(kept)


def test_the_evidence_opens_the_commitment(folder):
    say(folder, 3)
    told = ask(folder, 1).statement.commitment
    kept = json.loads((folder.path / "consent" / "run-1-1.json").read_text())
    ids = (folder.path / "consent" / kept["ids"]).read_bytes()
    salt = consent_salt(site_secret=SECRET, run="run-1", number=1)
    assert hashlib.sha256(salt + ids).hexdigest() == told == kept["commitment"]
    assert np.frombuffer(ids, ">i8").tolist() == [n for n in range(100) if n != 3]
    assert (kept["patients"], kept["left_out"]) == (99, 1)
    ask(folder, 2)
    assert len(list((folder.path / "consent").glob("*.ids"))) == 1  # the same list is kept once


def test_a_load_without_a_consent_list_lets_nobody_in(folder):
    (folder.cdm / "private" / "consent.parquet").unlink()
    with pytest.raises(DataError, match="consents cannot be read"):
        ask(folder)


def test_the_default_of_the_site_counts(folder):
    say(folder, 3, 4, root=Provision(type="permit"), rules=ConsentRules("opt-in"))
    assert set(ask(folder).rows.person) == {3, 4}
