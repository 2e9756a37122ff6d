"""Everything that FedHealth raises on purpose.

FedHealthError(problem, fix)
├── ConfigError          a setting, a study or a folder is wrong            exit 2
├── DataError            data is unusable; carries a code and counts only   exit 2
│   └── DivergedError         training at a site ended in no numbers        exit 2
├── PolicyError          a rule says no (gate, cohort, degenerate study)    exit 1
│   └── BudgetExceededError   the privacy budget says no                    exit 1
├── ProtocolError        a peer misbehaved: never retried                   exit 1
└── TransportError       the network or the store failed: may be retried    exit 1
    └── MissingObjectError    an object is not (yet) on the exchange

No message holds a patient value or the name of a hospital's file; a note on an error (``add_note``) may, is for the
site's own log and screen, and goes when the error leaves the site. Errors survive pickling.
"""

from typing import Self


class FedHealthError(Exception):
    """A problem in one line and one way to fix it.

    Args:
      problem: what is wrong, without any patient value.
      fix: one thing that the reader can do about it.
    """

    exit_code = 1

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}. Fix: {self.fix}"

    def for_outside(self) -> Self:
        """The same problem and fix without notes, cause and frames, fit to leave a site."""
        return type(self)(self.problem, self.fix)


class ConfigError(FedHealthError):
    """A setting, a study file or a folder is wrong."""

    exit_code = 2


class DataError(FedHealthError):
    """Data is unusable; the message holds codes and counts only."""

    exit_code = 2


class DivergedError(DataError):
    """Training at a site ended in weights that are no numbers."""


class PolicyError(FedHealthError):
    """A rule of the study or of a site says no."""


class BudgetExceededError(PolicyError):
    """The privacy budget does not allow this release."""


class ProtocolError(FedHealthError):
    """A peer misbehaved. Never retried."""


class TransportError(FedHealthError):
    """The network or the object store failed. May be retried."""


class MissingObjectError(TransportError):
    """An object is not (yet) on the exchange."""
