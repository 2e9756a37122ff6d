"""References, the shapes that are read, and the strict models."""

import json

import pytest

from fedhealth.fhir.references import resolve_references
from fedhealth.fhir.resources import LOADED, R4_TYPES, SHAPES
from fedhealth.fhir.structure import resource_model


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("Patient/a-1.B", "Patient/a-1.B"),
        ("Patient/a/_history/3", "Patient/a"),
        ("https://x.example/base/Patient/a", "Patient/a"),
        ("urn:uuid:1", "Patient/from-url"),
        ("Patient?identifier=s|1", "Patient/from-identifier"),
        ("urn:uuid:2", None),
        ("Patient?identifier=s|2", None),
        ("#inside", None),
        ("Patient/", None),
        ("Patient/with space", None),
        ("Patient/" + "x" * 65, None),
        ("", None),
    ],
)
def test_a_reference_points_where_it_says_or_nowhere(reference, target):
    urls = {"urn:uuid:1": "Patient/from-url", "Patient?identifier=s|1": "Patient/from-identifier"}
    assert resolve_references([reference], urls=urls).get(reference) == target


def test_there_are_the_146_resource_types_of_r4():
    assert len(R4_TYPES) == 146  # the value set resource-types has 148, two of them abstract
    assert set(SHAPES) <= R4_TYPES
    assert set(LOADED) == set(SHAPES) - {"Medication"}


@pytest.mark.parametrize("name", SHAPES)
def test_the_fields_that_are_read_from_a_type_are_fields_of_r4_or_mark_another_version(name):
    shape = SHAPES[name]
    model = resource_model(name)
    ours = set(json.loads(shape.fields))
    theirs = {field.alias or key for key, field in model.model_fields.items()}
    for field in ours - theirs:
        assert field in shape.foreign or field in ("context", "code"), field


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.statuses])
def test_the_statuses_are_those_of_r4(name):
    listed = set(resource_model(name).model_fields["status"].json_schema_extra["enum_values"])
    ours = set(SHAPES[name].statuses)
    assert listed == ours if "+" not in listed else listed - {"+"} < ours  # "+": the list goes on
