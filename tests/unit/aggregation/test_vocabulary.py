"""The federated vocabulary against counting in the open."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedhealth.aggregation import vocabulary as v
from fedhealth.study.spec import Study


def study_of(*categories):
    listed = [{"name": name, "codes": [f"urn:x|{name}"]} for name in categories]
    document = {
        "schema_version": 1,
        "name": "tiny",
        "outcomes": {"readmission": {"kind": "readmission"}},
        "features": {"categories": listed},
    }
    return Study.model_validate_json(json.dumps(document))


STUDY = study_of("pain")


def site(people_of, *, first_person, missing=0, rows_each=1):
    """A site's levels: so many people of each code, so many without any."""
    names = tuple(sorted(people_of))
    numbers = [place for place, name in enumerate(names) for _ in range(people_of[name])] + [-1] * missing
    levels = np.repeat(np.array(numbers, dtype=np.int32), rows_each)[:, None]
    person = first_person + np.repeat(np.arange(len(numbers), dtype=np.int64), rows_each)
    return levels, (names,), person


def decode(sites, study=STUDY, *, min_sites=1):
    total = sum(v.encode_vocabulary(*each, study) for each in sites)
    return v.decode_vocabulary(total, study, min_sites=min_sites)


def test_codes_of_enough_people_in_all_are_told_with_their_rows():
    first = site({"urn:x|a": 30, "urn:x|b": 6, "urn:y|rare": 10}, first_person=0, missing=20)
    second = site({"urn:x|b": 5, "urn:z|only-here": 40}, first_person=1000, rows_each=3)
    vocabulary, counts = decode([first, second])
    assert vocabulary == {"pain": ("urn:x|a", "urn:x|b", "urn:z|only-here")}
    assert counts.rows == 66 + 45 * 3
    assert counts.levels == {"pain": (30, 6 + 15, 120)}


@pytest.mark.parametrize(("people_at", "is_told"), [((11,), False), ((6, 5), False), ((9, 1, 1), True)])
def test_a_code_is_told_that_people_at_three_sites_have_however_many_at_each(people_at, is_told):
    sites = [site({"urn:x|a": people}, first_person=1000 * at) for at, people in enumerate(people_at)]
    total = sum(v.encode_vocabulary(*each, STUDY) for each in sites)
    vocabulary, counts = v.decode_vocabulary(total, STUDY)
    assert vocabulary == {"pain": ("urn:x|a",) if is_told else ()}
    assert counts.rows == 11


codes = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.dictionaries(codes, st.integers(1, 25), max_size=14), min_size=1, max_size=5),
    st.integers(0, 15),
    st.integers(1, 5),
)
def test_the_union_of_the_sites_codes_is_decoded_exactly(sites, missing, min_sites):
    told = [{v.told_as(code): n for code, n in each.items()} for each in sites]
    vectors = [site(each, first_person=10_000 * at, missing=missing) for at, each in enumerate(told)]
    vocabulary, counts = decode(vectors, min_sites=min_sites)
    people = {code: sum(each.get(code, 0) for each in told) for code in set().union(*told)}
    known = {code for code in people if sum(code in each for each in told) >= min_sites}
    assert vocabulary["pain"] == tuple(sorted(code for code in known if people[code] >= 11))
    assert counts.rows == sum(people.values()) + missing * len(sites)
    for code, rows in zip(vocabulary["pain"], counts.levels["pain"], strict=True):
        assert rows in (None, people[code])


groups = st.dictionaries(st.frozensets(st.integers(-1, 3), min_size=1), st.integers(1, 16), max_size=5)


@settings(max_examples=300, deadline=None)
@given(groups)
def test_nothing_that_is_told_gives_fewer_than_eleven_people_away(groups):
    """Groups of people who have the same codes (-1 is none), a row for each; told numbers against all differences."""
    persons = [own for own, people in groups.items() for _ in range(people)]
    rows = [(person, code) for person, own in enumerate(persons) for code in sorted(own)]
    names = tuple(f"urn:x|{place}" for place in range(4))
    person, levels = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    vocabulary, counts = decode([(levels[:, None].astype(np.int32), (names,), person)])
    having = {name: {p for p, c in rows if c == place} for place, name in enumerate(names)}
    assert vocabulary["pain"] == tuple(name for name in names if len(having[name]) >= 11)
    shown = dict(zip(vocabulary["pain"], counts.levels["pain"], strict=True))
    shown = {name: n for name, n in shown.items() if n is not None}
    for size in range(1, len(shown) + 1):
        for chosen in itertools.combinations(shown, size):
            places = {names.index(name) for name in chosen}
            rest = {p for p, c in rows if c not in places}
            assert len(rest) >= 11 or (not rest and size == len(shown) > 1)


def colliding():
    """Two codes in the same three cells."""
    seen = {}
    for code in (f"urn:x|{number}" for number in range(100_000)):
        cells = frozenset(v._places("pain", code))
        if cells in seen:
            return seen[cells], code
        seen[cells] = code
    raise AssertionError("no two codes share their cells")


def test_codes_that_share_all_their_cells_are_dropped_never_mixed_up():
    one, other = colliding()
    vocabulary, counts = decode([site({one: 20, other: 20, "urn:x|apart": 30}, first_person=0)])
    assert vocabulary["pain"] == ("urn:x|apart",)
    assert counts.rows == 70
    assert decode([site({one: 20}, first_person=0)])[0]["pain"] == (one,)


def test_the_middle_of_two_codes_is_not_taken_for_a_code():
    cell = sum(v._contribution("pain", code, v._Held(20, 20, 1)) for code in ("urn:x|1", "urn:x|3"))
    chunks = [int(each) // 40 for each in cell[3:27]]
    assert b"".join(each.to_bytes(4, "big") for each in chunks).rstrip(b"\0") == b"urn:x|2"
    assert v._single(cell, "pain") is None
    assert v._single(v._contribution("pain", "urn:x|2", v._Held(40, 40, 2)), "pain") == "urn:x|2"


def test_codes_that_share_some_cells_are_told_apart():
    """256 cells of which each code has three: with 60 codes nearly every cell has several."""
    people = {f"http://example.org/codes|{number:04d}": 11 + number % 7 for number in range(60)}
    places = [place for code in people for place in v._places("pain", code)]
    assert len(set(places)) < len(places) * 0.8
    vocabulary, counts = decode([site(people, first_person=0, missing=30)])
    assert vocabulary["pain"] == tuple(sorted(people))
    assert counts.levels["pain"] == tuple(people[code] for code in sorted(people))


def test_categories_do_not_mix():
    study = study_of("pain", "ecg")
    levels = np.array([[0, 1]] * 15 + [[0, 0]] * 12 + [[-1, -1]] * 11, dtype=np.int32)
    person = np.arange(38, dtype=np.int64)
    vocabulary, counts = decode([(levels, (("true",), ("false", "true")), person)], study)
    assert vocabulary == {"pain": ("true",), "ecg": ("false", "true")}
    assert counts.levels == {"pain": (27,), "ecg": (12, 15)}


def test_a_code_too_long_is_told_as_other_and_people_are_counted_once():
    long = ["urn:x|" + "é" * 46, "urn:x|" + "y" * 91, "urn:x|with\0nul"]
    assert [v.told_as(code) for code in long] == ["other"] * 3
    assert v.told_as("urn:x|" + "y" * 90) == "urn:x|" + "y" * 90
    levels = np.array([[0], [1], [2]] * 10 + [[3]] * 20, dtype=np.int32)
    person = np.concatenate([np.repeat(np.arange(10), 3), np.arange(100, 120)]).astype(np.int64)
    names = (*long, "urn:x|short")
    assert decode([(levels, (names,), person)])[0] == {"pain": ("urn:x|short",)}


def test_the_ring_holds_forty_sites_with_the_most_people():
    """The largest entry that a site may send, forty times, is below 2^63."""
    lanes = v._lanes("pain", "\U0010ffff" * 24)
    assert max(lanes) < 2**32
    assert 40 * v.MAX_PAIRS * (2**32 - 1) < 2**63
    assert v.MAX_PAIRS >= 33 * 10**6


def test_more_people_than_the_ring_holds_are_refused(monkeypatch):
    monkeypatch.setattr(v, "MAX_PAIRS", 39)
    with pytest.raises(ValueError, match="too many"):
        v.encode_vocabulary(*site({"a": 40}, first_person=0), STUDY)


@given(st.lists(st.tuples(st.integers(-2, 7936), st.integers(-(2**62), 2**62)), max_size=30))
@settings(max_examples=30, deadline=None)
def test_a_falsified_sum_is_decoded_without_an_error_and_invents_no_code(changes):
    vector = v.encode_vocabulary(*site({"urn:x|a": 20, "urn:x|b": 30}, first_person=0), STUDY)
    for place, value in changes:
        vector[2 + place] = value
    vocabulary, _ = v.decode_vocabulary(vector, STUDY, min_sites=1)
    assert set(vocabulary["pain"]) <= {"urn:x|a", "urn:x|b"}


def test_no_rows_give_zeros_and_wrong_shapes_are_refused():
    empty = v.encode_vocabulary(np.zeros((0, 1), np.int32), ((),), np.zeros(0, np.int64), STUDY)
    assert empty.shape == (v.vocabulary_length(STUDY),)
    assert not empty.any()
    assert v.decode_vocabulary(empty, STUDY) == ({"pain": ()}, v.LevelCounts(0, {"pain": ()}))
    assert v.vocabulary_length(study_of()) == 2
    with pytest.raises(ValueError, match="do not fit"):
        v.encode_vocabulary(np.zeros((3, 2), np.int32), ((),), np.zeros(3, np.int64), STUDY)
    with pytest.raises(ValueError, match="does not fit"):
        v.decode_vocabulary(empty[:-1], STUDY)
