"""The same patients in a hospital's dialect and in the clean one: after harmonisation the features agree."""

from pathlib import Path

import numpy as np
import pytest

from fedhealth.cdm import harmonize
from fedhealth.features import build_rows
from fedhealth.study.columns import feature_columns
from fedhealth.study.spec import load_study
from fedhealth.synthetic.consortium import write_hospital
from fedhealth.synthetic.dialect import dialect_of

STUDY = load_study(Path(__file__).parents[3] / "infra" / "studies" / "demo-readmission.yaml")
COLUMNS = feature_columns(STUDY)
SECRET = bytes(32)
UNITS_LOST = 9
DIAGNOSES_OF_THE_HOUSE = 13


def harmonised(folder, index, *, clean):
    name, *_ = write_hospital(folder, index, patients=25, seed=5, clean=clean)
    hospital = folder / name
    account = harmonize(
        hospital / "fhir",
        hospital / "cdm",
        site=name,
        site_map=hospital / "site-map",
        site_secret=SECRET,
        validate="off" if clean else "sample",
    )
    return account, build_rows(hospital / "cdm", STUDY, site_secret=SECRET)[0]


@pytest.mark.parametrize("index", range(15))
def test_a_dialect_and_its_site_map_give_the_features_of_the_clean_source(tmp_path, index):
    _, clean = harmonised(tmp_path / "clean", index, clean=True)
    account, rows = harmonised(tmp_path / "dialect", index, clean=False)
    assert all(not count.quarantined for count in account.resources.values())
    assert rows.person.tolist() == clean.person.tolist()
    assert rows.labels.tolist() == clean.labels.tolist()
    width = np.array([column.high - column.low for column in COLUMNS])
    apart = np.abs(rows.features - clean.features) / width
    apart[np.isnan(rows.features) & np.isnan(clean.features)] = 0.0
    # A slope divides a rounded difference by as little as an hour.
    bound = np.array([0.1 if column.name.endswith("_slope") else 0.003 for column in COLUMNS])
    disagree = ~(apart <= bound)  # a value on one side only disagrees
    named = {column.name for column, wrong in zip(COLUMNS, disagree.any(axis=0), strict=True) if wrong}
    if index == UNITS_LOST:  # a number that fits two units without its own stays unknown
        assert account.values.inferred > 20 * sum(account.values.quarantined.values()) > 0
        assert {name.rsplit("_", 1)[0] for name in named} <= {"urea_nitrogen"}
        assert disagree.mean() < 0.005
    elif index == DIAGNOSES_OF_THE_HOUSE:  # comorbidities are counted from ICD-10 source codes alone
        assert named <= {"comorbidity_count"}
    else:
        assert named == set()
    assert not account.values.quarantined or index == UNITS_LOST


def test_no_two_of_the_fifteen_dialects_are_the_same():
    dialects = [dialect_of(index, "hospital") for index in range(15)]
    assert all(one != other for at, one in enumerate(dialects) for other in dialects[:at])
    assert dialect_of(15, "hospital") == dialects[0]
