"""Changes to inputs that leave their outer form whole, so that a fuzzer gets past the first check."""

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Mutate = Callable[[bytes, int], bytes]  # of libFuzzer, for bytes without a form

NUMBERS: list[Any] = [None, True, False, 0, -1, 1, 2, 3, 8, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf")]
TEXTS: list[Any] = ["", "a", "\ud800", "..", "/etc/passwd", "\x00", "[UNK]", "low_rank", "bands", "a" * 300]
CODE = [
    {"class_name": "__lambda__", "config": {"value": "x"}},
    {"module": "os", "class_name": "system", "config": {}},
]
ODD = [*NUMBERS, *TEXTS, *CODE, [], {}, [[]], [None], {"a": 1}]


def json_text(data: bytes, size: int, seed: int, mutate: Mutate) -> bytes:
    """A node of a JSON text becomes another one, goes, or is doubled; bytes change where it is none."""
    draw = random.Random(seed)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate(data, size)
    if draw.random() < 0.1:
        return mutate(data, size)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        value = _changed(value, draw)
    try:
        return json.dumps(value).encode()[:size]
    except (ValueError, RecursionError):
        return data


def _changed(value: Any, draw: random.Random) -> Any:
    places = list(_places(value))
    if not places:
        return draw.choice(ODD)
    owner, key = draw.choice(places)
    kind = draw.randrange(6)
    if kind == 0:
        del owner[key]
    elif kind == 1:
        other, name = draw.choice(places)
        owner[key] = json.loads(json.dumps(other[name]))
    elif kind == 2 and isinstance(owner[key], str):
        owner[key] = _other_text(owner[key], draw)
    elif kind == 2 and isinstance(owner[key], int | float):
        owner[key] = owner[key] * draw.choice((-1, 0.5, 2, 1000)) + draw.choice((-1, 0, 1))
    elif kind == 3 and isinstance(owner, dict):
        owner[draw.choice(("x", "", key + "s"))] = owner.pop(key)
    else:
        owner[key] = json.loads(json.dumps(draw.choice(ODD)))
    return value


def _places(value: Any, depth: int = 0):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in list(items):
        yield value, key
        if depth < 50:
            yield from _places(one, depth + 1)


def _other_text(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice((" ", ",", "->", "a", "_", "\n", "##", text)) + text[at + draw.randrange(3) :]


def archive(data: bytes, size: int, seed: int, mutate: Mutate) -> bytes:
    """A part of a zip changes, and its checksum with it; the archive itself changes now and then."""
    draw = random.Random(seed)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            parts = {name: old.read(name) for name in old.namelist()}
    except Exception:  # whatever is wrong with it
        return mutate(data, size)
    if not parts or draw.random() < 0.1:
        return mutate(data, size)
    name = draw.choice([*parts, "config.json", "config.json"])
    part = parts.get(name, b"{}")
    changed = json_text(part, size, seed, mutate) if name.endswith("json") else _some_bytes(part, draw)
    if draw.random() < 0.05:
        parts[draw.choice(("../x", "/x", "assets/x", "model.weights.npz", name))] = parts.pop(name, b"")
    else:
        parts[name] = changed
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as new:
        for name, content in parts.items():
            new.writestr(name, content)
    return made.getvalue()[:size]


def _some_bytes(data: bytes, draw: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(draw.choice((1, 2, 8))):
        if made:
            made[draw.randrange(len(made))] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
    return bytes(made[: draw.randrange(len(made) + 1)]) if draw.random() < 0.1 else bytes(made)


def tensors(data: bytes, size: int, seed: int, mutate: Mutate) -> bytes:
    """The header of a safetensors file changes, and its length with it."""
    if len(data) < 8:
        return mutate(data, size)
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8 or random.Random(seed).random() < 0.2:
        return mutate(data, size)
    header = json_text(data[8 : 8 + length], size, seed, mutate)
    return (struct.pack("<Q", len(header)) + header + data[8 + length :])[:size]
