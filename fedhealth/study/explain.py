"""From pydantic's report to one line: the key, what is wrong with it, one fix."""

import difflib
import typing
from collections.abc import Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fedhealth.study.built import built_values

Place = tuple[int | str, ...]


_FORMS = {
    r"^[^|\s]+\|\S[^|]*$": "system|code, such as http://loinc.org|2160-0 or omop|3016723",
    r"^[a-z0-9_]+$": "it with a-z, 0-9 and _",
    r"^[a-z0-9]+(-[a-z0-9]+)*$": "it with a-z, 0-9 and single -",
    r"^[a-z0-9-]+/[0-9]+$": "name/version of a registered model",
    r"^[0-9a-f]{64}$": "64 hexadecimal digits: the version's tag model_digest",
}
"""What the patterns of the language mean, for people."""


class Unfit(ValueError):
    """What a validator of the language raises where it knows the fix: which key to which value."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


def explain(error: ValidationError, root: type[BaseModel]) -> tuple[str, str]:
    """The first problem of a validation report as (problem, fix).

    Unknown keys come first, since a misspelt key often also makes a required one missing.

    Args:
      error: what pydantic raised; the data was a study or a policy, never a patient's.
      root: the model that was validated.

    Returns:
      Two short texts; the problem names the path of the key.
    """
    details = error.errors(include_url=False, include_context=True)
    details.sort(key=lambda one: one["type"] != "extra_forbidden")
    return _explain_one(details[0], root)


def _explain_one(one: ErrorDetails, root: type[BaseModel]) -> tuple[str, str]:
    path, models = walk(one["loc"], root)
    where, kind = path or "the file", one["type"]
    if kind == "extra_forbidden":
        return f"{where} is not a key that is known", _closest(path, models)
    if kind == "missing":
        return f"{where} is missing", f"add {where}"
    if kind in ("literal_error", "union_tag_invalid"):
        context = one.get("ctx", {})
        expected = built_values(path) or context.get("expected") or context.get("expected_tags")
        return f"{where} has a value that is not known", f"use {expected}"
    if kind == "union_tag_not_found":
        return f"{where} has no kind", f"add {where}.kind"
    if kind in ("float_type", "int_type") and isinstance(one["input"], str):
        return f"{where} must be a number, not text", "write it without quotes and with a point: 1.0e-5"
    if kind == "string_pattern_mismatch":
        pattern = one.get("ctx", {}).get("pattern", "")
        return f"{where} has not the form that it needs", f"write {_FORMS.get(pattern, 'it as the others')}"
    if kind in ("tuple_type", "list_type"):
        return f"{where} must be a list", f"write it in brackets: [{one['input']}]"
    if kind == "value_error":
        problem, raised = one["msg"].removeprefix("Value error, "), one["ctx"]["error"]
        fix = raised.fix if isinstance(raised, Unfit) else f"change {path or 'one of these keys'}"
        return f"{path}: {problem}" if path else problem, fix
    return f"{where}: {one['msg'][:1].lower()}{one['msg'][1:]}", f"change {where}"


def walk(place: Sequence[int | str], root: type[BaseModel]) -> tuple[str, list[type[BaseModel]]]:
    """Follow a pydantic location through the models.

    Returns:
      The path as written in the file (without the tags that pydantic adds for a choice among models), and the
      models that may stand where the last part was looked up.
    """
    models: list[type[BaseModel]] = [root]
    path, parts = "", list(place)
    for position, part in enumerate(parts):
        if isinstance(part, int):
            path += f"[{part}]"
            continue
        tagged = [model for model in models if _tag(model) == part]
        if tagged and len(models) > 1:
            models = tagged
            continue
        path += f".{part}" if path else part
        is_last = position == len(parts) - 1
        if is_last and not any(part in model.model_fields for model in models):
            break
        held = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        models = [found for annotation in held for found in _models_in(annotation)] or models
    return path, models


def _tag(model: type[BaseModel]) -> object:
    field = model.model_fields.get("kind")
    values = typing.get_args(field.annotation) if field is not None else ()
    return values[0] if len(values) == 1 else None


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in typing.get_args(annotation) for found in _models_in(inner)]


def _closest(path: str, models: Sequence[type[BaseModel]]) -> str:
    key = path.rpartition(".")[2]
    known = sorted({name for model in models for name in model.model_fields})
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return f"remove it, or use one of {', '.join(known)}" if known else "remove it"
