"""Sequential refit: layer after layer of a compressed model is fitted once more, now to make up for those before it.

Networks that are fitted one by one are fitted to the inputs that the original gives them, and their errors add up. Here
both models run on the same batches. Every layer in turn, on the inputs x that it really gets, is fitted by least
squares to what is missing, r: its output against the original's or, where its output is added to a residual stream, the
stream against the original's, so that it also makes up for what was lost on the stream before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.dense_maps import kernel_of, put_kernel
from tncompress.conversion.events import observed
from tncompress.conversion.masks import Mask, check_mask
from tncompress.conversion.refit_data import HELD_OUT, checked_data
from tncompress.conversion.streams import Part, Streams, gathered, stream_of
from tncompress.conversion.structures import as_floats
from tncompress.conversion.sums import find_sums
from tncompress.fitting.als import als
from tncompress.fitting.fit import fit, metrics_of
from tncompress.fitting.moments import Moments
from tncompress.forms.low_rank import is_low_rank
from tncompress.layers.dense import TNDense
from tncompress.layers.pivoted import TNPivoted, pivoted
from tncompress.progress import progress_bar

# Of the mean variance: what inputs share by chance, or hardly ever do, is no reason to leave the kernel. Far more than
# the rounding of moments asks for, because a refit sees few batches, and the present kernel is a good guess.
RIDGE = 0.1
SWEEPS = 8  # of alternating least squares at most, from the cores as they are


@dataclass(frozen=True)
class Refitted:
    """What a refit did to one layer.

    Args:
        before, after: root mean square over the vectors and outputs of held-out batches of what is missing, weighted
            by the moments of gradients if there are any; after: with the new weights, whether they stayed or not.
        taken: the new weights miss less and stayed; else the layer is as it was.
        residual: fitted to the original's residual stream; else to the original's output of the layer.
    """

    before: float
    after: float
    taken: bool
    residual: bool


def refit(
    model: keras.Model,
    small: keras.Model,
    data: Any,
    *,
    paths: Sequence[str],
    units: Mapping[str, np.ndarray] | None = None,
    gradients: Mapping[str, Moments] | None = None,
    mask: Mask = None,
    held_out: float = HELD_OUT,
    progress: bool | None = None,
) -> dict[str, Refitted]:
    """Fit layers of a compressed model once more, in place, one after the other, each against the original model.

    The new kernel is W + (C + ridge)^-1 E[x^T r], all about the mean where there is a bias, with a small ridge towards
    the present W; then the layer's network is fitted to it under C + ridge (and S), which together is the least-squares
    fit of the network to what is missing. A layer that does not miss less on held-out batches is put back as it was.

    Args:
        model: the original.
        small: its compressed copy. Cores, kernels and biases of the layers at `paths` change, nothing else.
        data: as for `tncompress.calibrate`; they are gone over once for every layer, or group of layers with the same
            input. One array is cut into batches so small that some can be held out. Moments are kept, and what the
            next pass would compute again.
        paths: of dense layers and networks in `small` that may be refitted.
        units: of layers that have fewer outputs than the original's: which of them theirs are.
        gradients: moments of an objective's gradient at the outputs of the original's layers, the metric S in which
            errors are weighed; None: all outputs alike.
        mask: which positions count, see `tncompress.calibrate`.
        held_out: fraction of the batches that only judge, evenly spread over the data.
        progress: show a bar; None: if it runs long in a terminal.

    Returns:
        By path, in the order in which the layers were refitted.

    Raises:
        ValueError: before anything is changed, if the data are moments, can be gone over only once or are too few
            batches, or a layer is not called; if a layer sees NaN or infinity, the layers before it stay refitted.

    Source: layer-wise reconstruction against the original's outputs on the compressed model's own inputs, as in
        He et al. 2017, arXiv:1707.06168, section 3, and Frantar & Alistarh 2022, arXiv:2208.11580, section 6.

    Example:
        small = replace_dense(model, 0.3, calibration=batches)
        paths = list(tncompress.report(small).recipe)
        results = refit(model, small, batches, paths=paths)
    """
    check_mask(mask)
    data = _checked(data, held_out)
    streams = Streams(stream_of(model, paths), stream_of(small, paths), data, mask, units or {}, held_out)
    done: dict[str, Refitted] = {}
    for group in progress_bar(_groups(streams, paths), "Refitting", shown=progress):
        for part, seen in zip(group, gathered(streams, group), strict=True):
            done[part.path] = _refitted(streams, part, seen, (gradients or {}).get(part.path))
    return done


def _checked(data: Any, held_out: float) -> Any:
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is the fraction of batches that only judge, between 0 and 1, got {held_out}.")
    if isinstance(data, Mapping) and any(isinstance(given, Moments) for given in data.values()):
        raise ValueError("A refit runs both models, so it needs batches of inputs; moments alone do not do.")
    if isinstance(data, Iterator):
        raise ValueError("A refit goes over the data once for every layer; give a list of batches or a dataset.")
    return checked_data(data, held_out, advice=f", or {'a larger' if held_out < 0.5 else 'another'} held_out")


# -- which layers, in which order ------------------------------------------------------------------


def _groups(streams: Streams, paths: Sequence[str]) -> list[list[Part]]:
    """In the order of calls; neighbours with the same input together, but for those that enter the same sum."""
    small, sample = streams.small, streams.sample
    inputs = observed(small.model, {path: small.layers[path] for path in paths}, sample)
    # Fewer outputs than the original's are no residual stream.
    sums = find_sums(small.model, small.layers, [path for path in paths if path not in streams.units], sample)
    groups: list[list[Part]] = []
    before = None
    for event, value in inputs.items():
        if event.number:
            continue
        part = Part(event.path, sum(other.path == event.path for other in inputs), sums.get(event.path))
        value = as_floats(value)
        is_alike = part.calls == 1 and before is not None and np.array_equal(value, before)
        if is_alike and (part.sum is None or part.sum not in [other.sum for other in groups[-1]]):
            groups[-1].append(part)
        else:
            groups.append([part])
        before = value if part.calls == 1 else None
    for path in set(paths) - {part.path for group in groups for part in group}:
        raise ValueError(f"The model never calls the layer {path!r} on the first batch of the refit; exclude it.")
    return groups


# -- one layer -------------------------------------------------------------------------------------


def _refitted(streams: Streams, part: Part, seen: tuple[Moments, Moments], gradient: Moments | None) -> Refitted:
    """Fit one layer to what it misses, and put it back as it was unless it misses less of what was held out."""
    layer, units = streams.small.layers[part.path], streams.units.get(part.path)
    fitting, judging = seen
    weights, kernel, centred = layer.get_weights(), _kernel(layer), layer.bias is not None
    ins, outs = slice(len(kernel)), slice(len(kernel), None)
    if gradient is not None and units is not None:
        gradient = gradient.of_features(units)
    inputs = Moments(fitting.count, fitting.mean[ins], fitting.scatter[ins, ins], gradient)
    inputs = _with_ridge(inputs, centred)
    metric, out_metric = metrics_of(inputs, centred)
    cross = fitting.scatter[ins, outs] / fitting.count
    if not centred:
        cross = cross + np.outer(fitting.mean[ins], fitting.mean[outs])
    before = _missing(judging, np.zeros(kernel.shape), 0.0, out_metric)
    _put_kernel(layer, kernel + np.linalg.solve(metric, cross), inputs, metric, out_metric)
    change, shift = _kernel(layer) - kernel, 0.0
    if centred:
        shift = fitting.mean[outs] - fitting.mean[ins] @ change
        layer.bias.assign_add(shift.reshape(layer.bias.shape))
    if part.calls > 1:  # its own calls change what it gets
        judging = gathered(streams, [part], judging_only=True)[0][1]
        change, shift = np.zeros(kernel.shape), 0.0
    after = _missing(judging, change, shift, out_metric)
    taken = after < before
    if not taken:
        layer.set_weights(weights)
    return Refitted(before, after, taken, part.sum is not None)


def _with_ridge(moments: Moments, centred: bool) -> Moments:
    """The ridge as a part of the moments: so it holds in the fit of the network as it does in the least squares."""
    dim = len(moments.mean)
    power = float(np.trace(moments.covariance if centred else moments.second)) / dim
    ridge = RIDGE * power or 1.0  # nothing ever varied: any will do
    return replace(moments, scatter=moments.scatter + moments.count * ridge * np.eye(dim))


def _missing(moments: Moments, change: np.ndarray, shift: Any, out_metric: np.ndarray | None) -> float:
    """Root mean square of r - x change - shift over vectors and outputs, from the moments of (x, r)."""
    combined = np.vstack([-change, np.eye(change.shape[1])])
    mean = moments.mean @ combined - shift
    second = combined.T @ moments.covariance @ combined + np.outer(mean, mean)
    energy = np.trace(second) if out_metric is None else np.vdot(second, out_metric)
    return float(np.sqrt(max(energy, 0.0) / change.shape[1]))


def _kernel(layer: keras.layers.Layer) -> np.ndarray:
    return (layer.to_dense() if isinstance(layer, TNDense) else kernel_of(layer)).astype(np.float64)


def _put_kernel(
    layer: keras.layers.Layer,
    kernel: np.ndarray,
    moments: Moments,
    metric: np.ndarray,
    out_metric: np.ndarray | None,
) -> None:
    """Give a layer the weights that stand best for a kernel."""
    if not isinstance(layer, TNDense):
        return put_kernel(layer, kernel, None)
    spec = layer.spec
    if spec.core_shapes == (kernel.shape,):
        cores = [kernel]
    elif is_low_rank(spec):
        cores = fit(kernel, spec, moments, form="low_rank", centred=layer.bias is not None).cores
    else:
        start = [ops.convert_to_numpy(core) for core in layer.cores]
        cores, _ = als(kernel, spec, start, metric, out_metric, sweeps=SWEEPS, tolerance=1e-3)
    if isinstance(layer, TNPivoted):
        cores, order = pivoted(*cores)
        layer.order.assign(order)
    for variable, core in zip(layer.cores, cores, strict=True):
        variable.assign(core)
