"""Learning curves as files: one JSON object a line, with the number of the step. Needs no Keras."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tncompress.beside import beside
from tncompress.limits import parsed_json, shown

MOST = 1e300  # of a value; a float, which an integer of JSON may not be


def append(file: str | Path, row: Mapping[str, Any]) -> None:
    """Add a line; floats that JSON does not have become null.

    Args:
        row: has "step".
    """
    with open(file, "a", encoding="utf-8") as stream:
        stream.write(_line(row))


def _line(row: Mapping[str, Any]) -> str:
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(clean) + "\n"


def read(file: str | Path) -> list[dict[str, Any]]:
    """All lines; a last line that was not written to its end is left out.

    Raises:
        ValueError: another line is no JSON object of numbers, or null, with a step.

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
    lines = Path(file).read_bytes().split(b"\n")[:-1]  # what follows the last line's end was cut off
    return [_row(file, number, line) for number, line in enumerate(lines, start=1)]


def _row(file: str | Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = parsed_json(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or type(row.get("step")) is not int or not all(map(_is_value, row.values())):
        got = shown(line.decode("utf-8", "replace"))
        raise ValueError(f"{file}, line {number}: a JSON object with a step was expected, got {got}; remove it.")
    return row


def _is_value(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) < MOST)


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
    lines = [_line(row) for row in read(file) if row["step"] <= step]
    with beside(Path(file)) as place:
        place.write_text("".join(lines), encoding="utf-8")
