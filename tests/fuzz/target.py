"""What a target of fuzzing is, and what it counts as a finding."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from refusals import OWN, check_sentence, within

MOST_GROWTH = 1024  # MB of memory

_PLACE = tempfile.TemporaryDirectory(prefix="fuzz-")  # goes away with the process
FOLDER = Path(_PLACE.name)


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Args:
        run: takes bytes; raises for a finding.
        seeds: makes inputs to begin with.
        mutator: changes an input and keeps its outer form; None: libFuzzer's own changes.
    """

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    mutator: Callable | None = None


@contextmanager
def only_own_errors() -> Iterator[None]:
    """Raises an AssertionError for an error that is no sentence, or for time or memory without measure."""
    with within(megabytes=MOST_GROWTH):
        try:
            yield
        except OWN as error:
            check_sentence(error)


def written(name: str, data: bytes) -> Path:
    """A file with that content."""
    file = FOLDER / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    return file
