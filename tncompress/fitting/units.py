"""Hidden units of two maps with an activation between them: which may go, and how the others stand in for them.

Optimal brain surgeon (Hassibi & Stork 1993) on whole units, as in ZipLM (Kurtic et al. 2023, arXiv:2302.04089): a
unit whose activity the others predict costs little, and least squares tells how much of its outgoing weights each of
them takes over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tncompress.linalg import psd_inverse

DAMPING = 1e-3  # of the mean variance: what the units of calibration share by chance is not relied upon
STEPS = 96  # the large inverse is brought up to date about so often: in wide layers several units leave between
CANDIDATES = 4  # for each unit that leaves, so many of the least missed are looked at one by one


@dataclass(frozen=True, eq=False)
class Narrowed:
    """A narrower hidden layer.

    Args:
        units: indices of the units that stay, ascending.
        outgoing: `[len(units), out_dim]`, W' S^(1/2): the second map's kernel with what the others did folded in, as
            the outputs' metric sees it.
        loss: E ||(h W - h' W') S^(1/2)||^2 about the mean, h' being the units that stay: the outputs' squared error
            (and the damping's share).
        gone: the units that left, in order.
        losses: what the loss was after each of these.
    """

    units: np.ndarray
    outgoing: np.ndarray
    loss: float
    gone: np.ndarray
    losses: np.ndarray

    def wider(self, width: int) -> tuple[np.ndarray, float]:
        """The units that were left when there were so many, and the loss then."""
        hidden = len(self.units) + len(self.gone)
        units = np.setdiff1d(np.arange(hidden), self.gone[: hidden - width])
        return units, float(self.losses[hidden - width - 1]) if width < hidden else 0.0


def narrow(
    kernel: np.ndarray,
    covariance: np.ndarray,
    output_root: np.ndarray | None,
    widths: Sequence[int],
) -> list[Narrowed]:
    """Narrower versions of a hidden layer, one for each width, the widest first.

    Args:
        kernel: W of the second map, `[hidden, out_dim]`.
        covariance: `[hidden, hidden]`, of the hidden units, about their mean where the second map has a bias to take
            the mean up, else about zero.
        output_root: S^(1/2) `[out_dim, out_dim]`, S being how much an error at each output matters; None: all alike.
        widths: how many units stay, each from 1 to hidden.

    Raises:
        ValueError: a width out of range.

    >>> twice = np.array([[1.0, 1.0], [1.0, 1.0]])  # two units that always do the same: one is enough
    >>> small = narrow(np.array([[1.0], [2.0]]), twice, None, [1])[0]
    >>> bool(small.loss < 0.02), np.round(small.outgoing, 2).tolist()
    (True, [[3.0]])
    """
    hidden = len(kernel)
    if not all(1 <= width <= hidden for width in widths):
        raise ValueError(f"widths must be from 1 to {hidden}, got {sorted(widths)}.")
    outgoing = kernel.astype(np.float64) if output_root is None else kernel @ output_root
    elimination = _Elimination(outgoing, covariance)
    found = []
    for width in sorted(set(widths), reverse=True):
        elimination.down_to(width)
        found.append(elimination.narrowed())
    return found


def folded(kernel: np.ndarray, covariance: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The kernel W' of only these units that stands best for all: least squares, the same for every output metric.

    Args: as of `narrow`; units are those that stay.

    >>> folded(np.array([[1.0], [2.0]]), np.eye(2), np.array([1])).tolist()
    [[2.0]]
    """
    if len(units) == len(kernel):
        return kernel
    gone = np.setdiff1d(np.arange(len(kernel)), units)
    among = covariance[np.ix_(units, units)] + _damping(covariance) * np.eye(len(units))
    return kernel[units] + np.linalg.solve(among, covariance[np.ix_(units, gone)] @ kernel[gone])


def _damping(covariance: np.ndarray) -> float:
    return DAMPING * float(np.trace(covariance)) / len(covariance) or 1.0  # nothing ever varied: any unit may go


class _Elimination:
    """Units leave one after the other (in wide layers several at once), those that are missed least first."""

    def __init__(self, outgoing: np.ndarray, covariance: np.ndarray):
        hidden = len(outgoing)
        self.units, self.outgoing = np.arange(hidden), outgoing.copy()
        self._gone, self._losses = [], [0.0]
        damped = covariance.astype(np.float64)
        damped[np.diag_indices(hidden)] += _damping(covariance)
        self._inverse = psd_inverse(damped)
        self._at_once = max(1, hidden // STEPS)

    def down_to(self, width: int) -> None:
        alive = np.ones(len(self.units), bool)
        while (count := int(alive.sum())) > width:
            missed = _missed(self.outgoing, self._inverse)
            missed[~alive] = np.inf
            leaving = self._next(missed, min(self._at_once, count - width))
            alive[leaving] = False
            grown = _eliminate(self.outgoing, self._inverse, leaving)
            self._gone += self.units[leaving].tolist()
            # Of several at once only the sum is known; in equal parts it is no less than what the first of them lose.
            self._losses += np.linspace(self._losses[-1], self._losses[-1] + grown, len(leaving) + 1)[1:].tolist()
        self.units, self.outgoing = self.units[alive], self.outgoing[alive]
        self._inverse = np.ascontiguousarray(self._inverse[np.ix_(alive, alive)])

    def narrowed(self) -> Narrowed:
        gone, losses = np.array(self._gone, int), np.array(self._losses)
        return Narrowed(self.units, self.outgoing.copy(), float(losses[-1]), gone, losses[1:])

    def _next(self, missed: np.ndarray, count: int) -> np.ndarray:
        """The next `count` units to leave, one after the other, among those that are missed least now."""
        if count == 1:
            return np.array([missed.argmin()])
        near = np.argsort(missed, kind="stable")[: min(CANDIDATES * count, int(np.isfinite(missed).sum()))]
        outgoing, inverse = self.outgoing[near], self._inverse[np.ix_(near, near)]
        order: list[int] = []
        while len(order) < count:
            missed = _missed(outgoing, inverse)
            missed[order] = np.inf
            order.append(int(missed.argmin()))
            _eliminate(outgoing, inverse, np.array(order[-1:]))
        return near[order]


def _missed(outgoing: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """What the loss grows by if one unit leaves, for every unit."""
    return np.sum(outgoing**2, axis=1) / np.maximum(np.diag(inverse), np.finfo(float).tiny)


def _eliminate(outgoing: np.ndarray, inverse: np.ndarray, leaving: np.ndarray) -> float:
    """Take units out of the inverse by Gauss's steps, and let the others take over their outgoing weights; in place.

    Returns: what the loss grows by.
    """
    across = inverse[:, leaving]
    weights = np.linalg.solve(across[leaving], np.hstack([outgoing[leaving], across.T]))
    ours, theirs = weights[:, : outgoing.shape[1]], weights[:, outgoing.shape[1] :]
    grown = float(np.vdot(outgoing[leaving], ours))
    outgoing -= across @ ours
    _subtract_product(inverse, theirs, across)
    return grown


def _subtract_product(symmetric: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Take (right @ left)^T, which is symmetric, off a large matrix, which is moved through memory once."""
    from scipy.linalg.blas import dgemm  # type: ignore[attr-defined]

    # BLAS counts columns first: the transpose of our rows, which it changes in place.
    dgemm(-1.0, left, right, trans_a=True, trans_b=True, beta=1.0, c=symmetric.T, overwrite_c=True)
