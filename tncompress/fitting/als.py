"""Alternating least squares for any spec: with all other cores fixed, the map is linear in one core.

The error is that of `Problem`: of the weights, of the outputs, or of what the outputs do to an objective. The normal
equations of one core are built by contracting the other cores twice, and split as far as the core's open modes and
unconnected parts of the network allow; where they would still be too large they are solved by conjugate gradients,
which only need products with the network. No form is known here.
"""

import math

import numpy as np

from tncompress.fitting.problem import Part, Problem
from tncompress.network.plan import plan, to_dense
from tncompress.network.spec import Spec

DIRECT_ENTRIES = 20_000_000  # of the normal equations, at most: 160 MB
DIRECT_FACTOR = 3  # an exact solution is worth so many times the work of a few conjugate-gradient steps
CG_STEPS = 12  # inexact steps do: the next sweep starts where this one stopped


def als(
    kernel: np.ndarray,
    spec: Spec,
    cores: list[np.ndarray],
    metric: np.ndarray | None = None,
    out_metric: np.ndarray | None = None,
    *,
    sweeps: int = 50,
    tolerance: float = 1e-6,
) -> tuple[list[np.ndarray], float]:
    """Improve the cores one after the other until a sweep gains less than `tolerance` of the error.

    Args:
        kernel: `[in_dim, out_dim]`, float64.
        spec: the network.
        cores: where to start.
        metric: of the inputs, `[in_dim, in_dim]`, positive semi-definite; None for the plain Frobenius norm.
        out_metric: of the outputs, `[out_dim, out_dim]`, likewise; only beside a metric of the inputs.
        sweeps: at most so many updates of every core.
        tolerance: relative gain of a sweep below which to stop.

    Returns:
        The cores, and the squared error relative to that of the zero map. It never grows from sweep to sweep.
    """
    problem = Problem(spec, kernel, metric, out_metric)
    cores = [np.array(core, np.float64) for core in cores]
    error = np.inf
    for _ in range(sweeps):
        for index in range(len(cores)):
            cores[index] = _best_core(problem, cores, index)
        cores = _even_norms(cores)
        before, error = error, problem.relative_error(to_dense(spec, cores))
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
    target = problem.seen_by(index, cores, problem.target)  # over the modes of the core
    equations = problem.normal_equations(index)
    if not _direct_pays(problem, equations):
        return _by_conjugate_gradients(problem, cores, index, target)
    # The normal matrix is the Kronecker product of those of the parts: solved one part after the other.
    solution, modes = target, spec.cores[index]
    for part in equations:
        rest = tuple(m for m in modes if m not in (*part.shared, *part.joined))
        order = (*part.shared, *part.joined, *rest)
        solution = solution.transpose([modes.index(m) for m in order])
        blocks, unknowns = _sizes(spec, part)
        normal = problem.normal_matrix(part, index, cores).reshape(blocks, unknowns, unknowns)
        solution = _solve(normal, solution.reshape(blocks, unknowns, -1)).reshape(spec.shape(order))
        modes = order
    return np.ascontiguousarray(solution.transpose([modes.index(m) for m in spec.cores[index]]))


def _sizes(spec: Spec, part: Part) -> tuple[int, int]:
    return math.prod(spec.shape(part.shared)), math.prod(spec.shape(part.joined))


def _direct_pays(problem: Problem, parts: list[Part]) -> bool:
    """Whether normal equations `[blocks, unknowns, unknowns]` are better built and solved than multiplied with."""
    spec = problem.spec
    product = 2 * plan(spec, spec.in_dim).flops  # through the network and back
    if problem.metric is not None:
        product += 2 * spec.in_dim**2 * spec.out_dim
    if problem.out_metric is not None:
        product += 2 * spec.in_dim * spec.out_dim**2
    sizes = [_sizes(spec, part) for part in parts]
    small = all(blocks * unknowns**2 <= DIRECT_ENTRIES for blocks, unknowns in sizes)
    work = sum(blocks * unknowns**3 for blocks, unknowns in sizes)
    return small and work <= DIRECT_FACTOR * CG_STEPS * product


def _by_conjugate_gradients(problem: Problem, cores: list[np.ndarray], index: int, target: np.ndarray) -> np.ndarray:
    """A few steps from where the core is; the error falls with every one."""
    current = cores[index]
    residual = target - problem.normal_product(index, cores, current)
    direction, energy = residual, float(np.vdot(residual, residual))
    stop = 1e-24 * float(np.vdot(target, target))
    for _ in range(CG_STEPS):
        if energy <= stop:
            break
        image = problem.normal_product(index, cores, direction)
        curvature = float(np.vdot(direction, image))
        if curvature <= 0:  # a direction that the metric does not see
            break
        step = energy / curvature
        current = current + step * direction
        residual = residual - step * image
        energy, before = float(np.vdot(residual, residual)), energy
        direction = residual + (energy / before) * direction
    return current


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
