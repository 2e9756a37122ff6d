"""Every planted fault breaks what it says and nothing else, and a few of them end to end."""

import json
from functools import partial

import pytest

from fedhealth.cdm import harmonize
from fedhealth.errors import ConfigError
from fedhealth.synthetic.consortium import generate_hospital, write_consortium, write_hospital
from fedhealth.synthetic.faults import FAULTS, plant
from fedhealth.validation.losses import find_losses

ONE_TYPE = {
    "Patient": {"dead_before_birth", "one_sex", "a_century_older"},
    "Encounter": {"stays_3d_late", "never_discharged", "end_before_start", "all_ambulatory"},
}


@pytest.fixture(scope="module")
def hospital():
    """A hospital with US units and one with SI units, panels and local laboratory codes."""
    return [generate_hospital(index, patients=40, seed=1)[2] for index in (0, 5)]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_changes_its_own_type_and_stays_json(hospital, name):
    for lines in hospital:
        broken = plant(name, lines)
        changed = {kind for kind in lines if broken[kind] != list(lines[kind])}
        wanted = next((kind for kind, names in ONE_TYPE.items() if name in names), "Observation")
        assert wanted in changed
        if name not in {"all_at_midnight", "year_missing"}:
            assert changed == {wanted}
        for line in broken[wanted][:200]:
            assert json.loads(line)["resourceType"] == wanted
        assert plant(name, lines) == broken


def test_mislabelled_values_are_in_the_other_unit_under_the_label_whatever_the_house_writes(hospital):
    def values(lines, code):
        for line in lines["Observation"]:
            resource = json.loads(line)
            if resource["code"]["coding"][0]["code"] in code:
                yield resource["valueQuantity"]

    for lines in hospital:
        found = list(values(plant("glucose_mmol_as_mg", lines), {"2345-7", "L000"}))
        assert {each["unit"] for each in found} == {"mg/dL"}
        assert 4 < sorted(each["value"] for each in found)[len(found) // 2] < 10


def test_a_fault_of_another_name_is_refused():
    with pytest.raises(ConfigError, match="there is no fault"):
        plant("gremlins", {})


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("file_twice", "losses/Observation/duplicate"),
        ("end_before_start", "losses/Encounter/end_before_start"),
        ("encounter_of_another_patient", "losses/Observation/encounter_refused"),
        ("units_lost", "losses/values/unit_missing"),
    ],
)
def test_a_planted_fault_is_a_loss_that_the_sound_hospital_has_not(tmp_path, name, code):
    def losses(folder, corrupt):
        write_hospital(folder, 3, patients=30, seed=1, corrupt=corrupt)
        hospital = folder / "hospital-04"
        account = harmonize(
            hospital / "fhir",
            hospital / "cdm",
            site="hospital-04",
            site_map=hospital / "site-map",
            site_secret=bytes(32),
            validate="off",
        )
        return {loss.code for loss in find_losses(account)}

    assert losses(tmp_path / "sound", None) == set()
    assert code in losses(tmp_path / "broken", partial(plant, name))


def test_a_consortium_with_a_planted_fault_differs_in_that_hospital_alone(tmp_path):
    write_consortium(tmp_path / "sound", hospitals=2, patients=15, seed=1)
    write_consortium(tmp_path / "broken", hospitals=2, patients=15, seed=1, faults={"hospital-02": "one_sex"})

    def export(folder, name):
        return {path.name: path.read_bytes() for path in (tmp_path / folder / name / "fhir").iterdir()}

    assert export("sound", "hospital-01") == export("broken", "hospital-01")
    sound, broken = export("sound", "hospital-02"), export("broken", "hospital-02")
    assert {name for name in sound if sound[name] != broken[name]} == {"Patient.ndjson"}
    assert b'"male"' not in broken["Patient.ndjson"]


@pytest.mark.parametrize(
    "faults", [{"hospital-03": "one_sex"}, {"hospital-01": "gremlins"}, {"nonsense": ""}]
)
def test_a_fault_or_hospital_that_is_not_there_is_refused_before_anything_is_written(tmp_path, faults):
    with pytest.raises(ConfigError, match="there is no"):
        write_consortium(tmp_path / "new", hospitals=2, patients=15, faults=faults)
    assert not (tmp_path / "new").exists()
