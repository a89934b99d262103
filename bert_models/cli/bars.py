"""Progress on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def wanted(quiet: bool) -> bool:
    """Bars are for terminals."""
    return not quiet and sys.stderr.isatty()


@contextmanager
def bar(label: str, total: int, shown: bool) -> Iterator[Callable[..., None]]:
    """A bar; gives a function that is told how much is done, and a word on it.

    >>> with bar("Training", 10, shown=False) as update:
    ...     update(5, "loss 1.0")
    """
    if not shown:
        yield lambda done, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    columns += (TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, note="")
        yield lambda done, note="": progress.update(task, completed=done, note=note)


def say(text: str, quiet: bool) -> None:
    """A line on standard error."""
    if not quiet:
        print(text, file=sys.stderr)  # while there is a bar, rich puts it above
