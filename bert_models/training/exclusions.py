"""Which variables an optimizer leaves out: regular expressions over their paths. Needs no Keras."""

import re
from collections.abc import Sequence

# Biases, and gamma and beta of LayerNorms, by how their paths end here and in Keras. No kernel, core, table of
# embeddings or mixing matrix of talking heads ends so.
NORMS_AND_BIASES = ("gamma$", "beta$", "bias$")


def checked_patterns(patterns: Sequence[str], argument: str) -> tuple[str, ...]:
    """The patterns as a tuple, all of them valid regular expressions.

    Args:
        patterns: list of regular expressions; empty: nothing is left out.
        argument: its name, for messages.

    Raises:
        TypeError: not a list of texts. A single text is refused: its letters would be patterns that match nearly all.
        ValueError: a text that is no regular expression.

    >>> checked_patterns("bias", "exclude_from_weight_decay")
    Traceback (most recent call last):
    TypeError: exclude_from_weight_decay must be a list of regular expressions, got 'bias'; write ['bias'].
    """
    if isinstance(patterns, str):
        raise TypeError(f"{argument} must be a list of regular expressions, got {patterns!r}; write [{patterns!r}].")
    if not isinstance(patterns, Sequence) or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"{argument} must be a list of regular expressions, got {patterns!r}.")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"{argument}: {pattern!r} is no regular expression ({error}); a plain piece of a path is one, "
                f"and so is {re.escape(pattern)!r}."
            ) from None
    return tuple(patterns)


def excluded(paths: Sequence[str], patterns: Sequence[str]) -> frozenset[int]:
    """Indices of the paths in which any of the patterns is found.

    >>> sorted(excluded(["block_0/norm/gamma", "block_0/kernel", "block_0/bias"], NORMS_AND_BIASES))
    [0, 2]
    """
    return frozenset(i for i, path in enumerate(paths) if any(re.search(pattern, path) for pattern in patterns))


def useless(paths: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns that are found in no path; those of `NORMS_AND_BIASES` may well be, and do not count.

    >>> useless(["norm/gamma", "dense/bias"], ["LayerNorm", "bias", "beta$"])
    ('LayerNorm',)
    """
    return tuple(p for p in patterns if p not in NORMS_AND_BIASES and not any(re.search(p, path) for path in paths))


def same_places(paths: Sequence[str], others: Sequence[str]) -> bool:
    """Whether these are paths of the same variables, but for a prefix such as the name of the model.

    >>> same_places(["sequential/wide/kernel", "norm/gamma"], ["wide/kernel", "norm/gamma"])
    True
    """
    if len(paths) != len(others):
        return False
    return all(f"/{a}".endswith(f"/{b}") or f"/{b}".endswith(f"/{a}") for a, b in zip(paths, others, strict=True))
