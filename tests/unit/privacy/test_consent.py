"""When a patient is in: nested provisions, deny over permit, newest over older, periods, and what cannot be judged."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fedhealth.privacy.consent import (
    Consent,
    ConsentRules,
    Provision,
    coarse,
    commitment,
    is_permitted,
    left_out,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
PAST, FUTURE = "2026-05-01T00:00:00+00:00", "2026-07-01T00:00:00+00:00"
IN, OUT = ConsentRules("opt-out"), ConsentRules("opt-in")
PERMIT, DENY = Provision(type="permit"), Provision(type="deny")


def consent(root, *, stated=NOW - timedelta(days=9), is_withdrawn=False, person=1):
    return Consent(person, stated, stated, is_withdrawn, root)


def tree(word, *inner, **fields):
    return Provision(type=word, provisions=inner, **fields)


@pytest.mark.parametrize(("rules", "is_in"), [(IN, True), (OUT, False)])
def test_of_whom_no_consent_speaks_the_default_decides(rules, is_in):
    assert is_permitted([], rules=rules, now=NOW) == is_in
    assert is_permitted([consent(Provision())], rules=rules, now=NOW) == is_in


@pytest.mark.parametrize("rules", [IN, OUT])
@pytest.mark.parametrize(
    ("root", "is_in"),
    [
        (PERMIT, True),
        (DENY, False),
        (tree("deny", PERMIT), True),
        (tree("permit", DENY), False),
        (tree("deny", PERMIT, DENY), False),  # deny wins
        (tree("deny", tree("permit", DENY)), False),
        (tree("permit", tree("deny", PERMIT)), True),
        (tree(None, PERMIT), True),
        (tree(None, PERMIT, tree(None, DENY)), False),
        (tree("permit", tree("deny", start=FUTURE)), True),
        (tree("permit", tree("deny", end=PAST)), True),
        (tree("permit", tree("deny", start=PAST, end=FUTURE)), False),
        (tree("deny", tree("permit", end=PAST)), False),
        (tree("deny", tree("permit", start=PAST, end=FUTURE)), True),
        (tree("permit", end=PAST), False),  # in only while it holds
        (tree("permit", start=FUTURE), False),
        (tree("permit", start=PAST, end=FUTURE), True),
        (tree(None, tree("permit", end=PAST)), False),
        (tree("permit", purposes=("HRESCH",)), True),
        (tree("permit", purposes=("TREAT", "CLINTRCH")), True),
        (tree("permit", tree("deny", purposes=("TREAT",))), True),
        (tree("permit", tree("deny", purposes=("HRESCH",))), False),
        (tree("permit", is_narrowed=True), False),  # perhaps not for us
        (tree("permit", tree("deny", is_narrowed=True)), False),  # perhaps against us
        (tree("deny", tree("permit", is_narrowed=True)), False),
        (tree("deny", tree("permit", codes=("s|c",))), False),
        (tree("permit", tree("deny", codes=("s|c",))), False),
        (tree("permit", tree("permit", DENY, is_narrowed=True)), False),
        (tree("deny", tree(None, PERMIT, is_narrowed=True)), False),
        (tree("deny", tree("deny", PERMIT, is_narrowed=True)), False),
        (tree("permit", tree("deny", purposes=("urn:local|FORSCHUNG",))), False),
        (tree("permit", purposes=("urn:local|FORSCHUNG",)), False),
        (tree("permit", purposes=("PurposeOfUse",)), False),
    ],
)
def test_a_tree_says_one_thing(root, is_in, rules):
    assert is_permitted([consent(root)], rules=rules, now=NOW) == is_in


@pytest.mark.parametrize("rules", [IN, OUT])
def test_what_is_about_another_purpose_says_nothing(rules):
    other = consent(tree("permit", purposes=("TREAT",)))
    denied = consent(tree("deny", purposes=("TREAT",)))
    expired_denial = consent(tree("deny", end=PAST))
    for given in (other, denied, expired_denial):
        assert is_permitted([given], rules=rules, now=NOW) == (rules.default == "opt-out")


@pytest.mark.parametrize(
    ("codes", "root", "is_in"),
    [
        ({"s|use"}, tree("deny", tree("permit", codes=("s|use", "s|x"))), True),
        ({"s|use"}, tree("deny", tree("permit", codes=("s|x",))), False),
        ({"s|use"}, tree("permit", tree("deny", codes=("s|x",))), True),
        ({"s|use"}, tree("permit", tree("deny", codes=("s|use",))), False),
    ],
)
def test_a_site_can_say_which_codes_are_about_this_use(codes, root, is_in):
    rules = ConsentRules("opt-in", frozenset(codes))
    assert is_permitted([consent(root)], rules=rules, now=NOW) == is_in


def test_the_newest_wins_and_on_one_day_the_denial():
    old, new = (consent(PERMIT, stated=NOW - timedelta(days=days)) for days in (9, 2))
    old_denial, new_denial = (consent(DENY, stated=NOW - timedelta(days=days)) for days in (9, 2))
    assert is_permitted([old_denial, new], rules=OUT, now=NOW)
    assert not is_permitted([old, new_denial], rules=IN, now=NOW)
    assert not is_permitted([new, new_denial], rules=IN, now=NOW)
    assert is_permitted([new, consent(Provision(), stated=NOW)], rules=OUT, now=NOW)  # the newest that speaks


def test_a_date_to_come_and_a_span_count_for_the_denial():
    later = NOW + timedelta(days=9000)
    assert not is_permitted([consent(PERMIT, stated=later), consent(DENY)], rules=IN, now=NOW)
    assert not is_permitted([consent(DENY, stated=later), consent(PERMIT)], rules=IN, now=NOW)
    year = Consent(1, NOW - timedelta(days=300), NOW - timedelta(days=1), False, PERMIT)
    assert not is_permitted([year, consent(DENY)], rules=IN, now=NOW)
    denied = Consent(1, NOW - timedelta(days=300), NOW - timedelta(days=1), False, DENY)
    assert not is_permitted([denied, consent(PERMIT)], rules=IN, now=NOW)


def test_without_a_date_a_denial_is_the_newest_and_a_permit_the_oldest():
    assert not is_permitted([consent(DENY, stated=None), consent(PERMIT)], rules=IN, now=NOW)
    assert not is_permitted([consent(PERMIT, stated=None), consent(DENY)], rules=IN, now=NOW)
    assert is_permitted([consent(PERMIT, stated=None)], rules=OUT, now=NOW)


@pytest.mark.parametrize("rules", [IN, OUT])
@pytest.mark.parametrize("root", [PERMIT, tree("deny", PERMIT), Provision()])
def test_a_permit_that_is_withdrawn_denies(root, rules):
    assert not is_permitted([consent(root, is_withdrawn=True)], rules=rules, now=NOW)


def test_a_denial_that_is_withdrawn_says_nothing():
    withdrawn = consent(tree("deny", DENY), is_withdrawn=True)
    assert is_permitted([withdrawn], rules=IN, now=NOW)
    assert is_permitted([withdrawn, consent(PERMIT)], rules=OUT, now=NOW)


def test_time_passes():
    limited = consent(tree("permit", start=PAST, end=FUTURE))
    ends = datetime.fromisoformat(FUTURE)
    assert is_permitted([limited], rules=IN, now=ends)
    assert not is_permitted([limited], rules=IN, now=ends + timedelta(microseconds=1))


def test_people_are_told_apart():
    people = np.array([1, 2, 3, 2], np.int64)
    given = [consent(DENY, person=2), consent(PERMIT, person=3), consent(DENY, person=9)]
    assert left_out(people, given, rules=IN, now=NOW).tolist() == [False, True, False, True]
    assert left_out(people, given, rules=OUT, now=NOW).tolist() == [True, True, False, True]


def test_a_commitment_hides_and_binds():
    people, secret = np.array([5, 3, 5], np.int64), bytes(range(32))
    told = commitment(people, site_secret=secret, run="r", number=1)
    assert told == commitment(np.array([3, 5], np.int64), site_secret=secret, run="r", number=1)
    others = {
        commitment(people[:2][:1], site_secret=secret, run="r", number=1),
        commitment(people, site_secret=secret, run="r", number=2),
        commitment(people, site_secret=secret, run="s", number=1),
        commitment(people, site_secret=bytes(32), run="r", number=1),
    }
    assert len(others | {told}) == 5
    assert len(told) == 64


@pytest.mark.parametrize(
    ("count", "told"), [(0, 0), (1, 0), (10, 0), (11, 11), (15, 11), (16, 16), (1000, 724)]
)
def test_counts_are_told_coarsely(count, told):
    assert coarse(count) == told
