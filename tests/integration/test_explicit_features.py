"""Hospitals in dialects of their own: a study that names its measurements itself sees what the preset sees."""

import json

import numpy as np
import pytest

from fedhealth.cdm import harmonize
from fedhealth.features import build_rows
from fedhealth.study.columns import SERIES, SUMMARIES, numeric_columns
from fedhealth.study.spec import Study
from fedhealth.synthetic.consortium import write_hospital
from fedhealth.vocabulary.concepts import SERIES_CONCEPTS
from fedhealth.vocabulary.maps import shipped_codes

SECRET = bytes(32)
OTHER_UNITS = {
    "glucose": ("mmol/L", 18.016),
    "creatinine": ("umol/L", 113.12 / 10_000),
    "haemoglobin": ("g/L", 0.1),
}
"""By feature, another unit and the factor from it to the preset's."""


def codes_of(name):
    """The LOINC codes of a series feature."""
    wanted = {concept.concept_id for concept in SERIES_CONCEPTS[name]}
    return [
        f"{system}|{code}"
        for (system, code), concept in shipped_codes("measurement").items()
        if concept in wanted
    ]


def study_of():
    asked = [
        {
            "name": f"own_{each.name}",
            "codes": codes_of(each.name),
            "unit": each.unit,
            "clip": [each.low, each.high],
        }
        for each in SERIES
    ]
    asked += [
        {
            "name": f"other_{name}",
            "codes": codes_of(name),
            "unit": unit,
            "clip": [0, 30_000],
            "aggregate": ["last"],
        }
        for name, (unit, _) in OTHER_UNITS.items()
    ]
    document = {
        "schema_version": 1,
        "name": "explicit",
        "outcomes": {"readmission": {"kind": "readmission"}},
        "features": {"measurements": asked},
    }
    return Study.model_validate_json(json.dumps(document))


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 3, 8])
def test_measurements_by_loinc_code_are_the_presets_whatever_codes_and_units_a_hospital_has(tmp_path, index):
    study = study_of()
    name, *_ = write_hospital(tmp_path, index, patients=25, seed=5)
    hospital = tmp_path / name
    harmonize(
        hospital / "fhir",
        hospital / "cdm",
        site=name,
        site_map=hospital / "site-map",
        site_secret=SECRET,
        validate="off",
    )
    rows = build_rows(hospital / "cdm", study, site_secret=SECRET)[0]
    columns = {column.name: rows.features[:, place] for place, column in enumerate(numeric_columns(study))}
    for feature in SERIES:
        for summary in SUMMARIES:
            preset, own = (columns[f"{which}{feature.name}_{summary}"] for which in ("", "own_"))
            np.testing.assert_array_equal(own, preset)
    for feature, (_, factor) in OTHER_UNITS.items():
        np.testing.assert_allclose(
            columns[f"other_{feature}_last"] * factor, columns[f"{feature}_last"], rtol=1e-5
        )
    assert (columns["creatinine_missing"] == 0).sum() > 10
