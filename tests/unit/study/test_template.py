"""The study that `fedhealth study init` writes: it loads, and no key of the language is missing from it."""

import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from fedhealth.errors import ConfigError
from fedhealth.study import Study, load_study
from fedhealth.study.template import study_template


def test_what_is_written_out_is_a_study(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(study_template("my-first-study"))
    study = load_study(path)
    assert study.name == "my-first-study"
    assert study.outcome_name == "readmission"


def keys_of(model: type[BaseModel]) -> set[str]:
    """Every key of a model and of all models in it."""
    found, waiting = set[str](), [model]
    while waiting:
        each = waiting.pop()
        for name, field in each.model_fields.items():
            found.add(name)
            waiting.extend(models_in(field.annotation))
    return found


def models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in typing.get_args(annotation) for model in models_in(inner)]


def test_every_key_of_the_language_stands_in_it() -> None:
    text = study_template("x")
    assert {key for key in keys_of(Study) if f"{key}:" not in text} == set()


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "a--b", "x" * 65, "a/b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no name of a study"):
        study_template(name)
