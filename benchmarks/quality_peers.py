"""The methods that `quality.py` compares with: each makes dense kernels out of a model's, under a budget of parameters.

Truncated SVD in four metrics: plain; activation-scaled (ASVD, Yuan et al. 2023, arXiv:2312.05821: inputs weighted by
mean |x|^0.5); Fisher-weighted (FWSVD, Hsu et al. 2022, arXiv:2207.00112: inputs weighted by the squared gradients of
their weights, here of the objective, so without labels); whitened (SVD-LLM, Wang et al. 2024, arXiv:2403.07378: the
Cholesky factor of the inputs' second moment). And two packages, where they are installed: tensorly-torch's
`from_linear` and t3f's `to_tt_matrix`, both with three cores; pip install tensorly tensorly-torch t3f. (The default of
from_linear, CP, takes many minutes for one kernel at such ranks, so it is no row.)

Every layer keeps the same fraction and its bias, as published. Parameters are those of the factors.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

ALPHA = 0.5  # ASVD's exponent of mean |x|
SMALL = 1e-6  # ASVD's and SVD-LLM's, against division by 0
MODES = 3  # cores of a tensor train


@dataclass(frozen=True, eq=False)
class Seen:
    """What the metrics of the peers need to know of a layer.

    Args:
        second: E[x x^T] of its inputs, `[in_dim, in_dim]`.
        magnitude: E|x|, `[in_dim]`.
        fisher: of every input the sum over the outputs of squared gradients of the weights, `[in_dim]`.
    """

    second: np.ndarray
    magnitude: np.ndarray
    fisher: np.ndarray


@dataclass(frozen=True, eq=False)
class Approximation:
    """A kernel `[in_dim, out_dim]`, and what its factors cost: parameters, and FLOPs a token."""

    kernel: np.ndarray
    params: int
    flops: int


Peer = Callable[[np.ndarray, Seen, float], Approximation]  # kernel, what was seen, fraction to keep


def look(encoder, calibration: Mapping[str, Any], batches: Sequence[dict], objective: Callable, every: int = 3) -> dict:
    """`Seen` by path, for the layers of a calibration.

    Args:
        encoder: the dense model.
        calibration: moments by path.
        batches: of inputs; `every` third is looked at.
        objective: of outputs and batch. Signs of mean 0 on its values make the squared gradient of a batch the sum of
            those of its values, in expectation.
    """
    import tensorflow as tf

    from tncompress.conversion.dense_maps import dense_map
    from tncompress.conversion.walking import locate
    from tncompress.conversion.watching import watched

    layers = locate(encoder, list(calibration))
    maps = {path: dense_map(layer) for path, layer in layers.items()}
    kernels = [layer.kernel.value for layer in layers.values()]
    sums = {path: np.zeros(found.in_dim) for path, found in maps.items()}
    fisher, count = {path: total.copy() for path, total in sums.items()}, 0
    draw = np.random.default_rng(0)
    for batch in batches[::every]:
        mask = batch["input_mask"] > 0

        def see(path: str, x, mask=mask) -> None:
            rows = np.asarray(x, np.float64).reshape(mask.size, -1)  # [tokens, in_dim]
            sums[path] += np.abs(rows[mask.ravel()]).sum(axis=0)

        with tf.GradientTape() as tape, watched(layers, see):
            values = objective(encoder(batch, training=False), batch)
            projected = tf.reduce_sum(values * draw.choice(np.array([-1, 1], "float32"), values.shape))
        for (path, found), gradient in zip(maps.items(), tape.gradient(projected, kernels), strict=True):
            matrix = gradient.numpy().astype(np.float64).transpose(found.order).reshape(found.in_dim, found.out_dim)
            fisher[path] += np.square(matrix).sum(axis=1)
        count += mask.sum()
    return {path: Seen(calibration[path].second, sums[path] / count, fisher[path]) for path in layers}


# -- truncated SVD in a metric ---------------------------------------------------------------------


def scaled_svd(kernel: np.ndarray, keep: float, scale: np.ndarray) -> Approximation:
    """The kernel W' of its rank with the smallest ||scale (W - W')||, for an invertible `scale [in_dim, in_dim]`."""
    rank = max(1, int(keep * kernel.size / sum(kernel.shape)))
    left, values, right = np.linalg.svd(scale @ kernel, full_matrices=False)
    params = rank * sum(kernel.shape)
    return Approximation(np.linalg.solve(scale, left[:, :rank] * values[:rank]) @ right[:rank], params, 2 * params)


def whitening(second: np.ndarray) -> np.ndarray:
    """L^T with L L^T = E[x x^T]; as SVD-LLM's code, a little of the identity is added where that does not exist."""
    try:
        return np.linalg.cholesky(second).T
    except np.linalg.LinAlgError:
        lift = SMALL - np.linalg.eigvalsh(second)[0]
        return np.linalg.cholesky(second + lift * np.eye(len(second))).T


# -- packages --------------------------------------------------------------------------------------


def t3f_tensor_train(kernel: np.ndarray, seen: Seen, keep: float) -> Approximation:
    """TT-SVD of t3f, with one cap on all ranks: the largest that the budget has room for."""
    import t3f

    spec = _tensor_train(kernel.shape, lambda spec: spec.num_params <= keep * kernel.size)
    train = t3f.to_tt_matrix(kernel.astype("float32"), (_ins(spec), _outs(spec)), max_tt_rank=max(_ranks(spec)))
    params = sum(int(np.prod(core.shape)) for core in train.tt_cores)
    return Approximation(t3f.full(train).numpy(), params, _flops(spec))


def _tensor_train(shape: tuple[int, int], fits: Callable):
    """The tensor train in the most balanced splits with the largest cap on its ranks that fits."""
    from tncompress.forms.form import factorizations
    from tncompress.forms.tt_matrix import max_ranks, spec

    ins, outs = (factorizations(size, MODES)[0] for size in shape)
    return max(
        (made for cap in range(1, max(max_ranks(ins, outs)) + 1) if fits(made := spec(ins, outs, cap))),
        key=lambda made: made.num_params,
    )


def _ins(spec) -> tuple[int, ...]:
    return spec.shape(spec.inputs)


def _outs(spec) -> tuple[int, ...]:
    return spec.shape(spec.outputs)


def _ranks(spec) -> list[int]:
    return [spec.size[bond] for bond in spec.bonds]


def from_linear(factorization: str) -> Peer:
    """tensorly-torch's `FactorizedLinear.from_linear`, its rank given as a fraction, in its own splits."""

    def fit(kernel: np.ndarray, seen: Seen, keep: float) -> Approximation:
        import torch
        from tltorch import FactorizedLinear

        linear = torch.nn.Linear(*kernel.shape, bias=False)
        linear.weight.data = torch.tensor(kernel.T.astype("float32"))
        rank = _fraction(kernel.shape, keep, factorization)
        layer = FactorizedLinear.from_linear(
            linear, rank, n_tensorized_modes=MODES, bias=False, factorization=factorization
        )
        dense = layer.weight.to_matrix().detach().numpy().T
        return Approximation(dense, _numel(layer), _flops(_spec_of(layer, factorization)))

    return fit


@cache
def _fraction(shape: tuple[int, int], keep: float, factorization: str) -> float:
    """The `rank=` whose factors are nearest to the budget: the package rounds it, up or down, by much."""
    from tltorch import FactorizedLinear
    from tltorch.utils import get_tensorized_shape

    splits = get_tensorized_shape(*shape, order=MODES, min_dim=2, verbose=False)

    def miss(rank: float) -> float:
        return abs(_numel(FactorizedLinear(*splits, bias=False, factorization=factorization, rank=rank)) - keep * size)

    size = shape[0] * shape[1]
    return min(keep * np.geomspace(0.5, 4, 100), key=miss)


def _numel(layer) -> int:
    return sum(parameter.numel() for parameter in layer.weight.parameters())


def _spec_of(layer, factorization: str):
    """The network that a factorised layer is, for its FLOPs in the cheapest order."""
    from tncompress.forms.tt_matrix import spec
    from tncompress.network.spec import Spec

    shapes = [tuple(parameter.shape) for parameter in layer.weight.parameters()]
    if factorization == "blocktt":
        return spec([core[2] for core in shapes], [core[1] for core in shapes], [core[3] for core in shapes[:-1]])
    names = [f"o{k}" for k in range(MODES)] + [f"i{k}" for k in range(MODES)]
    core, factors = shapes[0], shapes[1:]
    sizes = {name: factor[0] for name, factor in zip(names, factors, strict=True)}
    ranks = {f"r{name}": rank for name, rank in zip(names, core, strict=True)}
    cores = ", ".join([" ".join(ranks), *(f"{name} r{name}" for name in names)])
    return Spec.parse(f"{' '.join(names[MODES:])}, {cores} -> {' '.join(names[:MODES])}", {**sizes, **ranks})


def _flops(spec, batch: int = 1024) -> int:
    from tncompress.network.cost import cost

    return cost(spec, batch).flops // batch


PEERS: dict[str, Peer] = {
    "SVD": lambda kernel, seen, keep: scaled_svd(kernel, keep, np.eye(len(kernel))),
    "ASVD": lambda kernel, seen, keep: scaled_svd(kernel, keep, np.diag(seen.magnitude**ALPHA + SMALL)),
    "FWSVD": lambda kernel, seen, keep: scaled_svd(kernel, keep, np.diag(np.sqrt(seen.fisher) + SMALL)),
    "SVD-LLM": lambda kernel, seen, keep: scaled_svd(kernel, keep, whitening(seen.second)),
    "tensorly-torch BlockTT": from_linear("blocktt"),
    "tensorly-torch Tucker": from_linear("tucker"),
    "t3f TT-SVD": t3f_tensor_train,
}


def approximated(
    name: str, kernels: Mapping[str, np.ndarray], seen: Mapping[str, Seen], keep: float
) -> tuple[dict[str, Approximation], float]:
    """Every kernel as the peer has it, by path, and the processor seconds that took.

    Raises:
        RuntimeError: the package is missing or fails; the message is the reason.
    """
    start = time.process_time()
    try:
        found = {path: PEERS[name](kernel, seen[path], keep) for path, kernel in kernels.items()}
    except ImportError as error:
        raise RuntimeError(f"not installed ({error})") from None
    except Exception as error:  # whatever a package says with other packages' versions than it was made for
        raise RuntimeError(f"fails with these versions: {(str(error) or repr(error)).splitlines()[0]}") from None
    return found, time.process_time() - start
