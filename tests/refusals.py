"""What a refusal must be: the library's own error, one sentence, in little time and memory."""

import re
import resource
import time
from contextlib import contextmanager

from hypothesis import strategies as st

OWN = (ValueError, FileNotFoundError)
MEGABYTE = 1 << 20

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
keys = st.text(max_size=6)
jsons = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
)


@contextmanager
def within(seconds: float = 5, megabytes: int = 500):
    """The block takes no more CPU time, and memory does not grow by more at its peak."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - start < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < megabytes << 10


def refused(act, words: str = "") -> None:
    with within():
        error = error_of(act)
    assert error is not None
    assert re.search(words, str(error))


def error_of(act) -> Exception | None:
    """The error of an act, which must be one sentence; None if there is none."""
    found = None
    try:
        act()
    except OWN as error:
        found = error
    if found is not None:
        assert type(found) in OWN
        assert 0 < len(str(found)) < 2500
        assert "\n" not in str(found)
    return found
