"""What the command lines `tncompress` and `python -m bert_models` agree on: exit codes, and how failures are told."""

import dis
import errno
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FAILED, WRONG, BUG, INTERRUPTED = 1, 2, 3, 130  # exit codes besides 0
# What is raised for what was given; a full disk is an OSError of another class.
_GIVEN = (
    *(ValueError, TypeError, ImportError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError),
    PermissionError,
)
_WORK = (OSError, RuntimeError, MemoryError, FloatingPointError)
_PACKAGES = ("tncompress", "bert_models")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS)  # of an OSError without a class of its own


def exit_code(error: BaseException) -> int:
    """The exit code of a failure. Kinds of errors that libraries define are no bugs of this distribution.

    >>> exit_code(ValueError()), exit_code(FileNotFoundError()), exit_code(OSError(28, "full")), exit_code(KeyError())
    (2, 2, 1, 3)
    """
    if isinstance(error, _GIVEN) or (isinstance(error, OSError) and error.errno in _NO_PATH):
        return WRONG
    return FAILED if isinstance(error, _WORK) or type(error).__module__ != "builtins" else BUG


def plain(error: Any) -> str:
    r"""A message on one line.

    >>> plain(ValueError("no\n  corpus"))
    'no corpus'
    """
    return " ".join(str(error).split())


def finite(value: Any) -> Any:
    """A value as JSON can hold it, with None for floats that it does not have.

    >>> finite({"losses": (1.5, float("nan"))})
    {'losses': [1.5, None]}
    """
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sentence(error: BaseException, where: str) -> str:
    """A failure on one line.

    Args:
        error: what was raised.
        where: how to see where it comes from, said of what no `raise` of this distribution put into words.

    >>> sentence(KeyError("a"), "--debug shows where")
    "KeyError: 'a'. This is a bug: --debug shows where."
    """
    backend = os.environ.get("KERAS_BACKEND")
    if isinstance(error, ModuleNotFoundError) and backend and error.name == backend:
        return f"KERAS_BACKEND is {backend}, which is not installed: pip install {backend}, or unset it."
    kind, text = type(error).__name__, plain(error)
    if exit_code(error) == BUG:
        return f"{kind}: {text}. This is a bug: {where}."
    if full := _full(error):
        return f"{getattr(error, 'filename', None) or 'A file'} could not be written ({os.strerror(full)})."
    if not text or not isinstance(error, (*_GIVEN, *_WORK)):
        text = f"{kind}: {text}".removesuffix(": ")
    return text if _is_meant(error) else f"{text} ({kind}; {where})"


def _is_meant(error: BaseException) -> bool:
    """Whether it is of the operating system or comes from a `raise` of this distribution: in words for users."""
    trace = error.__traceback__
    if trace is None or isinstance(error, OSError | MemoryError):
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    package = trace.tb_frame.f_globals.get("__name__", "").partition(".")[0]
    operation = dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]]
    return package in _PACKAGES and operation == "RAISE_VARARGS"


@contextmanager
def told_if_full(where: Path, kept: str = "") -> Iterator[None]:
    """What a full disk says, with what could not be written and what is left.

    Raises:
        OSError: it is full.
    """
    try:
        yield
    except Exception as error:  # OSError, or what HDF5 and ZIP make of it
        full = next(filter(None, map(_full, (error, error.__cause__, error.__context__))), None)
        if full is None:
            raise
        raise OSError(f"{where} could not be written ({os.strerror(full)}). {kept}".rstrip()) from error


def _full(error: BaseException | None) -> int | None:
    """Its number, if it is an error of a full disk."""
    return error.errno if isinstance(error, OSError) and error.errno in _FULL else None
