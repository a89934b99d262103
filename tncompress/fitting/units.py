"""Hidden units of two maps with an activation between them: which may go, and how the others stand in for them.

Optimal brain surgeon (Hassibi & Stork 1993) on whole units, as in ZipLM (Kurtic et al. 2023, arXiv:2302.04089): a
unit whose activity the others predict costs little, and least squares tells how much of its outgoing weights each of
them takes over.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tncompress.linalg import psd_root

DAMPING = 1e-3  # of the mean variance: what the units of calibration share by chance is not relied upon
STEPS = 192  # the large inverse is brought up to date about so often: in wide layers several units leave between
CANDIDATES = 4  # for each unit that leaves, so many of the least missed are looked at one by one


@dataclass(frozen=True, eq=False)
class Narrowed:
    """A narrower hidden layer.

    Args:
        units: indices of the units that stay, ascending.
        kernel: `[len(units), out_dim]`, the second map's, with what the others did folded in.
        loss: E ||(h W - h' W') S^(1/2)||^2 about the mean, h' being the units that stay: the outputs' squared error.
    """

    units: np.ndarray
    kernel: np.ndarray
    loss: float


def narrow(
    kernel: np.ndarray,
    covariance: np.ndarray,
    output_moment: np.ndarray | None,
    widths: Sequence[int],
) -> list[Narrowed]:
    """Narrower versions of a hidden layer, one for each width, the widest first.

    Args:
        kernel: of the second map, `[hidden, out_dim]`.
        covariance: `[hidden, hidden]`, of the hidden units, about their mean where the second map has a bias to take
            the mean up, else about zero.
        output_moment: S `[out_dim, out_dim]`, how much an error at each output matters; None: all alike.
        widths: how many units stay, each from 1 to hidden.

    Raises:
        ValueError: a width out of range.

    >>> twice = np.array([[1.0, 1.0], [1.0, 1.0]])  # two units that always do the same: one is enough
    >>> small = narrow(np.array([[1.0], [2.0]]), twice, None, [1])[0]
    >>> bool(small.loss < 0.02), np.round(small.kernel, 2).tolist()
    (True, [[3.0]])
    """
    hidden = len(kernel)
    if not all(1 <= width <= hidden for width in widths):
        raise ValueError(f"widths must be from 1 to {hidden}, got {sorted(widths)}.")
    kernel, covariance = kernel.astype(np.float64), covariance.astype(np.float64)
    root = None if output_moment is None else psd_root(output_moment)
    elimination = _Elimination(kernel if root is None else kernel @ root, covariance)
    found = []
    for width in sorted(set(widths), reverse=True):
        elimination.down_to(width)
        units = elimination.units
        folded = _folded(kernel, covariance, units)
        found.append(Narrowed(units, folded, _loss(kernel, folded, covariance, units, root)))
    return found


def _folded(kernel: np.ndarray, covariance: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The outgoing weights of `units` by which they stand best for all: least squares, whatever the outputs' metric."""
    if len(units) == len(kernel):
        return kernel
    gone = np.setdiff1d(np.arange(len(kernel)), units)
    damping = DAMPING * np.trace(covariance) / len(covariance)
    among = covariance[np.ix_(units, units)] + damping * np.eye(len(units))
    return kernel[units] + np.linalg.solve(among, covariance[np.ix_(units, gone)] @ kernel[gone])


def _loss(kernel: np.ndarray, folded: np.ndarray, covariance: np.ndarray, units: np.ndarray, root) -> float:
    difference = kernel.copy()
    difference[units] -= folded
    if root is not None:
        difference = difference @ root
    return max(0.0, float(np.sum((covariance @ difference) * difference)))


class _Elimination:
    """Units leave one after the other (in wide layers several at once), those that are missed least first."""

    def __init__(self, outgoing: np.ndarray, covariance: np.ndarray):
        hidden = len(outgoing)
        damping = DAMPING * np.trace(covariance) / hidden
        if damping == 0:  # nothing ever varied: any unit may go
            damping = 1.0
        self.units = np.arange(hidden)
        self._outgoing = outgoing.copy()
        self._inverse = np.linalg.inv(covariance + damping * np.eye(hidden))
        self._at_once = max(1, hidden // STEPS)

    def down_to(self, width: int) -> None:
        alive = np.ones(len(self.units), bool)
        while (count := int(alive.sum())) > width:
            missed = _missed(self._outgoing, self._inverse)
            missed[~alive] = np.inf
            leaving = self._next(missed, min(self._at_once, count - width))
            alive[leaving] = False
            _eliminate(self._outgoing, self._inverse, leaving)
        self.units, self._outgoing = self.units[alive], self._outgoing[alive]
        self._inverse = np.ascontiguousarray(self._inverse[np.ix_(alive, alive)])

    def _next(self, missed: np.ndarray, count: int) -> np.ndarray:
        """The next `count` units to leave, one after the other, among those that are missed least now."""
        if count == 1:
            return np.array([missed.argmin()])
        near = np.argsort(missed, kind="stable")[: min(CANDIDATES * count, int(np.isfinite(missed).sum()))]
        outgoing, inverse = self._outgoing[near], self._inverse[np.ix_(near, near)]
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


def _eliminate(outgoing: np.ndarray, inverse: np.ndarray, leaving: np.ndarray) -> None:
    """Take units out of the inverse by Gauss's steps, and let the others take over their outgoing weights; in place."""
    across = inverse[:, leaving]
    weights = np.linalg.solve(across[leaving], np.hstack([outgoing[leaving], across.T]))
    outgoing -= across @ weights[:, : outgoing.shape[1]]
    inverse -= across @ weights[:, outgoing.shape[1] :]
