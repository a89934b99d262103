"""Which bands a table of embeddings can have: a grid of cuts and ranks with the loss of each, from spectra alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from tncompress.fitting.embedding import Band, checked_frequencies, checked_metric, num_params, roots, weighted_gram
from tncompress.fitting.frequencies import token_order
from tncompress.fitting.knapsack import Offer, pareto

ALIGNED, MOST_RANKS = 32, 16  # ranks are multiples of this, and there are at most so many
CUTS = 12  # numbers of tokens at which bands may end


@dataclass(frozen=True)
class EmbeddingOption:
    """Bands, their parameters (without the 4 bytes for every token's place), and the `loss` of fitting them."""

    bands: tuple[Band, ...]
    num_params: int
    predicted_loss: float


def embedding_options(
    table: np.ndarray,
    frequencies: np.ndarray,
    output_moment: np.ndarray | None = None,
    *,
    ranks: Sequence[int] | None = None,
    cuts: Sequence[int] | None = None,
    max_bands: int = 3,
) -> list[EmbeddingOption]:
    """Bands worth having, from few parameters to the whole table: each has a smaller loss than all smaller ones.

    Args:
        table, frequencies, output_moment: as in `fit_embedding`.
        ranks: of bands, besides whole rows. None: multiples of 32, at most 16 of them.
        cuts: numbers of tokens, from those on that are worth most, at which bands may end. None: 12 from a 128th to
            three quarters of all.
        max_bands: at most so many, from 1 to 3.

    All come from one eigendecomposition `[dim, dim]` for every stretch between two cuts.

    >>> table = np.random.default_rng(0).normal(size=(200, 8))
    >>> options = embedding_options(table, np.arange(1, 201), ranks=(2, 4), cuts=(50,))
    >>> [option.bands for option in options][:3]
    [((200, 2),), ((50, 4), (150, 2)), ((50, None), (150, 2))]
    """
    table = np.asarray(table)
    frequencies = checked_frequencies(table, frequencies)
    if not 1 <= max_bands <= 3:
        raise ValueError(f"max_bands is 1, 2 or 3, got {max_bands}.")
    num_tokens, dim = table.shape
    some_ranks = sorted({int(r) for r in (ranks or default_ranks(dim)) if 0 < r < dim}, reverse=True)
    ends = [0, *sorted({int(c) for c in (cuts or default_cuts(num_tokens)) if 0 < c < num_tokens}), num_tokens]
    metric = checked_metric(output_moment, dim)
    order, (root, _) = token_order(frequencies, table, metric), roots(metric)
    stretches = [root @ weighted_gram(table, order[a:b], frequencies) @ root for a, b in pairwise(ends)]
    losses: dict[tuple[int, int], dict[int | None, float]] = {}
    options = []
    for count in range(1, max_bands + 1):
        for inner in combinations(range(1, len(ends) - 1), count - 1):
            parts = list(pairwise((0, *inner, len(ends) - 1)))
            for first, last in parts:
                if (first, last) not in losses:
                    losses[first, last] = _losses(stretches[first:last], some_ranks)
            for chosen in combinations([None, *some_ranks], count):  # falling
                bands = tuple((ends[b] - ends[a], rank) for (a, b), rank in zip(parts, chosen, strict=True))
                loss = sum(losses[part][rank] for part, rank in zip(parts, chosen, strict=True))
                options.append(EmbeddingOption(bands, num_params(bands, dim), loss))
    front = pareto([Offer(option.num_params, option.predicted_loss, k) for k, option in enumerate(options)])
    return [options[offer.what] for offer in front]


def default_ranks(dim: int) -> list[int]:
    """Aligned ranks below `dim`; of few features, eighths.

    >>> default_ranks(384)[-1], len(default_ranks(1024)), default_ranks(16)
    (352, 15, [2, 4, 6, 8, 10, 12, 14])
    """
    steps = -(-dim // (ALIGNED * MOST_RANKS))
    step = ALIGNED * steps if dim >= 4 * ALIGNED else max(1, dim // 8)
    return list(range(step, dim, step))


def default_cuts(num_tokens: int) -> list[int]:
    """Evenly on a logarithmic scale, from a 128th to three quarters of all tokens.

    >>> default_cuts(30522)
    [238, 361, 546, 827, 1253, 1898, 2875, 4353, 6592, 9983, 15117, 22891]
    """
    return sorted({max(1, int(num_tokens / 128 * 96 ** (k / (CUTS - 1)))) for k in range(CUTS)})


def _losses(stretches: list[np.ndarray], ranks: Sequence[int]) -> dict[int | None, float]:
    """What the tokens of these stretches lose together at each rank: the eigenvalues that are dropped."""
    gram = np.sum(stretches, axis=0)
    kept = np.cumsum(np.linalg.eigvalsh(gram)[::-1])
    return {None: 0.0, **{rank: max(float(np.trace(gram) - kept[rank - 1]), 0.0) for rank in ranks}}
