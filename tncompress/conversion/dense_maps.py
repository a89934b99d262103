"""`Dense` and `EinsumDense` as the same thing: a matrix and a bias between trailing axes of inputs and outputs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

DenseLayer = keras.layers.Dense | keras.layers.EinsumDense


@dataclass(frozen=True)
class DenseMap:
    """How a layer's kernel is a matrix `[in_dim, out_dim]`.

    Args:
        in_shape: trailing axes of the input that the kernel sums over.
        out_shape: trailing axes of the output that it makes.
        order: axes of the stored kernel, in the order of `in_shape` and `out_shape`.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def in_dim(self) -> int:
        """Features that go in."""
        return math.prod(self.in_shape)

    @property
    def out_dim(self) -> int:
        """Features that come out."""
        return math.prod(self.out_shape)


def dense_map(layer: DenseLayer) -> DenseMap:
    """How a built layer's kernel is a matrix.

    Raises:
        ValueError: if it is none; the message is the reason.

    >>> layer = keras.layers.EinsumDense("bth,hnk->btnk", (None, 2, 3), bias_axes="nk")
    >>> layer.build((None, None, 8))
    >>> dense_map(layer)
    DenseMap(in_shape=(8,), out_shape=(2, 3), order=(0, 1, 2))
    """
    if isinstance(layer, keras.layers.Dense):
        in_dim = getattr(layer.input_spec, "axes", {}).get(-1, 0)
        return DenseMap((in_dim,), (layer.units,), (0, 1))
    shape = tuple(layer.kernel.shape)
    operands, result = layer.equation.replace(" ", "").replace("...", ".").split("->")
    given, stored = operands.split(",")
    summed = [mode for mode in given if mode in stored and mode not in result]
    made = [mode for mode in result if mode in stored]
    lead = given[: len(given) - len(summed)]
    plain = lead and given == lead + "".join(summed) and result == lead + "".join(made)
    if not plain or sorted(stored) != sorted((*summed, *made)):
        raise ValueError(
            f"its equation {layer.equation!r} is no map from the last axes of the input to the last of the output"
        )
    if layer.bias is not None and math.prod(layer.bias.shape) != _product(shape, stored, made):
        raise ValueError(f"its bias is not of all outputs ({layer.equation!r}, bias_axes {layer.bias_axes!r})")
    size = dict(zip(stored, shape, strict=True))
    return DenseMap(
        tuple(size[mode] for mode in summed),
        tuple(size[mode] for mode in made),
        tuple(stored.index(mode) for mode in (*summed, *made)),
    )


def _product(shape: Sequence[int], modes: str, some: Sequence[str]) -> int:
    return math.prod(size for size, mode in zip(shape, modes, strict=True) if mode in some)


def kernel_of(layer: DenseLayer) -> np.ndarray:
    """The kernel `[in_dim, out_dim]`, float32 unless it is float64."""
    found = dense_map(layer)
    kernel = layer.kernel
    array = ops.convert_to_numpy(ops.cast(kernel, "float64" if kernel.dtype == "float64" else "float32"))
    return array.transpose(found.order).reshape(found.in_dim, found.out_dim)


def bias_of(layer: DenseLayer) -> np.ndarray | None:
    """The bias `[out_dim]`; None if there is none."""
    return None if layer.bias is None else ops.convert_to_numpy(layer.bias).reshape(-1)


def put_kernel(layer: DenseLayer, kernel: np.ndarray, bias: np.ndarray | None) -> None:
    """Store a matrix `[in_dim, out_dim]` and a bias `[out_dim]` as the layer has them."""
    found = dense_map(layer)
    array = kernel.reshape(*found.in_shape, *found.out_shape)
    layer.kernel.assign(array.transpose(np.argsort(found.order)))
    if layer.bias is not None and bias is not None:
        layer.bias.assign(bias.reshape(layer.bias.shape))
