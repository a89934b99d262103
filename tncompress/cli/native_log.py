"""What TensorFlow's C++ part logs on standard error, kept away from what users are told."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# No variable mutes the lines that are logged before its log is set up.
NOISE = rb"WARNING: All log messages before absl|[IWE]\d{4} \d\d:\d\d:\d\d|20\d\d-\d\d-\d\d .{9,20}: [IWE] "
# A process of its own, so that the last words of one that is killed or aborts get through.
FILTER = f"""
import re, sys
for line in sys.stdin.buffer:
    if not re.match({NOISE!r}, line):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
"""
PATIENCE = 2  # seconds for its end; processes that were started meanwhile may hold it back


@contextmanager
def without_native_log() -> Iterator[None]:
    """Let through, line by line, what is written to file descriptor 2 and is no greeting.

    Python's own `sys.stderr` goes on to the terminal. Where that is no longer the process's (in tests) nothing is done.
    """
    if sys.stderr is not sys.__stderr__ or sys.stderr is None:
        yield
        return
    ours, saved = sys.stderr, os.dup(2)
    ours.flush()
    # Of a session of its own, so that Ctrl-C does not end it first.
    program = [sys.executable, "-I", "-S", "-c", FILTER]
    reader = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=saved, start_new_session=True)
    with open(saved, "w", buffering=1, encoding=ours.encoding, errors="replace") as own:
        os.dup2(reader.stdin.fileno(), 2)  # type: ignore[union-attr]
        reader.stdin.close()  # type: ignore[union-attr]
        sys.stderr = own
        try:
            yield
        finally:
            own.flush()
            sys.stderr = ours
            os.dup2(saved, 2)
            with suppress(subprocess.TimeoutExpired):
                reader.wait(PATIENCE)
