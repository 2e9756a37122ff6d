"""Whether a code can be one of its system, by its form and check digit alone: no terminology is needed for that."""

import re

SNOMED_CT = "http://snomed.info/sct"
LOINC = "http://loinc.org"
_LOINC = re.compile(r"(\d{1,8})-(\d)")
_LOINC_PART = re.compile(r"(?:LP|LA|LL|LG)\d{1,8}-\d")
_SCTID = re.compile(r"[1-9]\d{5,17}")
_EXPRESSION = re.compile(r"[|:+={},() ]")

# the dihedral group D5 and its permutation, Verhoeff 1969
_D5 = (
    *((0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 0, 6, 7, 8, 9, 5), (2, 3, 4, 0, 1, 7, 8, 9, 5, 6)),
    *((3, 4, 0, 1, 2, 8, 9, 5, 6, 7), (4, 0, 1, 2, 3, 9, 5, 6, 7, 8), (5, 9, 8, 7, 6, 0, 4, 3, 2, 1)),
    *((6, 5, 9, 8, 7, 1, 0, 4, 3, 2), (7, 6, 5, 9, 8, 2, 1, 0, 4, 3), (8, 7, 6, 5, 9, 3, 2, 1, 0, 4)),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_STEP = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _permutations() -> tuple[tuple[int, ...], ...]:
    rows = [tuple(range(10))]
    for _ in range(7):
        rows.append(tuple(_STEP[digit] for digit in rows[-1]))
    return tuple(rows)


_PERMUTED = _permutations()


def is_possible_code(system: str, code: str) -> bool:
    """False when the code cannot be one of its system; systems without a rule here have any code.

    SNOMED CT: an identifier of 6 to 18 digits that ends with a Verhoeff check digit, or an expression. LOINC: digits,
    a hyphen and a Luhn check digit; of parts, answers, lists and groups (LP, LA, LL, LG) the form alone counts.

    Source: SNOMED CT release file specification, SCTID; LOINC users' guide, mod 10 check digit.
    """
    if system == SNOMED_CT:
        return bool(_EXPRESSION.search(code)) or bool(_SCTID.fullmatch(code) and _verhoeff(code))
    if system == LOINC:
        if (match := _LOINC.fullmatch(code)) is not None:
            return _luhn(match[1]) == int(match[2])
        return _LOINC_PART.fullmatch(code) is not None
    return True


def _verhoeff(digits: str) -> bool:
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _D5[check][_PERMUTED[place % 8][int(digit)]]
    return check == 0


def _luhn(digits: str) -> int:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value // 10 + value % 10
    return -total % 10
