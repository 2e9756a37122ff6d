"""How a cohort came about: what is left after every step, and the form of it that may be shown."""

from dataclasses import dataclass

from fedhealth.privacy.people import MIN_CELL


@dataclass(frozen=True, slots=True)
class Step:
    """What is left after one rule: stays, and the patients whose stays they are."""

    name: str
    stays: int
    patients: int


@dataclass(frozen=True, slots=True)
class Attrition:
    """The steps in order, exact: it stays at the site. ``positives`` are the final rows with label 1.

    ``notes`` are counts that stand beside the steps, such as visits that end before they start.
    """

    steps: tuple[Step, ...]
    positives: int
    notes: tuple[tuple[str, int], ...] = ()

    def public(self) -> list[dict[str, str | int | None]]:
        """Patients after each step, with small cells hidden.

        Guarantees: no number shown is 1-10, and no difference between two numbers shown next to one another
        (the patients who left) is 1-10; what is hidden is None.
        """
        shown: list[dict[str, str | int | None]] = []
        last: int | None = None
        for step in self.steps:
            n = step.patients
            is_safe = _is_safe(n) and (last is None or _is_safe(abs(last - n)))
            shown.append({"step": step.name, "patients": n if is_safe else None})
            last = n if is_safe else last
        return shown


def _is_safe(n: int) -> bool:
    return n == 0 or n >= MIN_CELL
