"""What a file or a text may ask of this process before it is believed: sizes, depth, and how errors show it."""

import json
from pathlib import Path
from typing import Any

MOST_JSON = 64 << 20  # bytes of a JSON file; the largest that is known, a tokenizer of 250,000 tokens, has 17 MB
MOST_SHOWN = 200  # characters of a value in an error
MOST_TOLD = 600  # characters of an error of another library
MOST_BITS = 10_000  # of a number that is written down
FREE_BYTES = 64 << 20  # that a file may ask for, however small it is
BYTES_FOR_ONE = 128  # that it may ask for on top, for each of its own: more than any compression makes of weights


def room_of(size: int) -> int:
    """Bytes of memory that the content of a file of `size` bytes may ask for.

    >>> room_of(1_000_000) < 200e6
    True
    """
    return FREE_BYTES + BYTES_FOR_ONE * size


def shown(value: Any, most: int = MOST_SHOWN) -> str:
    """A value as errors show it, on one line and cut short.

    >>> shown("a" * 1000, most=8)
    "'aaaaaaa... (1,002 characters)"
    """
    if isinstance(value, int) and value.bit_length() > MOST_BITS:  # Python refuses to write it down
        return f"a number of {value.bit_length():,} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def parsed_json(text: str | bytes) -> Any:
    """What JSON text says.

    Raises:
        ValueError: it is not JSON in UTF-8, or nested so deeply that Python cannot follow.

    >>> parsed_json("[" * 100_000)
    Traceback (most recent call last):
    ValueError: this is not JSON (it is nested too deeply).
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("this is not JSON (it is nested too deeply).") from None
    except ValueError as error:  # also bytes that are not UTF-8, and numbers of thousands of digits
        raise ValueError(f"this is not JSON ({shown_error(error)}).") from None


def json_object(file: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is larger than `most` bytes, not JSON, or no object. The sentence does not name the file.
    """
    if (size := file.stat().st_size) > most:
        raise ValueError(f"this has {size:,} bytes, and at most {most:,} are read.")
    values = parsed_json(file.read_bytes())
    if not isinstance(values, dict):
        raise ValueError(f"this must be a JSON object, got {type(values).__name__}.")
    return values


def shown_error(error: BaseException) -> str:
    """What another library says, on one line and cut short, without a full stop."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= MOST_TOLD else f"{text[:MOST_TOLD]}..."
