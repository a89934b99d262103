"""`Place` and `Table`: what is known of a kernel or a table of embeddings when a budget is shared out.

All losses are in one unit, so that places compare: with moments of gradients, the predicted change of the objective, to
first order, tr(D^T C D S) for every vector; without, the energy of the error over that of the outputs (of the weights,
where nothing was calibrated), as if every layer mattered alike.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from tncompress.fitting.frequencies import TableUses, token_frequencies
from tncompress.fitting.moments import Moments
from tncompress.fitting.problem import squared_error, squared_errors
from tncompress.fitting.units import folded

FEWEST = 8  # held-out inputs that tell anything


@dataclass(frozen=True, eq=False)
class Place:
    """A kernel and what is known of it.

    Args:
        kernel: `[in_dim, out_dim]`.
        moments: of the layer's inputs, and of gradients at its outputs; None without calibration.
        centred: the layer has a bias that takes up the error at the mean.
        scale: what a loss with moments of gradients is multiplied by: in a model, vectors for each unit of the
            objective's variance, so that losses are fractions of it.
        held_out: inputs that are not in the moments, `[n, in_dim]`; None if there are none.
    """

    kernel: np.ndarray
    moments: Moments | None
    centred: bool
    scale: float = 1.0
    held_out: np.ndarray | None = None

    @property
    def dims(self) -> tuple[int, int]:
        """Features in and out."""
        return self.kernel.shape

    @cached_property
    def metrics(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Second moments that weight an error at the inputs and at the outputs."""
        if self.moments is None:
            return None, None
        gradients = self.moments.gradients
        inputs = self.moments.covariance if self.centred else self.moments.second
        return inputs, None if gradients is None else gradients.second

    @property
    def has_objective(self) -> bool:
        """Whether gradients tell what an error at the outputs does."""
        return self.moments is not None and self.moments.gradients is not None

    @property
    def loss(self) -> str:
        """What losses are of: "objective", or energy of the "outputs" or the "weights"."""
        return "objective" if self.has_objective else "outputs" if self.moments else "weights"

    @property
    def unit(self) -> float:
        """What a squared error is multiplied by to be a loss."""
        if self.has_objective:
            return self.scale
        inputs, _ = self.metrics
        energy = squared_error(self.kernel.astype(np.float64), 0.0, inputs)
        return 1 / energy if energy > 0 else 0.0

    def errors(self, approximation: np.ndarray) -> "Errors":
        """How far another kernel is from this one."""
        inputs, outputs = self.metrics
        metrics = [None, inputs, self._unseen()]
        kernel = self.kernel.astype(np.float64)
        lost, whole = (squared_errors(matrix, metrics, outputs) for matrix in (kernel - approximation, kernel))
        plain, seen, unseen = (
            [_root_of_ratio(*pair) for pair in zip(*both, strict=True)] for both in zip(lost, whole, strict=True)
        )
        return Errors(
            plain[0],
            None if inputs is None else seen[0],
            seen[1] if outputs is not None and whole[1][1] > 0 else None,
            lost[1][1] * self.scale if self.has_objective else None,
            unseen[1] / seen[1] if metrics[2] is not None and seen[1] > 0 else None,
        )

    def _unseen(self) -> np.ndarray | None:
        """The second moment of inputs that were held out; None if they are too few to tell anything."""
        if self.moments is None or self.held_out is None or len(self.held_out) < FEWEST:
            return None
        x = self.held_out - self.moments.mean if self.centred else self.held_out
        return x.T.astype(np.float64) @ x / len(x)


@dataclass(frozen=True)
class Errors:
    """How far a kernel is from another one.

    Args:
        weight: relative, of the weights.
        output: relative, of the outputs; None without calibration.
        loss: relative, of what the outputs do to an objective; None without one.
        predicted_loss: the same, as a loss of the objective.
        held_out_ratio: relative error on inputs that no fit saw, over that on those that the fit saw. Near 1 where
            there was enough calibration data, and of the same kind; None if nothing was held out.
    """

    weight: float
    output: float | None
    loss: float | None
    predicted_loss: float | None
    held_out_ratio: float | None


def _root_of_ratio(part: float, whole: float) -> float:
    return float(np.sqrt(part / whole)) if whole > 0 else 0.0


@dataclass(frozen=True, eq=False)
class Table:
    """A table of embeddings and what is known of it.

    Args:
        table: `[tokens, features]`.
        counts: how often every token was seen, `[tokens]`.
        gradients: moments of an objective's gradient at the embeddings; None without an objective.
        scale: as in `Place`.
        importance: of every token, see `TokenCounts`; None: all alike.
        uses: what an error does besides look-ups; None: nothing.
    """

    table: np.ndarray
    counts: np.ndarray
    gradients: Moments | None
    scale: float = 1.0
    importance: np.ndarray | None = None
    uses: TableUses | None = None

    @property
    def dims(self) -> tuple[int, int]:
        """Tokens and features."""
        return self.table.shape

    @property
    def frequencies(self) -> np.ndarray:
        """What weights an error of every token: the chance that it is looked up, and its part in other uses."""
        found = token_frequencies(self.counts)
        if self.gradients is None or self.uses is None:
            return found
        both = self._look_ups * np.trace(self.gradients.second) * found + self._use * self.uses.energies
        return both / both.sum()

    @property
    def moment(self) -> np.ndarray | None:
        """What weights an error of the features.

        Look-ups and other uses have weights and moments of their own; of the products that are their sum's
        nearest, these have the right sums over tokens and over features.
        """
        if self.gradients is None or self.uses is None:
            return None if self.gradients is None else self.gradients.second
        return self._look_ups * self.gradients.second + self._use * self.uses.moment

    @property
    def loss(self) -> str:
        """What losses are of: "objective", or energy of the "outputs"."""
        return "outputs" if self.gradients is None else "objective"

    @property
    def unit(self) -> float:
        """What a squared error a token is multiplied by to be a loss."""
        if self.gradients is not None:
            return self._look_ups if self.uses is None else 1.0
        energy = float(self.frequencies @ np.einsum("ij,ij->i", self.table, self.table, dtype=np.float64))
        return 1 / energy if energy > 0 else 0.0

    @property
    def _look_ups(self) -> float:
        """What multiplies a squared error of what is looked up.

        The moment of gradients is the mean over tokens that were seen; those to come are rarer, and matter more.
        """
        return self.scale * (
            1.0 if self.importance is None else float(token_frequencies(self.counts) @ self.importance)
        )

    @property
    def _use(self) -> float:
        """What multiplies one of another use: the moment of these is a sum, not a mean."""
        return self.scale / max(self.gradients.count, 1) if self.gradients else 0.0


def outputs_of(place: Place, units: np.ndarray) -> Place:
    """A first kernel with only these hidden units."""
    moments = place.moments
    if moments is not None and moments.gradients is not None:
        moments = replace(moments, gradients=moments.gradients.of_features(units))
    return replace(place, kernel=place.kernel[:, units], moments=moments)


def inputs_of(place: Place, units: np.ndarray) -> Place:
    """A second kernel with only these hidden units, which stand in for the others."""
    covariance = hidden_covariance(place)
    kernel = folded(place.kernel.astype(np.float64), covariance, units).astype(place.kernel.dtype)
    moments = None if place.moments is None else place.moments.of_features(units)
    return replace(place, kernel=kernel, moments=moments)


def hidden_covariance(second: Place) -> np.ndarray:
    """What is known of how hidden units go together `[hidden, hidden]`: their covariance, or that of units alike."""
    inputs = second.metrics[0]
    return np.eye(len(second.kernel)) if inputs is None else inputs  # uncalibrated: as independent as can be
