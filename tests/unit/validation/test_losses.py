"""Losses of a harmonisation: exceptions are none, what is more is named."""

import pytest

from fedhealth.cdm.accounting import Accounting, LinkCount, ResourceCount, ValueCount
from fedhealth.validation.losses import find_losses


def account(*, resources=None, values=None, links=None, notes=None):
    loaded = {
        "Observation": ResourceCount(read=1000, loaded=1000),
        "Encounter": ResourceCount(read=100, loaded=100),
    }
    return Accounting(
        site="site",
        resources=loaded | (resources or {}),
        values=values or ValueCount(read=1000, loaded=1000, converted=0, inferred=0, quarantined={}),
        links=links or {},
        notes=notes or {},
        tables={},
        unmapped=[],
        seconds={},
    )


def codes(given):
    return [loss.code for loss in find_losses(given)]


def test_a_harmonisation_that_lost_nothing_or_little_has_no_losses():
    assert codes(account()) == []
    few = ResourceCount(read=1000, loaded=980, excluded={"duplicate": 10}, quarantined={"missing_time": 10})
    assert codes(account(resources={"Observation": few})) == []


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (
            {
                "resources": {
                    "Observation": ResourceCount(read=1000, loaded=989, quarantined={"missing_time": 11})
                }
            },
            "losses/Observation/missing_time",
        ),
        (
            {"resources": {"Observation": ResourceCount(read=1000, loaded=989, excluded={"duplicate": 11})}},
            "losses/Observation/duplicate",
        ),
        (
            {"values": ValueCount(read=1000, loaded=979, converted=0, inferred=0, quarantined={"unit": 21})},
            "losses/values/unit",
        ),
        (
            {"values": ValueCount(read=1000, loaded=1000, converted=0, inferred=201, quarantined={})},
            "losses/values/inferred",
        ),
        ({"links": {"measurement": LinkCount(reference=8, time=0, none=2)}}, "losses/measurement/unlinked"),
        ({"notes": {"open_encounter": 6}}, "losses/Encounter/open_encounter"),
        ({"notes": {"encounter_refused": 11}}, "losses/Observation/encounter_refused"),
    ],
)
def test_what_is_more_than_an_exception_is_named(given, code):
    assert codes(account(**given)) == [code]
