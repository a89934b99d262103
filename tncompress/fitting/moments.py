"""`Moments`: mean and covariance of what a layer sees, and of the gradient at its outputs, gathered batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tncompress.fitting.packed import Packed


@dataclass(frozen=True, eq=False)
class Moments:
    """First and second moments of vectors `[in_dim]`. Moments of two streams add up: `a + b`.

    Args:
        count: number of vectors.
        mean: `[in_dim]`.
        scatter: `[in_dim, in_dim]`, the sum of (x - mean)(x - mean)^T, an array or `Packed`. Kept centred, so that a
            large mean costs no precision (Chan, Golub & LeVeque 1983).
        gradients: moments of an objective's gradient at the layer's outputs, before the activation, `[out_dim]`; None
            if no objective was given. Their `second` is the output side of the Gauss-Newton matrix as in K-FAC (Martens
            & Grosse 2015): how much the objective moves with which output.

    >>> m = Moments.of(np.array([[1.0, 0.0], [3.0, 0.0]]))
    >>> m.count, m.mean.tolist(), m.covariance.tolist()
    (2, [2.0, 0.0], [[1.0, 0.0], [0.0, 0.0]])
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray | Packed
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
        mean, centred, rest = _about_mean(x)
        return cls(len(x), mean, (centred.T @ centred).astype(np.float64) - len(x) * np.outer(rest, rest))

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
        weight = self.count * other.count / count
        if isinstance(self.scatter, Packed) and isinstance(other.scatter, Packed):
            packed = self.scatter + other.scatter
            packed.add_products((difference * weight**0.5).astype(np.float32)[None])
            return Moments(count, mean, packed, gradients)
        scatter = np.outer(difference, difference * weight)
        scatter += self.scatter
        scatter += other.scatter
        return Moments(count, mean, scatter, gradients)

    def of_features(self, features: np.ndarray) -> Moments:
        """The moments of some of the features, in that order; of gradients at outputs nothing changes."""
        return replace(self, mean=self.mean[features], scatter=np.asarray(self.scatter)[np.ix_(features, features)])

    @property
    def covariance(self) -> np.ndarray:
        """Centred second moment, float64 `[in_dim, in_dim]`: what matters where a bias can absorb the mean."""
        covariance = np.array(self.scatter, np.float64)
        covariance /= max(self.count, 1)
        return covariance

    @property
    def second(self) -> np.ndarray:
        """Second moment about zero, float64 `[in_dim, in_dim]`: what matters where there is no bias."""
        second = np.array(self.scatter, np.float64)
        second += np.outer(self.mean, self.mean * self.count)
        second /= max(self.count, 1)
        return second


BLOCK = 512  # vectors that are gathered before they are multiplied out
CORRECTIONS = 64  # vectors that are gathered before their products are added to the scatter


class Gathering:
    """The moments of vectors that come in any number at a time, added up in place.

    The vectors of many small batches are multiplied out in blocks, so that a wide layer's scatter is not moved through
    memory for each of them. It is kept as float32, every number once: its products are no more exact.

    >>> gathering = Gathering(2)
    >>> for vector in ([1.0, 0.0], [3.0, 0.0]):
    ...     gathering.add(np.array([vector]))
    >>> gathering.moments().covariance.tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """

    def __init__(self, width: int):
        self._count, self._mean, self._scatter = 0, np.zeros(width), Packed(width)
        self._waiting: list[np.ndarray] = []
        self._corrections: list[tuple[float, np.ndarray]] = []  # each a sign and a vector

    def add(self, x: np.ndarray) -> None:
        """Add vectors `[n, width]`, which must stay as they are."""
        if len(x):
            self._waiting.append(x)
        if sum(map(len, self._waiting)) >= BLOCK:
            self._multiply_out()

    def moments(self) -> Moments:
        """Those of all vectors so far; nothing can be added after this."""
        if self._waiting:
            self._multiply_out()
        self._correct()
        return Moments(self._count, self._mean, self._scatter)

    def _multiply_out(self) -> None:
        x = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting = []
        mean, centred, rest = _about_mean(x)
        self._scatter.add_products(np.ascontiguousarray(centred, np.float32))
        count, difference = self._count + len(x), mean - self._mean
        self._corrections += [(-1.0, rest * len(x) ** 0.5), (1.0, difference * (self._count * len(x) / count) ** 0.5)]
        self._mean += difference * (len(x) / count)
        self._count = count
        if len(self._corrections) >= CORRECTIONS:
            self._correct()

    def _correct(self) -> None:
        if self._corrections:
            for sign in (-1.0, 1.0):
                vectors = [vector for which, vector in self._corrections if which == sign]
                self._scatter.add_products(np.array(vectors, np.float32), sign)
            self._corrections = []


def _about_mean(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of vectors `[n, width]`, the vectors about the mean rounded to their dtype, and what the rounding left.

    sum (x - m)(x - m)^T is exactly their products less n rest rest^T.
    """
    mean = x.mean(axis=0, dtype=np.float64)
    centred = x - mean.astype(x.dtype)
    return mean, centred, centred.mean(axis=0, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Spread:
    """How far vectors are from their mean, of which not more is kept than a number. Those of two streams add up.

    Args:
        count: number of vectors.
        mean: `[width]`.
        energy: the sum of ||x - mean||^2.

    >>> both = Spread.of(np.array([[1.0], [2.0]])) + Spread.of(np.array([[6.0]]))
    >>> both.count, both.mean.tolist(), both.energy
    (3, [3.0], 14.0)
    """

    count: int
    mean: np.ndarray
    energy: float

    @classmethod
    def of(cls, x: np.ndarray) -> Spread:
        """That of `x [n, width]`."""
        if not len(x):
            return cls(0, np.zeros(x.shape[1]), 0.0)
        x = x.astype(np.float64)
        mean = x.mean(axis=0)
        return cls(len(x), mean, float(np.sum((x - mean) ** 2)))

    def __add__(self, other: Spread) -> Spread:
        if len(self.mean) != len(other.mean):  # e.g. a number for every token, in batches of other lengths
            return self._of_numbers() + other._of_numbers()
        count = self.count + other.count
        if not count:
            return self
        difference = other.mean - self.mean
        between = float(difference @ difference) * (self.count * other.count / count)
        return Spread(count, self.mean + difference * (other.count / count), self.energy + other.energy + between)

    def _of_numbers(self) -> Spread:
        """The spread of all numbers in the vectors about one mean."""
        mean = self.mean.mean(keepdims=True)
        between = self.count * float(np.sum((self.mean - mean) ** 2))
        return Spread(self.count * len(self.mean), mean, self.energy + between)
