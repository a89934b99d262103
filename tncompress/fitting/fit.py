"""`fit`: the cores of a spec that stand best for a dense kernel, on plain weights or on what the layer really sees."""

from dataclasses import dataclass

import numpy as np

from tncompress.fitting.als import als, random_cores
from tncompress.fitting.moments import Moments
from tncompress.fitting.problem import squared_error
from tncompress.forms import Form, get_form
from tncompress.network.plan import to_dense
from tncompress.network.spec import Spec

MOST_STARTS, START_WEIGHTS = 12, 30_000  # random starts at most, and kernel weights that all of them may add up to
SCREENING_SWEEPS, POLISHED = 20, 4  # of every start; so many of the best go on
LARGE_KERNEL = 100_000  # weights; above, one start and few sweeps: most is gained in the first
LARGE_SWEEPS = 4
DAMPING = 1e-4  # of the mean variance: directions that calibration never saw keep their weights as far as is free

Metrics = tuple[np.ndarray | None, np.ndarray | None]  # of the inputs, of the outputs


@dataclass(frozen=True, eq=False)
class Fit:
    """Cores for a kernel W, and how far their product W' is from it.

    Args:
        cores: arrays of the shapes `spec.core_shapes`, in the kernel's dtype.
        bias: `[out_dim]` to be added to the layer's bias: the error at the mean input; None without centring.
        kernel: W.
        approximation: W'.
        metrics: that weight the error.
        method: how the cores were found: `"closed form"` or `"alternating least squares"`, and on what.
    """

    cores: list[np.ndarray]
    bias: np.ndarray | None
    kernel: np.ndarray
    approximation: np.ndarray
    metrics: Metrics
    method: str

    @property
    def weight_error(self) -> float:
        """||W - W'|| / ||W||, Frobenius."""
        return relative_error(self.kernel, self.approximation)

    @property
    def output_error(self) -> float | None:
        """Root mean square of x (W - W') over that of x W, without what a bias absorbs; None without moments."""
        metric, _ = self.metrics
        return None if metric is None else relative_error(self.kernel, self.approximation, metric)

    @property
    def loss_error(self) -> float | None:
        """The same of what they do to the objective, to first order; None without moments of gradients."""
        if self.metrics[1] is None:
            return None
        return relative_error(self.kernel, self.approximation, *self.metrics)


def fit(
    kernel: np.ndarray,
    spec: Spec,
    moments: Moments | None = None,
    *,
    form: str | Form | None = None,
    centred: bool = True,
    sweeps: int | None = None,
    seed: int = 0,
) -> Fit:
    """Find cores for a kernel.

    Without moments the error is that of the weights, ||W - W'||; with them it is that of the outputs,
    E||x W - x W'||^2, taken about the mean if `centred` (the rest goes into the bias: DRONE's problem with the
    centred moment, see docs/fitting.md). With moments of gradients the outputs are weighted by what they do to the
    objective: tr((W - W')^T M (W - W') S), the Gauss-Newton error under K-FAC's assumption that inputs and gradients
    are independent (Martens & Grosse 2015, arXiv:1503.05671).

    Args:
        kernel: `[in_dim, out_dim]`.
        spec: the network; its dimensions must be those of the kernel.
        moments: of the layer's inputs, and of gradients at its outputs if these shall count.
        form: that the spec belongs to, or its name; its closed form is used. None: alternating least squares only.
        centred: the layer has a bias that may change.
        sweeps: of alternating least squares, at most; None to choose by size.
        seed: of the random starts.

    Raises:
        ValueError: if dimensions differ, the kernel is not finite, or there is no such form.

    >>> from tncompress.forms import low_rank
    >>> kernel = np.outer([1.0, 2.0], [1.0, 0.0, 1.0])
    >>> fit(kernel, low_rank.spec(2, 3, rank=1), form="low_rank").weight_error < 1e-12
    True
    """
    kernel = np.asarray(kernel)
    _check(kernel, spec, moments)
    metric = out_metric = None
    if moments is not None:
        metric, out_metric = metrics_of(moments, centred)
    # Where nothing varied the weights are all there is to fit.
    varied = metric is not None and float(np.trace(metric)) > 0
    seen = (metric, out_metric) if varied else (None, None)
    cores, method = _cores(kernel, spec, *seen, get_form(form) if isinstance(form, str) else form, sweeps, seed)
    approximation = to_dense(spec, cores)
    bias = None
    if moments is not None and centred:
        bias = (moments.mean @ (kernel - approximation)).astype(kernel.dtype)
    return Fit(
        [core.astype(kernel.dtype) for core in cores],
        bias,
        kernel,
        approximation,
        (metric, out_metric),
        method=method + (_how(centred, seen[1] is not None) if varied else ""),
    )


def metrics_of(moments: Moments, centred: bool) -> Metrics:
    """What weights the error on the side of the inputs and, where there are gradients, on that of the outputs.

    The latter is damped, since gradients are rarely seen in all directions, and scaled to a mean of 1.
    """
    metric = moments.covariance if centred else moments.second
    if moments.gradients is None:
        return metric, None
    second = moments.gradients.second
    scale = float(np.trace(second)) / len(second)
    return metric, _damped(second / scale) if scale > 0 else None


def quick_error(
    kernel: np.ndarray, spec: Spec, form: Form, metric: np.ndarray | None, out_metric: np.ndarray | None = None
) -> float:
    """Relative squared error of a spec's first approximation, to compare specs before one of them is fitted in full."""
    cores, _ = _closed_form(kernel, spec, metric, out_metric, form)
    if cores is None:
        _, error = als(kernel.astype(np.float64), spec, random_cores(spec, 0), metric, out_metric, sweeps=2)
        return error
    return relative_error(kernel, to_dense(spec, cores), metric, out_metric) ** 2


def _how(centred: bool, two_sided: bool) -> str:
    return ", calibrated" + (" and centred" if centred else "") + (", two-sided" if two_sided else "")


def _cores(
    kernel: np.ndarray,
    spec: Spec,
    metric: np.ndarray | None,
    out_metric: np.ndarray | None,
    form: Form | None,
    sweeps: int | None,
    seed: int,
) -> tuple[list[np.ndarray], str]:
    cores, is_optimal = _closed_form(kernel, spec, metric, out_metric, form) if form else (None, False)
    if cores is not None and is_optimal:
        return cores, "closed form"
    double, damped = kernel.astype(np.float64), (None if metric is None else _damped(metric), out_metric)
    if kernel.size > LARGE_KERNEL:
        if cores is None:  # sweeps without a metric are cheap
            cores, _ = als(double, spec, random_cores(spec, seed), sweeps=sweeps or 10, tolerance=1e-3)
        usual = LARGE_SWEEPS if out_metric is None else 2 * LARGE_SWEEPS  # two metrics are worse conditioned than one
        cores, _ = als(double, spec, cores, *damped, sweeps=sweeps or usual, tolerance=1e-3)
        return cores, "alternating least squares"
    count = max(1, min(MOST_STARTS, START_WEIGHTS // kernel.size))
    random = [random_cores(spec, seed + k) for k in range(count)]
    if cores is None or metric is None:
        cores = _best(double, spec, random if cores is None else [cores], (None, None), sweeps)
    if metric is not None:
        # The best on weights alone may lie in the wrong valley of the outputs' error.
        cores = _best(double, spec, [cores, *random], damped, sweeps)
    return cores, "alternating least squares"


def _best(
    kernel: np.ndarray, spec: Spec, starts: list[list[np.ndarray]], metrics: Metrics, sweeps: int | None
) -> list[np.ndarray]:
    """The best cores that alternating least squares finds from several starts, most of which it gives up early."""
    if len(starts) > POLISHED:
        tried = [als(kernel, spec, start, *metrics, sweeps=SCREENING_SWEEPS) for start in starts]
        starts = [cores for cores, _ in sorted(tried, key=lambda found: found[1])[:POLISHED]]
    polished = [als(kernel, spec, start, *metrics, sweeps=sweeps or 200) for start in starts]
    return min(polished, key=lambda found: found[1])[0]


def _damped(metric: np.ndarray) -> np.ndarray:
    damped = metric.copy()  # wide layers' metrics are large
    damped[np.diag_indices(len(metric))] += DAMPING * np.trace(metric) / len(metric)
    return damped


def _closed_form(
    kernel: np.ndarray, spec: Spec, metric: np.ndarray | None, out_metric: np.ndarray | None, form: Form
) -> tuple[list[np.ndarray] | None, bool]:
    """The form's cores if it has a closed form, and whether they are the best there are."""
    if metric is not None and out_metric is not None and form.decompose_two_sided:
        cores = form.decompose_two_sided(kernel.astype(np.float64), spec, metric, out_metric)
        if cores is not None:
            return cores, True
    if metric is not None and form.decompose_calibrated:
        cores = form.decompose_calibrated(kernel.astype(np.float64), spec, metric)
        if cores is not None:
            return cores, out_metric is None
    if form.decompose:
        # In float64 where alternating least squares goes on from there.
        exact = form.optimal and metric is None
        return form.decompose(kernel if exact else kernel.astype(np.float64), spec), exact
    return None, False


def relative_error(
    kernel: np.ndarray,
    approximation: np.ndarray,
    metric: np.ndarray | None = None,
    out_metric: np.ndarray | None = None,
) -> float:
    """Root of the squared error over that of W' = 0, under the metrics that there are."""
    largest = np.abs(kernel).max()
    if largest == 0:
        return 0.0
    # In units of the largest weight: the squares of float32 numbers soon leave its range.
    difference = (kernel - approximation) / largest
    if metric is None:
        return float(np.linalg.norm(difference) / np.linalg.norm(kernel / largest))
    energy = squared_error(kernel / largest, 0.0, metric, out_metric)
    return float(np.sqrt(squared_error(difference, 0.0, metric, out_metric) / energy)) if energy > 0 else 0.0


def _check(kernel: np.ndarray, spec: Spec, moments: Moments | None) -> None:
    if kernel.shape != (spec.in_dim, spec.out_dim):
        raise ValueError(
            f"The spec {str(spec)!r} maps {spec.in_dim} to {spec.out_dim} features, but the kernel has the shape "
            f"{kernel.shape}. Make the spec for {kernel.shape}."
        )
    if not np.isfinite(kernel).all():
        raise ValueError(f"The kernel {kernel.shape} holds NaN or infinity; nothing can be fitted to it.")
    if moments is not None and len(moments.mean) != spec.in_dim:
        raise ValueError(f"The moments are of {len(moments.mean)} features, but the kernel takes {spec.in_dim}.")
    gradients = moments.gradients if moments is not None else None
    if gradients is not None and len(gradients.mean) != spec.out_dim:
        raise ValueError(
            f"The moments of gradients are of {len(gradients.mean)} features, but the kernel makes {spec.out_dim}."
        )
