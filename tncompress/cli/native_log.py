"""What TensorFlow's C++ part logs on standard error, kept away from what users are told."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# No variable mutes the lines that are logged before its log is set up.
NOISE = re.compile(rb"WARNING: All log messages before absl|[IWE]\d{4} \d\d:\d\d:\d\d|20\d\d-\d\d-\d\d .{9,20}: [IWE] ")


@contextmanager
def without_native_log() -> Iterator[None]:
    """Hold back what is written to file descriptor 2, and let through at the end what is no greeting.

    Python's own `sys.stderr` goes on to the terminal. Where that is no longer the process's (in tests) nothing is done.
    """
    if sys.stderr is not sys.__stderr__ or sys.stderr is None:
        yield
        return
    ours, saved = sys.stderr, os.dup(2)
    ours.flush()
    with (
        tempfile.TemporaryFile() as held,
        open(saved, "w", buffering=1, encoding=ours.encoding, errors="replace") as own,
    ):
        os.dup2(held.fileno(), 2)
        sys.stderr = own
        try:
            yield
        finally:
            own.flush()
            sys.stderr = ours
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, b"".join(line for line in held if not NOISE.match(line)))
