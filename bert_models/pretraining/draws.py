"""Random numbers that depend on what they are for, and on nothing else: not on workers, order or machine."""

import hashlib
import random

import numpy as np


def digest(*key) -> bytes:
    """16 bytes that look random, from numbers and texts.

    >>> digest(0, "masks", "0.3", 7).hex()[:8] == digest(0, "masks", "0.3", 7).hex()[:8]
    True
    """
    return hashlib.blake2b("/".join(map(str, key)).encode(), digest_size=16).digest()


def numbers(*key) -> random.Random:
    """A source of single numbers. Only its `random()` is used: Python keeps that one the same between versions."""
    return random.Random(int.from_bytes(digest(*key), "little"))


def uniform(shape: tuple[int, ...], *key) -> np.ndarray:
    """Array of numbers from 0 to below 1, float64.

    >>> uniform((2, 3), 0, "masks").shape
    (2, 3)
    """
    # numpy's newer Generators may change between versions, RandomState does not.
    return np.random.RandomState(np.frombuffer(digest(*key), "<u4")).random_sample(shape)


def below(source: random.Random, count: int) -> int:
    """An integer from 0 to `count` - 1."""
    return int(source.random() * count)
