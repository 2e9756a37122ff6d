"""The page of checks is the one that the code makes, and every rule is of a known kind under a name of its own."""

from pathlib import Path

from fedhealth.validation.reference import all_rules, markdown
from fedhealth.vocabulary.domains import package_concepts
from fedhealth.vocabulary.maps import Field, shipped_codes

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "quality-checks.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_names_of_rules_are_their_own() -> None:
    rules = all_rules()
    assert len({(each.table, each.name) for each in rules}) == len(rules)


def test_every_row_of_a_shipped_map_has_a_target_of_its_domain() -> None:
    domains: dict[Field, str] = {
        "measurement": "Measurement",
        "class": "Visit",
        "disposition": "Visit",
        "admit_source": "Visit",
        "condition": "Condition",
    }
    known = package_concepts()
    wrong = [
        (field, source)
        for field, domain in domains.items()
        for source, target in shipped_codes(field).items()
        if known[target].domain != domain
    ]
    assert wrong == []
