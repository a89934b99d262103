"""What a refusal must be: the library's own error, one sentence, in little time and memory.

Tests and targets of fuzzing share it.
"""

import re
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import strategies as st

OWN = (ValueError, FileNotFoundError, NotADirectoryError)  # of the library, as SECURITY.md promises
LONGEST = 4000  # characters of a sentence
MEGABYTE = 1 << 20

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
keys = st.text(max_size=6)
jsons = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)


@contextmanager
def within(seconds: float = 5, megabytes: int = 500) -> Iterator[None]:
    """The block takes no more CPU time, and memory does not grow by more at its peak."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert (taken := time.process_time() - start) < seconds, f"{taken:.1f} s of CPU time"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    assert grown < megabytes, f"{grown:,} MB more"


def refused(act, words: str = "") -> None:
    """The act is refused in a sentence with these words, a regular expression."""
    with within():
        error = error_of(act)
    assert error is not None
    assert re.search(words, str(error))


def error_of(act) -> Exception | None:
    """The error of an act, which must be one sentence; None if there is none."""
    try:
        act()
    except OWN as error:
        check_sentence(error)
        return error
    return None


def check_sentence(error: Exception) -> None:
    """Not a class below the library's own, as UnicodeDecodeError is: that is an error of somebody else's."""
    text = str(error)
    if type(error) not in OWN or not text or "\n" in text or len(text) >= LONGEST:
        raise AssertionError(f"no sentence: {type(error).__name__}: {text[:300]!r}") from error
