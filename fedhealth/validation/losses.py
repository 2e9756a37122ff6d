"""What a harmonisation lost, judged from its account: a loss that is no exception any more is a finding."""

from collections.abc import Iterator
from dataclasses import dataclass

from fedhealth.cdm.accounting import Accounting

QUARANTINED = 0.01
"""Share of a type's resources that may be quarantined for one reason."""
DUPLICATE = 0.01
"""Share of a type's resources that may be another version of one that is loaded."""
VALUES = 0.02
"""Share of the numbers of mapped measurements that may lose their value for one reason."""
INFERRED = 0.2
"""Share of those numbers whose unit may have been inferred."""
UNLINKED = 0.1
"""Share of a table's rows that may have no visit."""
NOTED = {
    "open_encounter": ("Encounter", 0.05),
    "death_disagrees": ("Patient", 0.01),
    "death_without_date": ("Patient", 0.05),
    "encounter_refused": ("Observation", 0.01),
}
"""By note: the type of resource that it is a share of, and the largest share."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One loss beyond its limit: the type or table, and the reason."""

    of: str
    reason: str

    @property
    def code(self) -> str:
        """The finding as one code ``losses/TYPE/REASON``."""
        return f"losses/{self.of}/{self.reason}"


def find_losses(account: Accounting) -> tuple[Loss, ...]:
    """The losses of a harmonisation that are more than exceptions, in a fixed order; no count is told."""
    return (*_resources(account), *_values(account), *_links(account), *_notes(account))


def _resources(account: Accounting) -> Iterator[Loss]:
    for name, count in sorted(account.resources.items()):
        for reason, n in sorted(count.quarantined.items()):
            if n > QUARANTINED * count.read:
                yield Loss(name, reason)
        if count.excluded.get("duplicate", 0) > DUPLICATE * count.read:
            yield Loss(name, "duplicate")


def _values(account: Accounting) -> Iterator[Loss]:
    for reason, n in sorted(account.values.quarantined.items()):
        if n > VALUES * account.values.read:
            yield Loss("values", reason)
    if account.values.inferred > INFERRED * account.values.read:
        yield Loss("values", "inferred")


def _links(account: Accounting) -> Iterator[Loss]:
    for table, count in sorted(account.links.items()):
        if count.none > UNLINKED * (count.reference + count.time + count.none):
            yield Loss(table, "unlinked")


def _notes(account: Accounting) -> Iterator[Loss]:
    for note, (name, share) in NOTED.items():
        loaded = account.resources[name].loaded if name in account.resources else 0
        if account.notes.get(note, 0) > share * loaded:
            yield Loss(name, note)
