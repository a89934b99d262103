"""What a target of fuzzing is, and what it counts as a finding."""

import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

OWN_ERRORS = (ValueError, FileNotFoundError, NotADirectoryError)  # of the library
LONGEST = 4000  # characters of a sentence
MOST_GROWTH = 1 << 30  # bytes of memory
SECONDS = 5  # of CPU time

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
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        yield
    except OWN_ERRORS as error:
        text = str(error)
        if type(error) not in OWN_ERRORS or not text or "\n" in text or len(text) > LONGEST:
            raise AssertionError(f"no sentence: {text[:300]!r}") from error
    assert (taken := time.process_time() - start) < SECONDS, f"{taken:.1f} s of CPU time"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert grown < MOST_GROWTH, f"{grown:,} bytes more"


def written(name: str, data: bytes) -> Path:
    """A file with that content."""
    file = FOLDER / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    return file
