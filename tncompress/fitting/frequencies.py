"""How often tokens are seen: counted on batches, and as chances that also know of tokens that were not seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tncompress.fitting.moments import Moments

# Where Wikipedia was counted a tenth of the tokens of STS-B were new, six times what Good and Turing say. Of shares
# from 0 to 0.4 this one chose the bands that lost least there, also by counts of STS-B (benchmarks/embedding.py).
OTHER_TEXTS = 0.2
# Tokens with neighbouring ids. Vocabularies are often sorted by how common tokens are: of those of BERT that 3,000
# sentences did not have, some of the first came up 26 times as often in other sentences as the last.
STRETCH = 1000
BLOCK = 4096  # rows at once in float64


@dataclass(frozen=True, eq=False)
class TableUses:
    """What an error of a table does to an objective besides look-ups, e.g. in logits. Those of two streams add up.

    With G the objective's gradients at the table, each `[tokens, features]`, sum G_v^T G_v over these and over tokens v
    is the moment, and sum |G_v|^2 the energy of a token: the Gauss-Newton matrix as if the two were independent.

    Args:
        energies: `[tokens]`.
        moment: `[features, features]`.
    """

    energies: np.ndarray
    moment: np.ndarray

    @classmethod
    def of(cls, gradient: np.ndarray) -> TableUses:
        """Those of one gradient `[tokens, features]`.

        >>> TableUses.of(np.array([[1.0, 2.0], [0.0, 0.0]], np.float32)).energies.tolist()
        [5.0, 0.0]
        """
        energies = np.einsum("ij,ij->i", gradient, gradient, dtype=np.float64)
        return cls(energies, (gradient.T @ gradient).astype(np.float64))

    def __add__(self, other: TableUses) -> TableUses:
        return TableUses(self.energies + other.energies, self.moment + other.moment)


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """What a table of embeddings sees. Those of two streams add up: `a + b`.

    Args:
        counts: how often every token occurred, int64 `[tokens]`.
        gradients: moments of an objective's gradient at the embeddings `[features]`; None if no objective was given.
        energies: sums of |g|^2 over the gradients g at every token, `[tokens]`; None if they were not told apart.
        observed: how many gradients these are, `[tokens]`.
        uses: what else the model does with the table; None if nothing, or if no objective was given.
    """

    counts: np.ndarray
    gradients: Moments | None = None
    energies: np.ndarray | None = None
    observed: np.ndarray | None = None
    uses: TableUses | None = None

    @property
    def count(self) -> int:
        """Number of tokens that were looked up."""
        return int(self.counts.sum())

    def __add__(self, other: TokenCounts) -> TokenCounts:
        if len(self.counts) != len(other.counts):
            raise ValueError(f"Counts of {len(self.counts)} and of {len(other.counts)} tokens do not add up.")
        both = [counts.gradients for counts in (self, other) if counts.gradients is not None]
        gradients = both[0] + both[1] if len(both) == 2 else (both or [None])[0]
        return TokenCounts(
            self.counts + other.counts,
            gradients,
            _sum(self.energies, other.energies),
            _sum(self.observed, other.observed),
            _sum(self.uses, other.uses),
        )

    @property
    def importance(self) -> np.ndarray | None:
        """How much an error at a token moves the objective, over the mean of all that were seen, `[tokens]`.

        Rare words say more than frequent ones. None without gradients that were told apart.
        """
        if self.energies is None or self.observed is None or not self.energies.any():
            return None
        return token_importance(self.counts, self.energies, self.observed)


def _sum(a: Any, b: Any) -> Any:
    """Of what there is."""
    return a + b if a is not None and b is not None else (b if a is None else a)


def token_importance(counts: np.ndarray, energies: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Mean energy of the gradients at every token, over that of all of them.

    Every token has one gradient more, of the mean energy of tokens that were seen about as often (up to a power of
    two); those that were not seen are like those that were seen once.

    Args:
        counts: how often tokens were seen, `[tokens]`.
        energies: sums of |g|^2, `[tokens]`.
        observed: of how many gradients each, `[tokens]`.

    >>> token_importance(np.array([4, 1, 0]), np.array([4.0, 3.0, 0.0]), np.array([2, 1, 0])).round(2).tolist()
    [0.86, 1.29, 1.29]
    """
    overall = energies.sum() / observed.sum()
    group = np.ceil(np.log2(np.maximum(counts, 1))).astype(int)
    sums, numbers = np.bincount(group, weights=energies), np.bincount(group, weights=observed)
    usual = np.where(numbers > 0, sums / np.maximum(numbers, 1), overall)[group]
    return (energies + usual) / (observed + 1) / overall


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
        smoothing: added to every count. None: so much that the tokens share what Good and Turing give to the unseen
            ones, the fraction of occurrences that are a token's only one (Good 1953); at most 1. In a large vocabulary
            neighbouring ids, about a thousand, share what they have of it, as vocabularies are often sorted.
        other_texts: fraction of texts that are unlike those counted, where tokens come as the unseen ones do here.
            Good and Turing are right about more of the same texts only.

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
    added = everywhere * smoothing * len(counts) if smoothing is not None else _good_turing(counts)
    if added.any():
        everywhere = added / added.sum()
    smoothed = (counts + added) / np.sum(counts + added)
    return (1 - other_texts) * smoothed + other_texts * everywhere


def _good_turing(counts: np.ndarray) -> np.ndarray:
    """What is added to the counts: in every stretch of tokens what its tokens that were seen once ask for."""
    is_once, total = counts == 1, counts.sum()
    once = float(is_once.sum())
    if not once:
        return np.zeros(len(counts))
    stretches = max(1, len(counts) // STRETCH)
    stretch = np.arange(len(counts)) * stretches // len(counts)
    # Each has, besides its own, one token seen once among as many as have one on average.
    found = np.bincount(stretch, weights=is_once) + 1
    rates = found / (np.bincount(stretch) + len(counts) / once)
    return np.minimum(1.0, rates * total / max(total - once, 1.0))[stretch]


def token_order(weights: np.ndarray, table: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """Ids by what their rows e are worth, w e S e^T, from the most on; of equals the smaller id comes first.

    Args:
        weights: w of every token, its frequency for example, `[tokens]`.
        table: `[tokens, features]`.
        metric: S `[features, features]`.

    >>> token_order(np.array([1.0, 9.0, 2.0]), np.array([[2.0], [0.1], [2.0]]), np.eye(1)).tolist()
    [2, 0, 1]
    """
    worth = np.empty(len(table))
    for start in range(0, len(table), BLOCK):
        rows = table[start : start + BLOCK].astype(np.float64)
        worth[start : start + BLOCK] = np.einsum("ij,ij->i", rows @ metric, rows)
    return np.argsort(-weights * worth, kind="stable")
