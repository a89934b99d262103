"""A table of embeddings as low-rank bands: frequent tokens keep more rank (Baevski & Auli 2019, arXiv:1809.10853).

Tokens are sorted by what it would cost to lose them, above all by how often they are seen, and cut into bands. The rows
of a band become codes times a projection, `E_b ~ T_b P_b`, by the truncated singular value decomposition that is best
under a weight for every token and a moment of the features, or stay whole. Everything comes from Gram matrices
`[dim, dim]`: nothing is divided by a small number, and a table is read block by block.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tncompress.fitting.frequencies import token_order
from tncompress.linalg import balance, leading_eigenvectors

Band = tuple[int, int | None]  # tokens, rank; None: rows that stay whole

BLOCK = 4096  # rows at once in float64
TINY = 1e-10  # of the largest: decides between directions that do not matter


def checked_bands(bands: Iterable[Sequence], num_tokens: int, dim: int) -> tuple[Band, ...]:
    """The bands of a table `[num_tokens, dim]`, in one way of writing: a band of full rank has the rank None.

    Raises:
        ValueError: if they do not share the tokens out, or a rank is not from 1 to `dim`.

    >>> checked_bands([[10, 8], (90, 3)], 100, 8)
    ((10, None), (90, 3))
    """
    try:
        found = tuple((int(rows), None if rank is None else int(rank)) for rows, rank in bands)
    except (TypeError, ValueError):
        raise ValueError(
            f"Bands are pairs of (tokens, rank), such as ((1000, 64), (9000, 16)), got {bands!r}."
        ) from None
    total = sum(rows for rows, _ in found)
    if total != num_tokens or any(rows < 1 for rows, _ in found):
        raise ValueError(f"Bands need at least a token each and {num_tokens} in all, got {total} in {found}.")
    if any(rank is not None and not 1 <= rank <= dim for _, rank in found):
        raise ValueError(f"The rank of a band is from 1 to {dim}, or None for rows that stay whole, got {found}.")
    return tuple((rows, None if rank == dim else rank) for rows, rank in found)


def num_params(bands: Iterable[Band], dim: int) -> int:
    """Parameters of tables and projections; the int32 place of every token comes on top, 4 bytes each.

    >>> num_params(((10, None), (90, 3)), dim=8)
    374
    """
    return sum(rows * dim if rank is None else rank * (rows + dim) for rows, rank in bands)


@dataclass(frozen=True, eq=False)
class EmbeddingFit:
    """Bands for a table, and how far their product is from it.

    Args:
        bands: tokens and rank of each; None: whole.
        position: `[num_tokens]` int32, the place of every token in the order.
        tables: of every band `[tokens, rank]`, whole ones `[tokens, dim]`, in the table's dtype.
        projections: of every band `[rank, dim]`; None for whole ones.
        loss: sum over tokens of frequency x (e - e') S (e - e')^T, S the output moment: what a token costs on average.
        output_error: the square root of the loss relative to that of all zeros.
        weight_error: ||E - E'|| / ||E||, Frobenius.
    """

    bands: tuple[Band, ...]
    position: np.ndarray
    tables: list[np.ndarray]
    projections: list[np.ndarray | None]
    loss: float
    output_error: float
    weight_error: float

    def to_dense(self) -> np.ndarray:
        """The table `[num_tokens, dim]` that the bands stand for."""
        pairs = zip(self.tables, self.projections, strict=True)
        return np.concatenate([t if p is None else t @ p for t, p in pairs])[self.position]


def fit_embedding(
    table: np.ndarray, frequencies: np.ndarray, bands: Iterable[Sequence], output_moment: np.ndarray | None = None
) -> EmbeddingFit:
    """Sort the tokens of a table by what they are worth and fit every band: a truncated SVD, in closed form.

    Each band gets the factors of its rank that minimise the loss, frequency x (e - e') S (e - e')^T over its tokens.

    Args:
        table: E `[num_tokens, dim]`.
        frequencies: `[num_tokens]`, all above zero, in any unit; `token_frequencies` makes them of counts.
        bands: pairs of (tokens, rank), from the tokens on that cost most if lost, see `token_order`; None: rows that
            stay whole.
        output_moment: S `[dim, dim]`, positive semi-definite: the second moment of an objective's gradient at the
            layer's outputs; None: all features count alike. What it does not see at all is fitted last.

    Raises:
        ValueError: if shapes differ, or numbers are not finite, or frequencies not above zero.

    >>> rng = np.random.default_rng(0)
    >>> table = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 6))
    >>> fit = fit_embedding(table, np.arange(1, 51), ((10, None), (40, 2)))
    >>> bool(np.allclose(fit.to_dense(), table)), fit.position[:3].tolist()
    (True, [49, 48, 47])
    """
    table = np.asarray(table)
    frequencies = checked_frequencies(table, frequencies)
    found, metric = checked_bands(bands, *table.shape), checked_metric(output_moment, table.shape[1])
    order = token_order(frequencies, table, metric)
    root, inverse = roots(metric)
    dtype = table.dtype if np.issubdtype(table.dtype, np.floating) else np.float32
    tables, projections, energies, first = [], [], np.zeros(4), 0
    for rows, rank in found:
        tokens, first = order[first : first + rows], first + rows
        codes, projection = table[tokens], None
        if rank is not None:
            codes, projection = _fit_band(table, tokens, frequencies, rank, root, inverse)
        energies += _energies(table, tokens, codes, projection, frequencies, metric)
        tables.append(codes.astype(dtype))
        projections.append(None if projection is None else projection.astype(dtype))
    position = np.empty(len(table), np.int32)
    position[order] = np.arange(len(table), dtype=np.int32)
    loss, size, weight_loss, weight_size = energies
    errors = _relative(loss, size), _relative(weight_loss, weight_size)
    return EmbeddingFit(found, position, tables, projections, float(loss), *errors)


def weighted_gram(table: np.ndarray, tokens: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sum over these tokens of weight x e^T e, float64 `[dim, dim]`; weights `[num_tokens]`."""
    gram = np.zeros((table.shape[1],) * 2)
    for some, block in _blocks(table, tokens):
        gram += (block * weights[some, None]).T @ block
    return gram


def roots(metric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S^(1/2) and its inverse `[dim, dim]`; what S does not see counts a little, so that it is fitted last."""
    values, vectors = np.linalg.eigh(metric)
    values = np.sqrt(np.maximum(values, TINY * values[-1]))
    return (vectors * values) @ vectors.T, (vectors / values) @ vectors.T


def checked_metric(moment: np.ndarray | None, dim: int) -> np.ndarray:
    """The moment of `dim` features; without one, or if it is zero, all count alike.

    Raises:
        ValueError: if it has another shape, or is not finite.
    """
    if moment is None:
        return np.eye(dim)
    if np.shape(moment) != (dim, dim) or not np.isfinite(moment).all():
        raise ValueError(f"The output moment needs finite numbers of shape {(dim, dim)}, got {np.shape(moment)}.")
    return np.asarray(moment, np.float64) if np.trace(moment) > 0 else np.eye(dim)


def checked_frequencies(table: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """The frequencies in float64, adding up to one.

    Raises:
        ValueError: if they do not belong to the table, are not above zero, or the table is not a finite matrix.
    """
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError(f"A table is finite numbers [tokens, dim], got the shape {table.shape} or not finite ones.")
    found = np.asarray(frequencies, np.float64)
    if found.shape != table.shape[:1]:
        raise ValueError(f"The table has {len(table)} tokens and needs as many frequencies, got shape {found.shape}.")
    if not (np.isfinite(found) & (found > 0)).all():
        raise ValueError("Frequencies must be finite and above zero; token_frequencies(counts) makes such of counts.")
    return found / found.sum()


def _fit_band(
    table: np.ndarray, tokens: np.ndarray, frequencies: np.ndarray, rank: int, root: np.ndarray, inverse: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Codes `[tokens, rank]` and projection `[rank, dim]`: best in E S^(1/2), mapped back."""
    gram = weighted_gram(table, tokens, frequencies)
    _, vectors = leading_eigenvectors(root @ gram @ root, rank)  # [dim, rank]
    to_codes = root @ vectors
    codes = np.concatenate([block @ to_codes for _, block in _blocks(table, tokens)])
    with np.errstate(over="ignore"):  # where a direction has no codes at all
        return balance(codes, vectors.T @ inverse)


def _energies(
    table: np.ndarray,
    tokens: np.ndarray,
    codes: np.ndarray,
    projection: np.ndarray | None,
    frequencies: np.ndarray,
    metric: np.ndarray,
) -> np.ndarray:
    """Of what is lost and of all: the frequency-weighted energy in the metric, lost and all, and the plain one."""
    total, first = np.zeros(4), 0
    for some, block in _blocks(table, tokens):
        part, first = codes[first : first + len(some)], first + len(some)
        lost = block - (part if projection is None else part @ projection)
        seen = [frequencies[some] @ np.einsum("ij,ij->i", x @ metric, x) for x in (lost, block)]
        total += [*seen, np.sum(lost**2), np.sum(block**2)]
    return np.maximum(total, 0.0)


def _blocks(table: np.ndarray, tokens: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens and their rows in float64, a few thousand at once."""
    for start in range(0, len(tokens), BLOCK):
        some = tokens[start : start + BLOCK]
        yield some, table[some].astype(np.float64)


def _relative(lost: float, total: float) -> float:
    return float(np.sqrt(lost / total)) if total > 0 else 0.0
