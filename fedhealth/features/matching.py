"""Codes of a study as SQL conditions: the source code as it came, or the concept to which a map took it.

Values of a study are written into SQL as quoted texts, never as they are.
"""

import math
from collections.abc import Iterable

from fedhealth.features.value_sets import ICD_10, ICD_10_PCS, NOT_ESTABLISHED, sql_list
from fedhealth.vocabulary.maps import Field, shipped_codes

_OMOP = "omop|"


def sql_text(value: str) -> str:
    """A text as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def has_code(codes: Iterable[str], *, text: str, concept: str, field: Field) -> str:
    """SQL: whether a record has one of the codes.

    Args:
      codes: ``system|code``, with a trailing ``*`` a prefix, or ``omop|id``.
      text: SQL of the record's source code, ``system|code``.
      concept: SQL of the concept that the site's map gave it.
      field: whose map took the source code there.

    Returns:
      A condition that is never NULL.
    """
    conditions, concepts = list[str](), set[int]()
    for code in codes:
        if code.startswith(_OMOP):
            concepts.add(int(code.removeprefix(_OMOP)))
            continue
        concepts |= mapped_concepts(code, field=field)
        is_same = f"{text} = {sql_text(code)}"
        conditions.append(
            f"starts_with({text}, {sql_text(code.removesuffix('*'))})" if code.endswith("*") else is_same
        )
    if concepts:
        conditions.append(f"{concept} IN {sql_list(sorted(concepts))}")
    return f"coalesce({' OR '.join(conditions)}, false)"


def mapped_concepts(code: str, *, field: Field) -> set[int]:
    """The concepts to which the shipped map of the field takes a ``system|code``, or all that start with a prefix."""
    system, _, value = code.partition("|")
    shipped = shipped_codes(field)
    if not value.endswith("*"):
        return {shipped[system, value]} if (system, value) in shipped else set()
    prefix = value.removesuffix("*")
    return {concept for (of, known), concept in shipped.items() if of == system and known.startswith(prefix)}


def has_value(values: Iterable[str], *, text: str, number: str, concept: str) -> str:
    """SQL: whether a record's value is one of the values, whatever their case.

    A value stands for a whole text, for the code of a ``system|code``, for a number, or as ``omop|id`` for a concept.
    """
    listed = [value.casefold() for value in values]
    concepts = [int(value.removeprefix(_OMOP)) for value in listed if _is_concept(value)]
    texts = f"({', '.join(sql_text(value) for value in listed)})"
    conditions = [f"lower({text}) IN {texts}", f"lower(split_part({text}, '|', -1)) IN {texts}"]
    if numbers := [repr(float(value)) for value in listed if _is_number(value)]:
        conditions.append(f"{number} IN ({', '.join(numbers)})")
    if concepts:
        conditions.append(f"{concept} IN {sql_list(concepts)}")
    return " OR ".join(f"coalesce({condition}, false)" for condition in conditions)


def icd_code(source: str) -> str:
    """SQL: the code of an ICD ``system|code``, in capitals and without the point."""
    return f"replace(upper(split_part({source}, '|', -1)), '.', '')"


def is_icd_10(source: str) -> str:
    """SQL: whether a ``system|code`` is of ICD-10; a code without a system passes."""
    return _of_system(source, ICD_10)


def is_icd_10_pcs(source: str) -> str:
    """SQL: whether a ``system|code`` is of ICD-10-PCS, by its system or, without one, by its seven characters."""
    form = f"regexp_full_match({icd_code(source)}, '[0-9A-HJ-NP-Z]{{7}}')"
    return f"({_of_system(source, ICD_10_PCS)} AND {form})"


def is_established(status: str) -> str:
    """SQL: whether a condition is neither refuted nor preliminary; most databases state no more."""
    return f"coalesce({status} NOT IN {sql_list(NOT_ESTABLISHED)}, true)"


def starts_with_any(code: str, prefixes: Iterable[str]) -> str:
    """SQL: whether a code starts with one of the prefixes; false where there are none."""
    return " OR ".join(f"starts_with({code}, {sql_text(prefix)})" for prefix in prefixes) or "false"


def _of_system(source: str, pattern: str) -> str:
    system = f"regexp_matches(split_part({source}, '|', 1), '{pattern}', 'i')"
    return f"CASE WHEN contains({source}, '|') THEN {system} ELSE {source} IS NOT NULL END"


def _is_number(value: str) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _is_concept(value: str) -> bool:
    return value.startswith(_OMOP) and value.removeprefix(_OMOP).isdigit()
