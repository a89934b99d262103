"""What a place of a model can be at each size, and what that would lose: the offers of a knapsack."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from tncompress.fitting.allocate import near_budget, smallest_params
from tncompress.fitting.choice import Bands, Choice, has_components
from tncompress.fitting.embedding_options import embedding_options
from tncompress.fitting.fit import quick_error
from tncompress.fitting.knapsack import Offer, pareto
from tncompress.fitting.place import Place, Table
from tncompress.fitting.problem import squared_error
from tncompress.forms import Form, low_rank
from tncompress.hardware.aligned import aligned, aligned_ranks
from tncompress.linalg import psd_root
from tncompress.network.spec import Spec

STEP = 8  # ranks and widths are multiples: a vector of eight float32 on a CPU, a tile's edge on a GPU
PAYS = 0.05  # of a low-rank kernel's parameters: fewer saved by pivots are not worth their gather
FINE = 0.008  # of all parameters that are kept: ranks grow in steps of no more, where that needs steps below STEP
FRACTIONS = tuple(0.84**k for k in range(14))  # of the hidden width and of a kernel's parameters that are tried


def table_offers(place: Table, *, elastic: bool = False) -> list[Offer]:
    """The Pareto front of a table of embeddings: what each is, are `Bands`, or None for the table as it is.

    Args:
        place: the table.
        elastic: as of `offers`.

    >>> table = Table(np.random.default_rng(0).normal(size=(2000, 8)), np.arange(2000), None)
    >>> [offer.cost for offer in table_offers(table)][:2]
    [4008, 4039]
    """
    tokens, dim = place.dims
    found = [Offer(tokens * dim, 0.0, None)]
    for option in embedding_options(place.table, place.frequencies, place.moment):
        bands = Bands(option.bands, dim)
        found.append(Offer(bands.num_params, option.predicted_loss * place.unit, bands))
    return _front(found, tokens * dim, elastic)


def rank_step(dims: tuple[int, int], total: float) -> int:
    """In which steps ranks grow: aligned, but finer where a step would be too much of a small model's budget.

    Args:
        dims: features in and out.
        total: parameters that all places together may have.

    >>> rank_step((384, 1536), 3.5e6), rank_step((32, 64), 1e4)
    (8, 1)
    """
    step = STEP
    while step > 1 and step * sum(dims) > FINE * total:
        step //= 2
    return step


def offers(
    place: Place, forms: Sequence[Form], *, pivots: bool = True, elastic: bool = False, step: int = STEP
) -> list[Offer]:
    """The Pareto front of one kernel: what each is, is a `Choice`, or None for the kernel as it is.

    Args:
        place: the kernel.
        forms: to choose from.
        pivots: low rank may store no identity, see `TNPivoted`, where that saves enough.
        elastic: only what has components that can be cut off later, if there is any.
        step: in which ranks grow.

    >>> place = Place(np.diag([3.0, 2.0, 1.0, 0.0]), None, True)
    >>> [(offer.cost, round(offer.loss, 3)) for offer in offers(place, [low_rank.FORM], pivots=False)]
    [(8, 0.357), (16, 0.0)]
    """
    in_dim, out_dim = place.kernel.shape
    found = [Offer(in_dim * out_dim, 0.0, None)]
    for form in forms:
        if form.name == low_rank.FORM.name:
            found += low_ranks(in_dim, out_dim, spectrum(place) * place.unit, pivots, step)
        else:
            found += _others(place, form, step)
    return _front(found, in_dim * out_dim, elastic)


def _front(found: Sequence[Offer], dense: int, elastic: bool) -> list[Offer]:
    smaller = [offer for offer in found if offer.cost < dense or offer.what is None]
    # Before the front is taken: what may not be chosen shall not stand in the way of what may.
    return pareto([offer for offer in smaller if not elastic or has_components(offer.what)] or smaller)


def low_ranks(in_dim: int, out_dim: int, energies: np.ndarray, pivots: bool, step: int) -> Iterable[Offer]:
    """All ranks at once: each loses the energies beyond it."""
    tails = np.append(np.cumsum(energies[::-1])[::-1], 0.0)
    for rank in ranks(min(in_dim, out_dim), step):
        cost, choice = _low_rank(in_dim, out_dim, rank, pivots)
        yield Offer(cost, float(tails[rank]), choice)


@lru_cache(maxsize=1 << 16)  # layers of the same dimensions are many
def _low_rank(in_dim: int, out_dim: int, rank: int, pivots: bool) -> tuple[int, Choice]:
    spec = low_rank.spec(in_dim, out_dim, rank)
    pays = rank < out_dim and rank**2 - out_dim >= PAYS * spec.num_params
    choice = Choice(low_rank.FORM.name, spec, pivots and pays)
    return choice.num_params, choice


def ranks(most: int, step: int = STEP) -> Sequence[int]:
    """Ranks below full that are worth looking at; a step beyond the usual one is a device's tile.

    >>> list(ranks(40)), list(ranks(5)), list(ranks(300, 128))[-5:]
    ([8, 16, 24, 32], [1, 2, 3, 4], [48, 64, 96, 128, 256])
    """
    if step > STEP:
        return [rank for rank in aligned_ranks(most - 1, step) if rank >= STEP]
    return range(step, most, step) if most > 4 * STEP else range(1, most)


def spectrum(place: Place) -> np.ndarray:
    """Squared singular values of C^(1/2) W S^(1/2), descending: the energies that a truncation drops."""
    inputs, outputs = place.metrics
    kernel = place.kernel.astype(np.float64)
    if len(kernel) > kernel.shape[1]:  # the Gram matrix of the smaller side; the root of that side's metric only
        kernel, inputs, outputs = kernel.T, outputs, inputs
    return energies_of(kernel if inputs is None else psd_root(inputs) @ kernel, outputs)


def energies_of(seen: np.ndarray, metric: np.ndarray | None) -> np.ndarray:
    """Eigenvalues of A M A^T, descending; M None: of A A^T."""
    gram = seen @ seen.T if metric is None else seen @ metric @ seen.T
    return np.clip(np.linalg.eigvalsh(gram)[::-1], 0.0, None)


def _others(place: Place, form: Form, step: int) -> Iterable[Offer]:
    in_dim, out_dim = place.kernel.shape
    inputs, outputs = place.metrics
    energy = squared_error(place.kernel.astype(np.float64), 0.0, inputs, outputs) * place.unit
    seen: set[Spec] = set()
    sizes = [int(fraction * in_dim * out_dim) for fraction in FRACTIONS[1:]]
    if smallest := smallest_params([form], in_dim, out_dim):
        sizes.append(smallest)
    for size in sizes:
        for choice in near_budget(form, in_dim, out_dim, size):
            if step > STEP:  # a device's tile
                choice = replace(choice, spec=aligned(choice.spec, step))
            if choice.spec not in seen:
                seen.add(choice.spec)
                error = quick_error(place.kernel, choice.spec, form, inputs, outputs)
                yield Offer(choice.num_params, error * energy, choice)
