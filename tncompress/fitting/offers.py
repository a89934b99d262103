"""What the places of a model can be at each size, and what that would lose: the offers of a knapsack.

All losses are in one unit, so that places compare: with moments of gradients, the predicted change of the objective, to
first order, tr(D^T C D S) summed over the kernels; without, the energy of the error over that of the outputs (of the
weights, where nothing was calibrated), as if every layer mattered alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tncompress.fitting.allocate import Choice, near_budget
from tncompress.fitting.fit import quick_error
from tncompress.fitting.knapsack import Offer, pareto
from tncompress.fitting.moments import Moments
from tncompress.fitting.problem import squared_error
from tncompress.fitting.units import Narrowed, folded, narrow
from tncompress.forms import Form, low_rank
from tncompress.linalg import psd_root
from tncompress.network.cost import dense_spec
from tncompress.network.spec import Spec

NARROW = "narrow"  # the form of a dense kernel that lost hidden units
STEP = 8  # ranks and widths are multiples: a vector of eight float32 on a CPU, a tile's edge on a GPU
PAYS = 0.05  # of a low-rank kernel's parameters: fewer saved by pivots are not worth their gather
FRACTIONS = tuple(0.84**k for k in range(14))  # of the hidden width and of a kernel's parameters that are tried


@dataclass(frozen=True, eq=False)
class Place:
    """A kernel and what is known of it.

    Args:
        kernel: `[in_dim, out_dim]`.
        moments: of the layer's inputs, and of gradients at its outputs; None without calibration.
        centred: the layer has a bias that takes up the error at the mean.
    """

    kernel: np.ndarray
    moments: Moments | None
    centred: bool

    @property
    def metrics(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Second moments that weight an error at the inputs and at the outputs."""
        if self.moments is None:
            return None, None
        gradients = self.moments.gradients
        inputs = self.moments.covariance if self.centred else self.moments.second
        return inputs, None if gradients is None else gradients.second

    @property
    def unit(self) -> float:
        """What a squared error is multiplied by to be a loss."""
        inputs, outputs = self.metrics
        if outputs is not None:
            return 1.0
        energy = squared_error(self.kernel.astype(np.float64), 0.0, inputs)
        return 1 / energy if energy > 0 else 0.0


def offers(place: Place, forms: Sequence[Form], *, pivots: bool = True) -> list[Offer]:
    """The Pareto front of one kernel: what each is, is a `Choice`, or None for the kernel as it is.

    Args:
        place: the kernel.
        forms: to choose from.
        pivots: low rank may store no identity, see `TNPivoted`, where that saves enough.

    >>> place = Place(np.diag([3.0, 2.0, 1.0, 0.0]), None, True)
    >>> [(offer.cost, round(offer.loss, 3)) for offer in offers(place, [low_rank.FORM], pivots=False)]
    [(8, 0.357), (16, 0.0)]
    """
    in_dim, out_dim = place.kernel.shape
    found = [Offer(in_dim * out_dim, 0.0, None)]
    for form in forms:
        if form.name == low_rank.FORM.name:
            found += low_ranks(in_dim, out_dim, spectrum(place) * place.unit, pivots)
        else:
            found += _others(place, form)
    return pareto([offer for offer in found if offer.cost < in_dim * out_dim or offer.what is None])


def low_ranks(in_dim: int, out_dim: int, energies: np.ndarray, pivots: bool) -> Iterable[Offer]:
    """All ranks at once: each loses the energies beyond it."""
    tails = np.append(np.cumsum(energies[::-1])[::-1], 0.0)
    for rank in ranks(min(in_dim, out_dim)):
        spec = low_rank.spec(in_dim, out_dim, rank)
        choice = Choice(low_rank.FORM.name, spec, pivots and rank < out_dim and rank >= PAYS * (in_dim + out_dim))
        yield Offer(choice.num_params, float(tails[rank]), choice)


def ranks(most: int) -> range:
    """Ranks below full that are worth looking at.

    >>> list(ranks(40)), list(ranks(5))
    ([8, 16, 24, 32], [1, 2, 3, 4])
    """
    step = STEP if most > 4 * STEP else 1
    return range(step, most, step)


def spectrum(place: Place) -> np.ndarray:
    """Squared singular values of C^(1/2) W S^(1/2), descending: the energies that a truncation drops."""
    inputs, outputs = place.metrics
    kernel = place.kernel.astype(np.float64)
    if len(kernel) > kernel.shape[1]:  # the Gram matrix of the smaller side; the root of that side's metric only
        kernel, inputs, outputs = kernel.T, outputs, inputs
    return _energies(kernel if inputs is None else psd_root(inputs) @ kernel, outputs)


def _energies(seen: np.ndarray, metric: np.ndarray | None) -> np.ndarray:
    """Eigenvalues of A M A^T, descending."""
    gram = seen @ seen.T if metric is None else seen @ metric @ seen.T
    return np.clip(np.linalg.eigvalsh(gram)[::-1], 0.0, None)


def _others(place: Place, form: Form) -> Iterable[Offer]:
    in_dim, out_dim = place.kernel.shape
    inputs, outputs = place.metrics
    energy = squared_error(place.kernel.astype(np.float64), 0.0, inputs, outputs) * place.unit
    seen: set[Spec] = set()
    for fraction in FRACTIONS[1:]:
        for choice in near_budget(form, in_dim, out_dim, int(fraction * in_dim * out_dim)):
            if choice.spec not in seen:
                seen.add(choice.spec)
                error = quick_error(place.kernel, choice.spec, form, inputs, outputs)
                yield Offer(choice.num_params, error * energy, choice)


# -- pairs -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Width:
    """One offer of a pair: its hidden units, and the choices for the first kernels and for the second."""

    units: np.ndarray
    choices: tuple[Choice | None, ...]


def pair_offers(first: Sequence[Place], second: Place, *, pivots: bool, low_rank_too: bool) -> list[Offer]:
    """The Pareto front of kernels that share hidden units: what each is, is a `Width`.

    Every width has its own units and its own second kernel, in which the units that left are folded; on top of that
    the kernels may become low rank.

    Args:
        first: kernels that make the hidden units.
        second: the kernel that takes them.
        pivots: as of `offers`.
        low_rank_too: factorise the narrower kernels.
    """
    covariance, moment = _hidden_covariance(second), second.metrics[1]
    hidden, out_dim = second.kernel.shape
    roots = [_root(place.metrics[0]) for place in first]
    found: list[Offer] = []
    for narrowed in narrow(second.kernel, covariance, _root(moment), widths(hidden)):
        units, among = narrowed.units, np.ix_(narrowed.units, narrowed.units)
        dims = [(len(place.kernel), len(units)) for place in first] + [(len(units), out_dim)]
        sides = [[Offer(m * n, 0.0, _whole(m, n, len(units) < hidden))] for m, n in dims]
        if low_rank_too:
            energies = [_of_first(place, root, units) for place, root in zip(first, roots, strict=True)]
            energies.append(_energies(narrowed.outgoing.T, covariance[among]) * second.unit)
            for (m, n), side, values in zip(dims, sides, energies, strict=True):
                side += [offer for offer in low_ranks(m, n, values, pivots) if offer.cost < m * n]
        found += _combined([pareto(side) for side in sides], narrowed, second.unit * narrowed.loss)
    return pareto(found)


def _hidden_covariance(second: Place) -> np.ndarray:
    inputs = second.metrics[0]
    return np.eye(len(second.kernel)) if inputs is None else inputs  # uncalibrated: as independent as can be


def _root(moment: np.ndarray | None) -> np.ndarray | None:
    return None if moment is None else psd_root(moment)


def _whole(in_dim: int, out_dim: int, is_narrower: bool) -> Choice | None:
    """A kernel that is not factorised."""
    return Choice(NARROW, dense_spec(in_dim, out_dim)) if is_narrower else None


def _of_first(place: Place, root: np.ndarray | None, units: np.ndarray) -> np.ndarray:
    kernel, moment = place.kernel[:, units].astype(np.float64), place.metrics[1]
    seen = kernel if root is None else root @ kernel
    return _energies(seen, None if moment is None else moment[np.ix_(units, units)]) * place.unit


def widths(hidden: int) -> list[int]:
    """How many hidden units are tried.

    >>> widths(8), widths(1536)[:3]
    ([1, 2, 3, 4, 5, 6, 7, 8], [160, 192, 224])
    """
    step = STEP if hidden > 4 * STEP else 1
    return sorted({min(hidden, max(step, round(fraction * hidden / step) * step)) for fraction in FRACTIONS})


def outputs_of(place: Place, units: np.ndarray) -> Place:
    """A first kernel with only these hidden units."""
    moments = place.moments
    if moments is not None and moments.gradients is not None:
        moments = replace(moments, gradients=moments.gradients.of_features(units))
    return Place(place.kernel[:, units], moments, place.centred)


def inputs_of(place: Place, units: np.ndarray) -> Place:
    """A second kernel with only these hidden units, which stand in for the others."""
    covariance = _hidden_covariance(place)
    kernel = folded(place.kernel.astype(np.float64), covariance, units).astype(place.kernel.dtype)
    moments = None if place.moments is None else place.moments.of_features(units)
    return Place(kernel, moments, place.centred)


def _combined(sides: Sequence[Sequence[Offer]], narrowed: Narrowed, loss: float) -> list[Offer]:
    """All combinations of the kernels' offers, of which the Pareto front is kept after every side."""
    combinations: list[tuple[Choice | None, ...]] = [()]
    costs, losses = np.zeros(1), np.array([loss])
    for side in sides:
        cost = np.add.outer(costs, [offer.cost for offer in side]).ravel()
        total = np.add.outer(losses, [offer.loss for offer in side]).ravel()
        order = np.lexsort((total, cost))
        best = np.minimum.accumulate(total[order])
        kept = order[np.append(True, best[1:] < best[:-1])]
        combinations = [(*combinations[k // len(side)], _choice(side[k % len(side)])) for k in kept]
        costs, losses = cost[kept], total[kept]
    return [
        Offer(float(cost), float(total), Width(narrowed.units, choices))
        for cost, total, choices in zip(costs, losses, combinations, strict=True)
    ]


def _choice(offer: Offer) -> Choice | None:
    assert offer.what is None or isinstance(offer.what, Choice)
    return offer.what
