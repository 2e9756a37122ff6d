"""What a study lets leave a site outside epsilon follows from the study: a line for what it does, none for what it does not."""

import pytest
from simulator.network import make_study

from fedhealth.privacy.uncovered import not_covered

LOCAL = {"mode": "local", "epsilon": 8.0}
TRAINING = {"rounds": 2, "local": {"epochs": 1}, "batch_size": 16}
CODES = {"categories": [{"name": "smoking", "codes": ["http://loinc.org|72166-2"]}]}


def told(*, shares_figures=False, **sections):
    return " / ".join(not_covered(make_study(**sections), shares_figures=shares_figures))


@pytest.mark.parametrize(
    ("line", "has", "has_not"),
    [
        ("the sum of the updates in every round, and so the model: no noise", {}, {"privacy": LOCAL}),
        (
            "what the rule makes of the updates in every round, and so the model: no noise",
            {"aggregation": {"mode": "plain", "robust": "median"}},
            {"aggregation": {"mode": "plain"}},
        ),
        (
            "sums by which the model grows in every round, and so the model: no noise",
            {"model": {"kind": "gbm"}, "training": {"rounds": 2}},
            {},
        ),
        (
            "share of 0.25: it remembers that in its own folder and adds it to later ones (error feedback)",
            {"aggregation": {"ring_bits": 8, "sent_share": 0.25}},
            {"aggregation": {"ring_bits": 8}},
        ),
        ("codes of categories", {"features": CODES}, {}),
        ("people per bin", {"evaluation": {"compare_sites": True}}, {}),
        ("unlike the others", {"evaluation": {"compare_sites": True}}, {}),
        ("by subgroup", {}, {"evaluation": {"subgroups": []}}),
        ("figures of a site whose policy", {"shares_figures": True}, {}),
        ("tune for themselves", {"training": TRAINING | {"fine_tune": {"epochs": 1}}}, {}),
        ("declared sizes", {"privacy": LOCAL}, {}),
        (
            "the initial model base/3: its own epsilon",
            {"training": TRAINING | {"initial": {"model": "base/3", "digest": "ab" * 32}}},
            {},
        ),
        ("in the clear for coordinator and sites, its size", {"aggregation": {"mode": "plain"}}, {}),
        ("nothing is noised", {"aggregation": {"robust": "plausibility"}}, {}),
        (
            "so epsilon covers it, but only its group hides",
            {"aggregation": {"robust": "groups"}, "privacy": LOCAL},
            {"aggregation": {"robust": "groups"}},
        ),
    ],
)
def test_a_line_is_there_if_and_only_if_the_study_does_it(line, has, has_not):
    assert line in told(**has)
    assert line not in told(**has_not)


def test_what_every_study_tells_is_always_there():
    for words in (
        "moments",
        "class counts",
        "evaluation counts",
        "abstain",
        "quality checks",
        "consents",
        "attrition",
    ):
        assert words in told()
        assert words in told(privacy=LOCAL)
