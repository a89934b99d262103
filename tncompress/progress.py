"""Progress bars for what takes more than a few seconds."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

QUIET_SECONDS = 2.0  # a bar for less would only flicker


def progress_bar(
    items: Iterable[Item], label: str, total: int | None = None, shown: bool | None = None
) -> Iterator[Item]:
    """Pass items on, with a bar on standard error.

    Args:
        items: anything iterable.
        label: what is being done.
        total: number of items, if known.
        shown: True or False; None: only in a terminal, and once it has run for two seconds.
    """
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    if shown is False or (shown is None and not sys.stderr.isatty()):
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # In a terminal the bar goes away; a log keeps its last state.
    bar = Progress(*columns, console=Console(stderr=True), transient=sys.stderr.isatty())
    task = bar.add_task(label, total=total)
    started = time.monotonic()
    running = False
    try:
        for item in items:
            if not running and (shown or time.monotonic() - started > QUIET_SECONDS):
                bar.start()
                running = True
            yield item
            bar.advance(task)
    finally:
        if running:
            bar.stop()
