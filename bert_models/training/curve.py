"""Learning curves as files: one JSON object a line, with the number of the step. Needs no Keras."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def append(file: str | Path, row: Mapping[str, Any]) -> None:
    """Add a line; floats that JSON does not have become null.

    Args:
        row: has "step".
    """
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    with open(file, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(clean) + "\n")


def read(file: str | Path) -> list[dict[str, Any]]:
    """All lines; a last line that was not written to its end is left out.

    Raises:
        ValueError: another line is no JSON object with a step.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp(), "curve.jsonl")
    >>> append(place, {"step": 10, "loss": 2.5})
    >>> with place.open("a") as stream:
    ...     _ = stream.write('{"step": 20, "lo')
    >>> read(place)
    [{'step': 10, 'loss': 2.5}]
    """
    if not Path(file).is_file():
        return []
    lines = Path(file).read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last line's end was cut off
    return [_row(file, number, line) for number, line in enumerate(lines, start=1)]


def _row(file: str | Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        row["step"] + 0
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{file}, line {number}: a JSON object with a step was expected, got {line!r}.") from None
    return row


def trim(file: str | Path, step: int) -> None:
    """Keep the lines up to this step, since training goes on from there; written beside, then renamed.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp(), "curve.jsonl")
    >>> for step in (10, 20, 30):
    ...     append(place, {"step": step})
    >>> trim(place, 20)
    >>> [row["step"] for row in read(place)]
    [10, 20]
    """
    if not Path(file).is_file():
        return
    part = Path(f"{file}.part")
    part.unlink(missing_ok=True)
    part.touch()
    for row in read(file):
        if row["step"] <= step:
            append(part, row)
    os.replace(part, file)
