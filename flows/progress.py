"""Progress bars for long work, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


@contextmanager
def stages(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """One bar per stage; call with (stage, done, total)."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bars = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total)
            progress.update(bars[stage], completed=done, total=total)

        yield show


@contextmanager
def steps(console: Console, name: str, total: int) -> Iterator[Callable[[str], None]]:
    """One bar that advances with every call."""
    with stages(console) as show:
        done = 0

        def advance(step: str) -> None:
            nonlocal done
            done += 1
            show(name, done, total)

        show(name, 0, total)
        yield advance


@contextmanager
def spinner(console: Console, name: str) -> Iterator[None]:
    """A bar for one step of unknown length."""
    with stages(console) as show:
        show(name, 0, 1)
        yield
        show(name, 1, 1)
