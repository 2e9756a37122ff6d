"""The conformance table names tests that exist, and every statement that the design wants answered."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs/reference/fhir-to-omop-conformance.md"
WANTED = {
    f"f2o-{number:03d}"
    for numbers in (
        (2, 10, 12, 13, 14),
        range(20, 25),
        (30, *range(31, 38), 39, 40),
        range(50, 54),
        range(60, 64),
        range(70, 74),
        range(80, 83),
        (93, *range(100, 104), 122),
    )
    for number in numbers
}
STATES = {"met", "partly", "departure", "extension", "unused"}
DEPARTURES = {"f2o-030", "f2o-093", "f2o-037"}


def table_rows():
    """(id, asks, state, node ids, what we do) of each row."""
    found = []
    for line in TABLE.read_text().splitlines():
        if line.startswith("| f2o-"):
            name, asks, state, tests, does = (
                cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))
            )
            found.append((name, asks, state, re.findall(r"`([^`]+)`", tests), does))
    return found


@cache
def functions_of(path):
    """The names of the test functions in a file, read without running it."""
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_statement_that_is_wanted_has_one_row():
    names = [name for name, *_ in table_rows()]
    assert len(names) == len(set(names))
    assert set(names) == WANTED


def test_every_row_says_its_state_and_what_we_do():
    for name, asks, state, _, does in table_rows():
        assert state in STATES, name
        assert asks, name
        assert does, name


def test_every_named_test_exists():
    named = [node for *_, nodes, _ in table_rows() for node in nodes]
    assert named
    missing = []
    for node in named:
        path, _, function = node.partition("::")
        if not (ROOT / path).is_file() or function not in functions_of(path):
            missing.append(node)
    assert missing == []


def test_what_is_claimed_has_a_test():
    bare = {name for name, _, state, nodes, _ in table_rows() if not nodes}
    claimed = {name for name, _, state, *_ in table_rows() if state in ("met", "partly", "extension")}
    assert bare & claimed == set()


def test_the_departures_and_the_extension_of_the_design_are_recorded():
    states = {name: state for name, _, state, *_ in table_rows()}
    assert {name for name in DEPARTURES if states[name] != "departure"} == set()
    assert states["f2o-013"] == "extension"
