"""`Moments`: mean and covariance of what a layer sees, and of the gradient at its outputs, gathered batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of vectors `[in_dim]`. Moments of two streams add up: `a + b`.

    Args:
        count: number of vectors.
        mean: `[in_dim]`.
        scatter: `[in_dim, in_dim]`, the sum of (x - mean)(x - mean)^T. Kept centred, so that a large mean costs
            no precision (Chan, Golub & LeVeque 1983).
        gradients: moments of an objective's gradient at the layer's outputs, before the activation, `[out_dim]`; None
            if no objective was given. Their `second` is the output side of the Gauss-Newton matrix as in K-FAC (Martens
            & Grosse 2015): how much the objective moves with which output.

    >>> m = Moments.of(np.array([[1.0, 0.0], [3.0, 0.0]]))
    >>> m.count, m.mean.tolist(), m.covariance.tolist()
    (2, [2.0, 0.0], [[1.0, 0.0], [0.0, 0.0]])
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray
    gradients: Moments | None = None

    @classmethod
    def of(cls, x: np.ndarray, mask: np.ndarray | None = None) -> Moments:
        """The moments of `x [..., in_dim]`.

        Args:
            x: vectors; all leading axes count vectors.
            mask: `[...]`, true where a vector counts; padding is left out.

        Raises:
            ValueError: if the mask has another shape than the leading axes of x.
        """
        x = np.asarray(x)
        if mask is not None:
            mask = np.asarray(mask)
            if mask.shape != x.shape[:-1]:
                raise ValueError(f"The mask needs the shape {x.shape[:-1]} of the leading axes of x, got {mask.shape}.")
            x = x[mask.astype(bool)]
        x = x.reshape(-1, x.shape[-1])
        if not len(x):
            return cls(0, np.zeros(x.shape[-1]), np.zeros((x.shape[-1],) * 2))
        mean = x.mean(axis=0, dtype=np.float64)
        centred = x - mean.astype(x.dtype)
        # The rounded mean leaves a rest, which is known exactly: sum (x - m)(x - m)^T, shifted by it.
        rest = centred.mean(axis=0, dtype=np.float64)
        scatter = (centred.T @ centred).astype(np.float64) - len(x) * np.outer(rest, rest)
        return cls(len(x), mean, scatter)

    def __add__(self, other: Moments) -> Moments:
        if len(self.mean) != len(other.mean):
            raise ValueError(f"Moments of {len(self.mean)} and of {len(other.mean)} features do not add up.")
        count = self.count + other.count
        both = [moments.gradients for moments in (self, other) if moments.gradients is not None]
        gradients = both[0] + both[1] if len(both) == 2 else (both or [None])[0]
        if not count:
            return replace(self, gradients=gradients)
        difference = other.mean - self.mean
        mean = self.mean + difference * (other.count / count)
        between = np.outer(difference, difference) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between, gradients)

    def of_features(self, features: np.ndarray) -> Moments:
        """The moments of some of the features, in that order; of gradients at outputs nothing changes."""
        return replace(self, mean=self.mean[features], scatter=self.scatter[np.ix_(features, features)])

    @property
    def covariance(self) -> np.ndarray:
        """Centred second moment `[in_dim, in_dim]`: what matters where a bias can absorb the mean."""
        return self.scatter / max(self.count, 1)

    @property
    def second(self) -> np.ndarray:
        """Second moment about zero `[in_dim, in_dim]`: what matters where there is no bias."""
        return self.covariance + np.outer(self.mean, self.mean)
