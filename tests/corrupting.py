"""Damaged copies of a file: bits turned over, cuts, sections that changed places."""

import random
from collections.abc import Iterator


def corrupted(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """So many damaged copies, always the same ones; none equals the original."""
    draw = random.Random(seed)
    while count:
        made = draw.choice((_flipped, _flipped, _cut, _swapped, _blanked))(data, draw)
        if made != data:
            count -= 1
            yield made


def _flipped(data: bytes, draw: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 8))):
        made[draw.randrange(len(made))] ^= 1 << draw.randrange(8)
    return bytes(made)


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def _swapped(data: bytes, draw: random.Random) -> bytes:
    size = draw.choice((1, 16, len(data) // 8 or 1))
    first, second = sorted(draw.sample(range(len(data) // size), 2)) if len(data) >= 2 * size else (0, 0)
    blocks = [data[k : k + size] for k in range(0, len(data), size)]
    blocks[first], blocks[second] = blocks[second], blocks[first]
    return b"".join(blocks)


def _blanked(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    stop = min(len(data), start + draw.choice((1, 16, 512)))
    return data[:start] + bytes(stop - start) + data[stop:]
