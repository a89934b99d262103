"""Two networks with an activation between them, in training: of what is widest in a transformer one tensor is held."""

from typing import Any

import keras
from keras import ops

from tncompress.layers import fast_paths
from tncompress.layers.dense import TNDense
from tncompress.layers.recompute import contract_activated, recomputed


def holds_less(first: Any, second: Any) -> bool:
    """Whether `trained` is the same function as `second(first(x))` in training, and its gradient holds less."""
    if not (_is_plain(first) and _is_plain(second) and first.compute_dtype == second.compute_dtype):
        return False
    if keras.backend.backend() != "tensorflow" or fast_paths.keeps_axes():
        return False
    # What is done with the layers' outputs outside of `mapped` would be left out.
    outside = (first.activity_regularizer, second.activity_regularizer, second.activation)
    is_plain = all(part in (None, keras.activations.linear) for part in outside)
    return is_plain and recomputed(first.activation) is not first.activation


def _is_plain(layer: Any) -> bool:
    """Whether it is called as `TNDense` is, by its class and by itself."""
    methods = [getattr(type(layer), name, None) for name in ("call", "mapped")]
    return methods == [TNDense.call, TNDense.mapped] and "call" not in vars(layer)


def trained(first: TNDense, second: TNDense, x: Any) -> Any:
    """`second(first(x))`, `[batch, in_dim] -> [batch, out_dim]`, of built layers for which `holds_less`."""
    wide = first.mapped(x, None)
    planned = fast_paths.network_plan(second.spec, x.shape[0])
    modes = ops.reshape(wide, (-1, *second.spec.shape(second.spec.inputs)))
    y = contract_activated(planned, first.activation, modes, second.tensors())
    y = ops.reshape(y, (-1, second.spec.out_dim))
    return y if second.bias is None else ops.add(y, ops.reshape(second.bias, (-1,)))
