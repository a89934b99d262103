"""`Problem`: a kernel, a network in its place and the error between them, as contractions over the network's modes.

With D = W - W' the squared error is one of three: ||D||^2; tr(D^T M D) with a metric M `[in_dim, in_dim]` of the
inputs; tr(D^T M D S) with a metric S `[out_dim, out_dim]` of the outputs besides. D stands in it twice: in the second
copy, modes that a metric joins to others have names of their own, with a prime.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tncompress.network.plan import execute, pairwise
from tncompress.network.spec import Modes, Spec

LARGE = 1 << 21  # numbers of a kernel from which errors are products of float32: 4 s of float64 for 1024 x 4096

Tensor = tuple[Modes, np.ndarray]


@dataclass(frozen=True)
class Part:
    """Normal equations of one core in some of its modes.

    Args:
        shared: modes for each value of which there are equations of their own.
        joined: modes of the unknowns.
        terms: positions of the tensors that make the normal matrix, in the order of `Problem.normal_terms`.
    """

    shared: Modes
    joined: Modes
    terms: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Problem:
    """A kernel to be approximated by a spec, in tensors over the spec's modes.

    Block modes are inputs and outputs at once: the network sees only the diagonal blocks of the kernel.
    """

    spec: Spec
    kernel: np.ndarray  # [in_dim, out_dim]
    metric: np.ndarray | None = None  # [in_dim, in_dim]
    out_metric: np.ndarray | None = None  # [out_dim, out_dim]; only beside a metric of the inputs

    # -- the error --------------------------------------------------------------------------------

    @cached_property
    def energy(self) -> float:
        """The squared error of W' = 0."""
        return float(np.vdot(self.kernel, self.weighted))

    def relative_error(self, approximation: np.ndarray) -> float:
        """The squared error over that of W' = 0."""
        if self.energy <= 0:
            return 0.0
        return squared_error(self.kernel, approximation, self.metric, self.out_metric) / self.energy

    # -- tensors ----------------------------------------------------------------------------------

    @cached_property
    def weighted(self) -> np.ndarray:
        """M W S `[in_dim, out_dim]`."""
        return weighted(self.kernel, self.metric, self.out_metric)

    @cached_property
    def open_modes(self) -> Modes:
        """Modes of the kernel as the network sees it: inputs, then outputs that are not block modes."""
        return tuple(dict.fromkeys((*self.spec.inputs, *self.spec.outputs)))

    @cached_property
    def target(self) -> np.ndarray:
        """M W S over `open_modes`."""
        return self._tensor(self.weighted, self.spec.inputs, self.spec.outputs)[1]

    @cached_property
    def split(self) -> frozenset[str]:
        """Modes that have another name in the second copy of the map."""
        modes = set(self.spec.bonds)
        if self.out_metric is not None:  # joins block modes too: blocks of outputs that move one objective
            modes |= set(self.open_modes)
        elif self.metric is not None:
            modes |= set(self.spec.inputs) - set(self.spec.block_modes)
        return frozenset(modes)

    @cached_property
    def metrics(self) -> list[Tensor]:
        """The metrics there are, each over modes of the first copy, then of the second."""
        found = []
        for matrix, modes in ((self.metric, self.spec.inputs), (self.out_metric, self.spec.outputs)):
            if matrix is not None:
                found.append(self._tensor(matrix, modes, self.primed(modes)))
        return found

    @cached_property
    def unseen(self) -> list[Tensor]:
        """A tensor of ones for every block mode that is in no core: the map repeats itself over it."""
        modes = [m for m in self.spec.block_modes if not any(m in core for core in self.spec.cores)]
        return [((m,), np.ones(self.spec.size[m])) for m in modes]

    def primed(self, modes: Modes) -> Modes:
        """The modes as they are called in the second copy."""
        return tuple(f"{m}'" if m in self.split else m for m in modes)

    def _tensor(self, matrix: np.ndarray, rows: Modes, columns: Modes) -> Tensor:
        """A matrix over its modes; one that stands in rows and columns is taken on the diagonal."""
        modes = (*rows, *columns)
        number = {m: k for k, m in enumerate(dict.fromkeys(modes))}
        tensor = matrix.reshape([self.spec.size[m.rstrip("'")] for m in modes])
        return tuple(number), np.einsum(tensor, [number[m] for m in modes], list(number.values()))

    # -- one core, with all others fixed ----------------------------------------------------------

    def seen_by(self, index: int, cores: list[np.ndarray], map_: np.ndarray) -> np.ndarray:
        """A map over `open_modes`, contracted with all cores but one: over the modes of that one."""
        return self._contract(
            [(self.open_modes, map_), *self._others(index, cores), *self.unseen], self.spec.cores[index]
        )

    def normal_product(self, index: int, cores: list[np.ndarray], core: np.ndarray) -> np.ndarray:
        """The normal matrix times one core: through the network, the metrics and back."""
        trial = [core if k == index else c for k, c in enumerate(cores)]
        network = [*zip(self.spec.cores, trial, strict=True), *self.unseen]
        second = [(self.primed(modes), tensor) for modes, tensor in network]
        modes = self.primed(self.open_modes)
        image = self._contract([*self.metrics, (modes, self._contract(second, modes))], self.open_modes)
        return self.seen_by(index, cores, image)

    def normal_equations(self, index: int) -> list[Part]:
        """The parts into which a core's normal equations fall: the matrix is the Kronecker product of the parts'.

        Terms of the network that share no mode make parts of their own, e.g. a metric of the outputs, all of which are
        in this core; modes that stand on both sides of the equations (`shared`) join nothing.
        """
        core = self.spec.cores[index]
        terms = [modes for modes, _ in self._normal_terms(index, None)]
        joined = [m for m in core if m in self.split]
        in_terms = {m for term in terms for m in term}
        shared = [m for m in core if m not in joined and m in in_terms]
        groups = _connected([set(term) - set(shared) for term in terms], [{m, f"{m}'"} for m in joined])
        return [
            Part(
                tuple(m for m in shared if any(m in terms[k] for k in group)),
                tuple(m for m in joined if any(m in terms[k] for k in group)),
                group,
            )
            for group in groups
        ]

    def normal_matrix(self, part: Part, index: int, cores: list[np.ndarray]) -> np.ndarray:
        """The matrix of a part: `[*shared, *joined, *joined']`."""
        terms = self._normal_terms(index, cores)
        return self._contract([terms[k] for k in part.terms], (*part.shared, *part.joined, *self.primed(part.joined)))

    def _normal_terms(self, index: int, cores: list[np.ndarray] | None) -> list[Tensor]:
        """The other cores, once more for the second copy, and the metrics; without arrays if no cores are given."""
        arrays = cores if cores is not None else [None] * len(self.spec.cores)
        others = self._others(index, arrays)
        return [*others, *((self.primed(modes), array) for modes, array in others), *self.unseen, *self.metrics]

    def _others(self, index: int, cores: list) -> list[Tensor]:
        return [(self.spec.cores[k], core) for k, core in enumerate(cores) if k != index]

    def _contract(self, tensors: list[Tensor], wanted: Modes) -> np.ndarray:
        """The tensors multiplied and summed over all modes that are not wanted."""
        size = {m: self.spec.size[m.rstrip("'")] for modes in (*(t[0] for t in tensors), wanted) for m in modes}
        if len(tensors) == 1:
            [(modes, tensor)] = tensors
            number = {m: k for k, m in enumerate(modes)}
            return np.einsum(tensor, list(number.values()), [number[m] for m in wanted])
        steps = pairwise(tuple(modes for modes, _ in tensors), wanted, tuple(sorted(size.items())))
        return execute(steps, [tensor for _, tensor in tensors], wanted, size, np)


def weighted(matrix: np.ndarray, metric: np.ndarray | None, out_metric: np.ndarray | None) -> np.ndarray:
    """M A S for a matrix A `[in_dim, out_dim]`; a metric that is None is left out."""
    seen = matrix if metric is None else metric @ matrix
    return seen if out_metric is None else seen @ out_metric


def squared_error(
    kernel: np.ndarray,
    approximation: np.ndarray | float,
    metric: np.ndarray | None = None,
    out_metric: np.ndarray | None = None,
) -> float:
    """tr(D^T M D S) with D = W - W'; without metrics the Frobenius norm squared."""
    difference = kernel - approximation
    return max(float(np.vdot(difference, weighted(difference, metric, out_metric))), 0.0)


def squared_errors(
    difference: np.ndarray, metrics: Sequence[np.ndarray | None], out_metric: np.ndarray | None
) -> list[tuple[float, float]]:
    """tr(D^T M D) and tr(D^T M D S) for several metrics M of the inputs, with as few products as there can be.

    Args:
        difference: D `[in_dim, out_dim]`, float64.
        metrics: of the inputs; None for the identity.
        out_metric: S; None for the identity.

    Products of large matrices are of float32, as a kernel's own numbers mostly are; sums are of float64.
    """
    dtype = np.float32 if difference.size >= LARGE else np.float64
    given, unit = _scaled(difference, dtype)
    right, out_unit = _times(out_metric, given, dtype, on_the_right=True)
    found = []
    for metric in metrics:
        seen, inner_unit = _times(metric, given, dtype)
        scale = unit**2 * inner_unit
        found.append((scale * _dot(given, seen), scale * out_unit * _dot(right, seen)))
    return found


def _times(
    metric: np.ndarray | None, matrix: np.ndarray, dtype: type, on_the_right: bool = False
) -> tuple[np.ndarray, float]:
    """A metric times a matrix, or a matrix times a metric, in a unit that is told."""
    if metric is None:
        return matrix, 1.0
    scaled, unit = _scaled(metric, dtype)
    return (matrix @ scaled if on_the_right else scaled @ matrix), unit


def _scaled(matrix: np.ndarray, dtype: type) -> tuple[np.ndarray, float]:
    """The matrix with a largest entry of 1, and what it was: gradients' moments may be below what float32 has."""
    if dtype != np.float32:
        return matrix.astype(dtype, copy=False), 1.0
    largest = float(max(matrix.max(initial=0.0), -matrix.min(initial=0.0))) or 1.0
    return np.divide(matrix, largest, out=np.empty(matrix.shape, dtype), casting="same_kind"), largest


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    """Their inner product, summed in float64; squares, so not below zero but by rounding."""
    return max(float(np.einsum("ij,ij->i", a, b).sum(dtype=np.float64)), 0.0)


def _connected(sets: list[set[str]], links: list[set[str]]) -> list[tuple[int, ...]]:
    """Positions of the sets in groups: sets of one group share members, directly or through other sets and links.

    >>> _connected([{"a"}, {"b"}, {"c", "a"}], [{"b", "d"}])
    [(1,), (0, 2)]
    """
    groups: list[tuple[set[str], tuple[int, ...]]] = [(link, ()) for link in links]
    for position, members in enumerate(sets):
        touching = [group for group in groups if group[0] & members]
        groups = [group for group in groups if not group[0] & members]
        positions = tuple(k for _, held in touching for k in held)
        groups.append((members.union(*(held for held, _ in touching)), (*positions, position)))
    return [positions for _, positions in groups]
