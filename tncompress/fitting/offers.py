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
from tncompress.fitting.units import Narrowed, narrow
from tncompress.forms import Form, low_rank
from tncompress.linalg import psd_root
from tncompress.network.cost import dense_spec
from tncompress.network.spec import Spec

NARROW = "narrow"  # the form of a dense kernel that lost hidden units
STEP = 8  # ranks and widths are multiples: a vector of eight float32 on a CPU, a tile's edge on a GPU
PAYS = 0.05  # of a low-rank kernel's parameters: fewer saved by pivots are not worth their gather
FRACTIONS = tuple(0.86**k for k in range(18))  # of the hidden width and of a kernel's parameters that are tried


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


def offers(place: Place, forms: Sequence[Form], *, pivots: bool = True, may_stay: bool = True) -> list[Offer]:
    """The Pareto front of one kernel: what each is, is a `Choice`, or None for the kernel as it is.

    Args:
        place: the kernel.
        forms: to choose from.
        pivots: low rank may store no identity, see `TNPivoted`, where that saves enough.
        may_stay: the dense kernel is one of the offers.

    >>> place = Place(np.diag([3.0, 2.0, 1.0, 0.0]), None, True)
    >>> [(offer.cost, round(offer.loss, 3)) for offer in offers(place, [low_rank.FORM], pivots=False)]
    [(8, 0.357), (16, 0.0)]
    """
    in_dim, out_dim = place.kernel.shape
    found = [Offer(in_dim * out_dim, 0.0, None)] if may_stay else []
    for form in forms:
        found += _low_rank(place, pivots) if form.name == low_rank.FORM.name else _others(place, form)
    return pareto([offer for offer in found if offer.cost < in_dim * out_dim or offer.what is None])


def _low_rank(place: Place, pivots: bool) -> Iterable[Offer]:
    """All ranks at once, from one decomposition."""
    in_dim, out_dim = place.kernel.shape
    energies = spectrum(place) * place.unit
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
    in_dim, out_dim = kernel.shape
    # The Gram matrix of the smaller side; the root of that side's metric only.
    if in_dim > out_dim:
        kernel, inputs, outputs = kernel.T, outputs, inputs
    seen = kernel if inputs is None else psd_root(inputs) @ kernel
    gram = seen @ seen.T if outputs is None else seen @ outputs @ seen.T
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


def pair_offers(first: Sequence[Place], second: Place, forms: Sequence[Form], *, pivots: bool = True) -> list[Offer]:
    """The Pareto front of kernels that share hidden units: what each is, is a `Width`.

    Every width has its own units and its own second kernel, in which the units that left are folded; on top of that
    the kernels are factorised.
    """
    found: list[Offer] = []
    hidden = len(second.kernel)
    for narrowed in widths_of(second):
        kernels = [*(outputs_of(place, narrowed.units) for place in first), inputs_of(second, narrowed)]
        sides = [offers(place, forms, pivots=pivots) for place in kernels]
        if len(narrowed.units) < hidden:
            sides = [
                [o._replace(what=o.what or narrower(*place.kernel.shape)) for o in side]
                for place, side in zip(kernels, sides, strict=True)
            ]
        found += _combined(sides, narrowed, second.unit * narrowed.loss)
    return pareto(found)


def narrower(in_dim: int, out_dim: int) -> Choice:
    """A dense kernel with fewer hidden units."""
    return Choice(NARROW, dense_spec(in_dim, out_dim))


def widths_of(second: Place) -> list[Narrowed]:
    """Narrower versions at a dozen and more widths, and the full one."""
    hidden = len(second.kernel)
    step = STEP if hidden > 4 * STEP else 1
    tried = {max(step, round(fraction * hidden / step) * step) for fraction in FRACTIONS}
    inputs, outputs = second.metrics
    if inputs is None:  # without calibration all units are as independent as can be
        inputs = np.eye(hidden)
    return narrow(second.kernel, inputs, outputs, sorted(min(width, hidden) for width in tried))


def outputs_of(place: Place, units: np.ndarray) -> Place:
    """A first kernel with only these hidden units."""
    moments = place.moments
    if moments is not None and moments.gradients is not None:
        moments = replace(moments, gradients=moments.gradients.of_features(units))
    return Place(place.kernel[:, units], moments, place.centred)


def inputs_of(place: Place, narrowed: Narrowed) -> Place:
    """The second kernel as it is with fewer hidden units."""
    moments = None if place.moments is None else place.moments.of_features(narrowed.units)
    return Place(narrowed.kernel, moments, place.centred)


def _combined(sides: Sequence[Sequence[Offer]], narrowed: Narrowed, loss: float) -> list[Offer]:
    """All combinations of the kernels' offers, of which the Pareto front is kept after every side."""
    front = [Offer(0, loss, ())]
    for side in sides:
        cost = np.add.outer([o.cost for o in front], [o.cost for o in side]).ravel()
        total = np.add.outer([o.loss for o in front], [o.loss for o in side]).ravel()
        order = np.lexsort((total, cost))
        best = np.minimum.accumulate(total[order])
        kept = order[np.append(True, best[1:] < best[:-1])]
        front = [
            Offer(float(cost[k]), float(total[k]), (*front[k // len(side)].what, side[k % len(side)].what))
            for k in kept
        ]
    return [Offer(offer.cost, offer.loss, Width(narrowed.units, offer.what)) for offer in front]
