"""What a compressed model is predicted to lose, the same way for every method: ours, and dense kernels of others."""

from collections.abc import Mapping, Sequence

import numpy as np

Weights = tuple[np.ndarray, np.ndarray]  # kernel [in_dim, out_dim] and bias [out_dim]


def predicted_loss(kernels: Mapping[str, Weights], approximations: Mapping[str, Weights], calibration) -> float | None:
    """The sum over layers of tr(E[e e^T] S), e = x (W' - W) + b' - b being the error of a layer's outputs.

    With D = W' - W and d = m D + b' - b that is tr(D^T C D S) + d S d^T: C the covariance of the inputs, m their mean,
    S the second moment of the objective's gradients at the outputs. It is a fraction of the objective's variance.

    Args:
        kernels: of the dense model, by path.
        approximations: likewise; a layer that is the same adds nothing.
        calibration: of `tncompress.calibrate`, with an objective; None if it has none: nothing can be predicted.
    """
    if calibration is None or calibration.energy is None:
        return None
    total = 0.0
    for path, (kernel, bias) in kernels.items():
        moments = calibration[path]
        weight = moments.gradients.second
        difference = approximations[path][0].astype(np.float64) - kernel
        shift = moments.mean @ difference + approximations[path][1] - bias
        squared = np.vdot(difference, moments.covariance @ difference @ weight) + shift @ weight @ shift
        total += float(squared) * moments.gradients.count / calibration.energy
    return total


def weights_of(model, paths: Sequence[str]) -> dict[str, Weights]:
    """Kernels and biases of dense layers, or of networks multiplied out: with fewer hidden units, those."""
    from tncompress.conversion.dense_maps import bias_of, kernel_of
    from tncompress.conversion.walking import locate

    found = {}
    for path, layer in locate(model, list(paths)).items():
        kernel = layer.to_dense() if hasattr(layer, "to_dense") else kernel_of(layer)
        bias = bias_of(layer)
        found[path] = (np.asarray(kernel), np.zeros(kernel.shape[1]) if bias is None else bias)
    return found


def of_all_units(kernels: Mapping[str, Weights], small: Mapping[str, Weights], calibration) -> dict[str, Weights]:
    """Weights of a narrower model among those of the dense one, which then compute the same.

    Hidden units that left take their outgoing weights along; what comes in for them counts as it was.

    Args:
        kernels: of the dense model; a layer that makes hidden units comes before the one that takes them.
        small: of the compressed model.
        calibration: moments by path; only asked for where a layer is narrower.
    """
    found = {}
    units = np.empty(0, int)
    for path, (kernel, bias) in kernels.items():
        narrow_kernel, narrow_bias = small[path]
        if narrow_kernel.shape[0] < kernel.shape[0]:
            narrow_kernel, rows = np.zeros((len(kernel), narrow_kernel.shape[1])), narrow_kernel
            narrow_kernel[units] = rows
        if narrow_kernel.shape[1] < kernel.shape[1]:
            units = matching_columns(kernel, narrow_kernel, calibration[path].covariance)
            columns, shifts = narrow_kernel, narrow_bias
            narrow_kernel, narrow_bias = kernel.astype(np.float64), bias.astype(np.float64)
            narrow_kernel[:, units], narrow_bias[units] = columns, shifts
        found[path] = (narrow_kernel, narrow_bias)
    return found


def matching_columns(kernel: np.ndarray, fewer: np.ndarray, metric: np.ndarray) -> np.ndarray:
    """Which columns of a kernel some others approximate in the same order: those with the largest sum of cosines.

    Args:
        kernel: `[in_dim, out_dim]`.
        fewer: `[in_dim, count]`.
        metric: `[in_dim, in_dim]`, the inputs' covariance.

    >>> matching_columns(np.eye(4), np.eye(4)[:, [0, 2, 3]] + 0.1, np.eye(4))
    array([0, 2, 3])
    """
    products = fewer.T @ metric @ kernel
    lengths = [np.sqrt(np.maximum(np.sum(a * (metric @ a), axis=0), 1e-30)) for a in (fewer, kernel)]
    cosines = products / np.outer(*lengths)
    count, columns = cosines.shape
    best = np.zeros(columns + 1)  # sum of the rows so far, with only so many columns to choose from
    choices = np.zeros((count, columns), int)
    for row in range(count):
        sums = best[:-1] + cosines[row]
        choices[row] = np.maximum.accumulate(np.where(sums >= np.maximum.accumulate(sums), np.arange(columns), 0))
        best = np.concatenate([[-np.inf], np.maximum.accumulate(sums)])
    found = np.empty(count, int)
    last = columns
    for row in reversed(range(count)):
        found[row] = last = choices[row, last - 1]
    return found


def rank_correlation(results: Sequence[Mapping]) -> tuple[float, int]:
    """Spearman's correlation of predicted loss and 1 - cosine, and over how many results."""
    from scipy.stats import spearmanr

    both = [(r["predicted_loss"], 1 - r["cosine"]) for r in results if r.get("predicted_loss") is not None]
    return (float(spearmanr(*zip(*both, strict=True)).statistic) if len(both) > 2 else float("nan")), len(both)
