"""Alternating least squares for any spec: with all other cores fixed, the map is linear in one core.

The error is tr((W - W')^T M (W - W')) for a kernel W `[in_dim, out_dim]` and a metric M `[in_dim, in_dim]` of the
inputs (the identity if none is given). The normal equations of one core are built by contracting the other cores
twice, and split as far as the core's open modes allow; where they would still be too large they are solved by
conjugate gradients, which only need products with the network. No form is known here.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tncompress.network.plan import execute, pairwise, plan, to_dense
from tncompress.network.spec import Modes, Spec

DIRECT_ENTRIES = 20_000_000  # of the normal equations, at most: 160 MB
DIRECT_FACTOR = 3  # an exact solution is worth so many times the work of a few conjugate-gradient steps
CG_STEPS = 12  # inexact steps do: the next sweep starts where this one stopped


@dataclass(frozen=True, eq=False)
class Problem:
    """A kernel to be approximated by a spec, in tensors over the spec's modes.

    Block modes are inputs and outputs at once: the network sees only the diagonal blocks of kernel and metric.
    """

    spec: Spec
    kernel: np.ndarray  # [in_dim, out_dim]
    metric: np.ndarray | None  # [in_dim, in_dim]

    @cached_property
    def weighted(self) -> np.ndarray:
        """M W `[in_dim, out_dim]`."""
        return self.kernel if self.metric is None else self.metric @ self.kernel

    @cached_property
    def energy(self) -> float:
        """tr(W^T M W): the error of W' = 0."""
        return float(np.vdot(self.kernel, self.weighted))

    @cached_property
    def open_modes(self) -> Modes:
        """Modes of the kernel as the network sees it: inputs, then outputs that are not block modes."""
        return (*self.spec.inputs, *(m for m in self.spec.outputs if m not in self.spec.inputs))

    @cached_property
    def target(self) -> np.ndarray:
        """M W over `open_modes`."""
        shape = (*self.spec.shape(self.spec.inputs), *self.spec.shape(self.spec.outputs))
        return _diagonal(self.weighted.reshape(shape), (*self.spec.inputs, *self.spec.outputs), self.open_modes)

    @cached_property
    def metric_modes(self) -> Modes:
        """Modes of `metric_tensor`: inputs, then the primed inputs that are not block modes."""
        return (*self.spec.inputs, *(_primed(m) for m in self.spec.inputs if m not in self.spec.block_modes))

    @cached_property
    def metric_tensor(self) -> np.ndarray:
        """M over `metric_modes`."""
        assert self.metric is not None
        primed = tuple(m if m in self.spec.block_modes else _primed(m) for m in self.spec.inputs)
        tensor = self.metric.reshape(self.spec.shape(self.spec.inputs) * 2)
        return _diagonal(tensor, (*self.spec.inputs, *primed), self.metric_modes)

    @cached_property
    def unseen(self) -> list[Modes]:
        """Block modes that are in no core: the map repeats itself over them."""
        return [(m,) for m in self.spec.block_modes if not any(m in core for core in self.spec.cores)]


def als(
    kernel: np.ndarray,
    spec: Spec,
    cores: list[np.ndarray],
    metric: np.ndarray | None = None,
    *,
    sweeps: int = 50,
    tolerance: float = 1e-6,
) -> tuple[list[np.ndarray], float]:
    """Improve the cores one after the other until a sweep gains less than `tolerance` of the error.

    Args:
        kernel: `[in_dim, out_dim]`, float64.
        spec: the network.
        cores: where to start.
        metric: `[in_dim, in_dim]`, positive semi-definite; None for the plain Frobenius norm.
        sweeps: at most so many updates of every core.
        tolerance: relative gain of a sweep below which to stop.

    Returns:
        The cores, and the squared error relative to that of the zero map. It never grows from sweep to sweep.
    """
    problem = Problem(spec, kernel, metric)
    cores = [np.array(core, np.float64) for core in cores]
    error = np.inf
    for _ in range(sweeps):
        for index in range(len(cores)):
            cores[index] = _best_core(problem, cores, index)
        cores = _even_norms(cores)
        before, error = error, _relative_error(problem, cores)
        if error < 1e-28 or before - error <= tolerance * error:
            break
    return cores, error


def random_cores(spec: Spec, seed: int) -> list[np.ndarray]:
    """A start: independent normal entries."""
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape) for shape in spec.core_shapes]


def _best_core(problem: Problem, cores: list[np.ndarray], index: int) -> np.ndarray:
    """The core at `index` that is best (or better, by conjugate gradients) with all others fixed."""
    spec = problem.spec
    core = spec.cores[index]
    others = [c for k, c in enumerate(cores) if k != index]
    terms = [c for k, c in enumerate(spec.cores) if k != index]
    seen_elsewhere = {m for term in (*terms, *problem.unseen) for m in term}
    outputs = set(spec.outputs)
    if problem.metric is None:
        joined = [m for m in core if m in spec.bonds]
    else:
        # The metric joins the entries of an input mode too; outputs stay apart, whatever the metric.
        joined = [m for m in core if m not in outputs]
        seen_elsewhere |= set(spec.block_modes)
    shared = [m for m in core if m not in joined and m in seen_elsewhere]
    free = [m for m in core if m not in joined and m not in shared]
    right_side = _einsum(
        problem,
        [problem.open_modes, *terms, *problem.unseen],
        [problem.target, *others, *_ones(problem)],
        (*shared, *joined, *free),
    )
    blocks, unknowns = math.prod(spec.shape(shared)), math.prod(spec.shape(joined))
    modes = (*shared, *joined, *free)
    if not _direct_pays(problem, blocks, unknowns):
        return _by_conjugate_gradients(problem, cores, index, right_side, modes)
    normal = _normal_matrix(problem, terms, others, tuple(shared), tuple(joined))
    solved = _solve(normal.reshape(blocks, unknowns, unknowns), right_side.reshape(blocks, unknowns, -1))
    return np.ascontiguousarray(solved.reshape(spec.shape(modes)).transpose([modes.index(m) for m in core]))


def _direct_pays(problem: Problem, blocks: int, unknowns: int) -> bool:
    """Whether normal equations `[blocks, unknowns, unknowns]` are better built and solved than multiplied with."""
    spec = problem.spec
    product = 2 * plan(spec, spec.in_dim).flops  # through the network and back
    if problem.metric is not None:
        product += 2 * spec.in_dim**2 * spec.out_dim
    small = blocks * unknowns**2 <= DIRECT_ENTRIES
    return small and blocks * unknowns**3 <= DIRECT_FACTOR * CG_STEPS * product


def _normal_matrix(
    problem: Problem, terms: list[Modes], others: list[np.ndarray], shared: Modes, joined: Modes
) -> np.ndarray:
    """The other cores times themselves under the metric: `[*shared, *joined, *joined']`."""
    spec = problem.spec
    with_metric = problem.metric is not None
    split = {*spec.bonds, *(m for m in spec.inputs if with_metric and m not in spec.block_modes)}
    prime = lambda modes: tuple(_primed(m) if m in split else m for m in modes)  # noqa: E731
    all_terms, operands, copies = [*terms, *map(prime, terms)], [*others, *others], 1
    if with_metric:
        all_terms += [*problem.unseen, problem.metric_modes]
        operands += [*_ones(problem), problem.metric_tensor]
    else:  # every copy of the map over an unseen block mode gives the same equations
        copies = math.prod(spec.shape(m for modes in problem.unseen for m in modes))
    return copies * _einsum(problem, all_terms, operands, (*shared, *joined, *prime(joined)))


def _by_conjugate_gradients(
    problem: Problem, cores: list[np.ndarray], index: int, right_side: np.ndarray, modes: Modes
) -> np.ndarray:
    """A few steps from where the core is; the error falls with every one."""
    core = problem.spec.cores[index]
    target = right_side.transpose([modes.index(m) for m in core])
    current = cores[index]
    residual = target - _normal_product(problem, cores, index, current)
    direction, energy = residual, float(np.vdot(residual, residual))
    stop = 1e-24 * float(np.vdot(target, target))
    for _ in range(CG_STEPS):
        if energy <= stop:
            break
        image = _normal_product(problem, cores, index, direction)
        curvature = float(np.vdot(direction, image))
        if curvature <= 0:  # a direction that the metric does not see
            break
        step = energy / curvature
        current = current + step * direction
        residual = residual - step * image
        energy, before = float(np.vdot(residual, residual)), energy
        direction = residual + (energy / before) * direction
    return current


def _normal_product(problem: Problem, cores: list[np.ndarray], index: int, core: np.ndarray) -> np.ndarray:
    """The normal matrix times one core: through the network, the metric and back."""
    spec = problem.spec
    split = set(spec.inputs) - set(spec.block_modes) if problem.metric is not None else set()
    prime = lambda modes: tuple(_primed(m) if m in split else m for m in modes)  # noqa: E731
    trial = [core if k == index else c for k, c in enumerate(cores)]
    seen = prime(problem.open_modes)
    image = _einsum(problem, [*map(prime, spec.cores), *problem.unseen], [*trial, *_ones(problem)], seen)
    if problem.metric is not None:
        metric = (problem.metric_modes, problem.metric_tensor)
        image = _einsum(problem, [metric[0], seen], [metric[1], image], problem.open_modes)
    terms = [c for k, c in enumerate(spec.cores) if k != index]
    others = [c for k, c in enumerate(cores) if k != index]
    return _einsum(
        problem,
        [problem.open_modes, *terms, *problem.unseen],
        [image, *others, *_ones(problem)],
        spec.cores[index],
    )


def _relative_error(problem: Problem, cores: list[np.ndarray]) -> float:
    if problem.energy <= 0:
        return 0.0
    return squared_error(problem.kernel, to_dense(problem.spec, cores), problem.metric) / problem.energy


def squared_error(kernel: np.ndarray, approximation: np.ndarray | float, metric: np.ndarray | None) -> float:
    """tr((W - W')^T M (W - W')), the Frobenius norm squared where there is no metric."""
    difference = kernel - approximation
    weighted = difference if metric is None else metric @ difference
    return max(float(np.vdot(difference, weighted)), 0.0)


def _solve(normal: np.ndarray, right_side: np.ndarray) -> np.ndarray:
    """Solve `[blocks, n, n] x = [blocks, n, columns]`, with a ridge at rounding level for singular equations."""
    size = normal.shape[-1]
    ridge = np.trace(normal, axis1=-2, axis2=-1) / size * 1e-13 + np.finfo(np.float64).tiny
    return np.linalg.solve(normal + ridge[:, None, None] * np.eye(size), right_side)


def _even_norms(cores: list[np.ndarray]) -> list[np.ndarray]:
    """The same product from cores of equal norm: keeps alternating steps from drifting apart."""
    norms = [float(np.linalg.norm(core)) for core in cores]
    if min(norms) == 0:
        return cores
    mean = math.exp(sum(math.log(norm) for norm in norms) / len(norms))
    return [core * (mean / norm) for core, norm in zip(cores, norms, strict=True)]


def _einsum(problem: Problem, terms: list[Modes], operands: list[np.ndarray], wanted: Modes) -> np.ndarray:
    size = {m: problem.spec.size[m.rstrip("'")] for term in (*terms, wanted) for m in term}
    if not operands:  # a single core has no others: the empty product
        return np.ones((1,) * len(wanted))
    if len(operands) == 1:
        return operands[0].transpose([terms[0].index(m) for m in wanted])
    steps = pairwise(tuple(terms), wanted, tuple(sorted(size.items())))
    return execute(steps, operands, wanted, size, np)


def _ones(problem: Problem) -> list[np.ndarray]:
    return [np.ones(problem.spec.shape(modes)) for modes in problem.unseen]


def _primed(mode: str) -> str:
    return f"{mode}'"


def _diagonal(tensor: np.ndarray, modes: Modes, wanted: Modes) -> np.ndarray:
    """The tensor over `wanted`; a mode that stands twice in `modes` is taken on its diagonal."""
    number = {m: k for k, m in enumerate(dict.fromkeys(modes))}
    return np.einsum(tensor, [number[m] for m in modes], [number[m] for m in wanted])
