"""The names that somebody who wrote another one may have meant."""

import difflib
from collections.abc import Iterable

MOST_LETTERS = 60  # of a name that is compared; that takes time by the square of them


def nearest(name: str, known: Iterable[str], count: int = 2, cutoff: float = 0.6) -> list[str]:
    """So many known names at most, the nearest first.

    >>> nearest("lowrank", ["cp", "low_rank"])
    ['low_rank']
    """
    return difflib.get_close_matches(str(name)[:MOST_LETTERS], list(known), n=count, cutoff=cutoff)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest names, after a space; nothing if none is near.

    >>> did_you_mean("lowrank", ["low_rank", "cp"]), did_you_mean("svd", ["low_rank", "cp"])
    (' Did you mean low_rank?', '')
    """
    near = nearest(str(name).lower(), known)
    return f" Did you mean {' or '.join(near)}?" if near else ""
