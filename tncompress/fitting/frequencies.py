"""How often tokens are seen: counted on batches, and as chances that also know of tokens that were not seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tncompress.fitting.moments import Moments

# Where Wikipedia was counted a tenth of the tokens of STS-B were new, six times what Good and Turing say. Of shares
# from 0 to 0.4 this one chose the bands that lost least there, also by counts of STS-B (benchmarks/embedding.py).
OTHER_TEXTS = 0.2


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """What a table of embeddings sees. Those of two streams add up: `a + b`.

    Args:
        counts: how often every token occurred, int64 `[tokens]`.
        gradients: moments of an objective's gradient at the embeddings `[features]`; None if no objective was given.
    """

    counts: np.ndarray
    gradients: Moments | None = None

    @property
    def count(self) -> int:
        """Number of tokens that were looked up."""
        return int(self.counts.sum())

    def __add__(self, other: TokenCounts) -> TokenCounts:
        if len(self.counts) != len(other.counts):
            raise ValueError(f"Counts of {len(self.counts)} and of {len(other.counts)} tokens do not add up.")
        both = [counts.gradients for counts in (self, other) if counts.gradients is not None]
        gradients = both[0] + both[1] if len(both) == 2 else (both or [None])[0]
        return TokenCounts(self.counts + other.counts, gradients)


def token_counts(batches: Iterable[tuple[np.ndarray, np.ndarray | None]], num_tokens: int) -> np.ndarray:
    """How often every token occurs, int64 `[num_tokens]`.

    Args:
        batches: pairs of ids, of any shape, and a mask of the same shape that is true where a token counts, or None.
        num_tokens: size of the vocabulary.

    Raises:
        ValueError: if a mask has another shape than its ids, or an id that counts is outside of the vocabulary.

    >>> token_counts([(np.array([[2, 1, 0]]), np.array([[1, 1, 0]])), (np.array([2]), None)], 4).tolist()
    [0, 1, 2, 0]
    """
    counts = np.zeros(num_tokens, np.int64)
    for number, (ids, mask) in enumerate(batches):
        ids = np.asarray(ids)
        if mask is not None:
            mask = np.asarray(mask)
            if mask.shape != ids.shape:
                raise ValueError(
                    f"The mask of batch {number} needs the shape {ids.shape} of its ids, got {mask.shape}."
                )
            ids = ids[mask.astype(bool)]
        ids = ids.reshape(-1).astype(np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < num_tokens:
            raise ValueError(
                f"The ids of batch {number} must be from 0 to {num_tokens - 1}, got {ids.min()} to {ids.max()}; "
                "use the tokenizer that belongs to the model."
            )
        counts += np.bincount(ids, minlength=num_tokens)
    return counts


def token_frequencies(
    counts: np.ndarray, *, smoothing: float | None = None, other_texts: float = OTHER_TEXTS
) -> np.ndarray:
    """The chance that the next token is this one, `[num_tokens]`, above zero also for tokens that were not seen.

    Args:
        counts: `[num_tokens]`.
        smoothing: added to every count. None: so much that all tokens share what Good and Turing give to the unseen
            ones, the fraction of occurrences that are a token's only one (Good 1953); at most 1.
        other_texts: fraction of texts that are unlike those counted, and where all tokens are alike. Good and Turing
            are right about more of the same texts only.

    Raises:
        ValueError: if a count is below zero or not finite.

    >>> token_frequencies(np.array([6, 1, 1, 0]), smoothing=0.5, other_texts=0).tolist()
    [0.65, 0.15, 0.15, 0.05]
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError(f"Counts are one finite number for every token, none below zero, got {counts!r}.")
    everywhere, total = np.full(len(counts), 1 / len(counts)), float(counts.sum())
    if not total:
        return everywhere
    if smoothing is None:
        once = float(np.sum(counts == 1))
        smoothing = min(1.0, once / max(total - once, 1.0) * total / len(counts))
    smoothed = (counts + smoothing) / np.sum(counts + smoothing)
    return (1 - other_texts) * smoothed + other_texts * everywhere


def token_order(frequencies: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Ids from the most to the least frequent.

    Of equally frequent tokens the smaller id comes first, as vocabularies are often sorted; but of the least frequent,
    those that were not seen, the largest row `table[id]`, as vocabularies begin with tokens that are hardly used.
    """
    energies = np.einsum("ij,ij->i", table, table, dtype=np.float64)
    among_unseen = np.where(frequencies == frequencies.min(), -energies, 0.0)
    return np.lexsort((among_unseen, -frequencies))
