"""How a process leaves others that it trains with, if it has failed. Needs neither Keras nor JAX."""

import atexit
import os
import sys


class LostProcess(RuntimeError):  # noqa: N818 - it is not this process that failed
    """Another process ended while this one was waiting for it."""


def leave_at_once_after_errors() -> None:
    """After an uncaught error, end without a word to the other processes: so they notice at once.

    JAX would wait in its exit for processes that wait for this one. Of a `LostProcess` just its sentence is shown.
    """
    shown = sys.excepthook

    def note(kind, error, trace):
        if issubclass(kind, LostProcess):
            print(error, file=sys.stderr)
        else:
            shown(kind, error, trace)
        atexit.register(leave, 1)  # the last that is registered runs first

    sys.excepthook = note


def leave(code: int) -> None:
    """End the process here and now; what was printed is shown."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
