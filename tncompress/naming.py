"""The names that somebody who wrote another one may have meant."""

import difflib
from collections.abc import Iterable

MOST_LETTERS = 60  # of a name that is compared; that takes time by the square of them


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest names, after a space; nothing if none is near.

    >>> did_you_mean("lowrank", ["low_rank", "cp"]), did_you_mean("svd", ["low_rank", "cp"])
    (' Did you mean low_rank?', '')
    """
    near = difflib.get_close_matches(str(name)[:MOST_LETTERS].lower(), list(known), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(near)}?" if near else ""
