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
class Known:
    """The rows of which one outcome's label is known, and the patients whose rows they are."""

    outcome: str
    rows: int
    patients: int


@dataclass(frozen=True, slots=True)
class Attrition:
    """The steps in order, exact: it stays at the site.

    ``known`` is about the final rows, one entry an outcome. ``notes`` are counts that stand beside the steps, such as
    visits that end before they start.
    """

    steps: tuple[Step, ...]
    known: tuple[Known, ...] = ()
    notes: tuple[tuple[str, int], ...] = ()

    def public(self) -> list[dict[str, str | int | None]]:
        """Patients after each step, and with several outcomes those of whom each is known; small cells are hidden.

        Guarantees: no number shown is 1-10, and no difference between two numbers shown (the patients who left,
        or of whom one outcome is known and not another) is 1-10; what is hidden is None.
        """
        counts = [(step.name, step.patients) for step in self.steps]
        if len(self.known) > 1:
            counts += [(f"{one.outcome} is known", one.patients) for one in self.known]
        shown: list[int] = []
        table: list[dict[str, str | int | None]] = []
        for name, n in counts:
            is_safe = _is_safe(n) and all(_is_safe(abs(other - n)) for other in shown)
            table.append({"step": name, "patients": n if is_safe else None})
            shown += [n] if is_safe else []
        return table


def _is_safe(n: int) -> bool:
    return n == 0 or n >= MIN_CELL
