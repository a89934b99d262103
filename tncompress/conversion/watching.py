"""Looking into a model while it runs: what layers get and make, and what happens if they make something else."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras import ops

from tncompress.conversion.dense_maps import dense_map
from tncompress.layers.dense import TNDense

_OF_CLASS = object()  # what a layer does not have itself


class Enough(BaseException):
    """Ends a pass when all has been seen. No `Exception`, which Keras and the model's own code would catch."""


def input_axes(layer: keras.layers.Layer) -> int:
    """Over how many trailing axes of its inputs a layer's features lie."""
    if isinstance(layer, keras.layers.EinsumDense):
        return len(dense_map(layer).in_shape)
    return len(layer.in_shape) if isinstance(layer, TNDense) else 1


@contextlib.contextmanager
def changed_calls(
    layers: Mapping[str, keras.layers.Layer], change: Callable[[str, Callable], Callable]
) -> Iterator[None]:
    """Within the context, the `call` of every layer is `change(path, call)`; of a shared layer by its last path."""
    once = {id(layer): (path, layer) for path, layer in layers.items()}
    before = {key: vars(layer).get("call") for key, (_, layer) in once.items()}
    for path, layer in once.values():
        layer.call = change(path, layer.call)
    try:
        yield
    finally:
        for key, (_, layer) in once.items():
            if before[key] is None:  # its class's own
                del layer.call
            else:  # another change
                layer.call = before[key]


@contextlib.contextmanager
def watched(layers: Mapping[str, keras.layers.Layer], see: Callable[[str, Any], None]) -> Iterator[None]:
    """Within the context, every call of a layer first gives its input to `see(path, input)`: `[..., in_dim]`, or ids.

    Not the calls of a table of embeddings in reverse.
    """

    def watching(path: str, call, axes: int):
        def watched_call(*args, **kwargs):
            given = args[0] if args else kwargs["inputs"]
            if not _is_reverse(args, kwargs):
                see(path, given if axes == 1 else ops.reshape(given, (*given.shape[:-axes], -1)))
            return call(*args, **kwargs)

        return watched_call

    with changed_calls(layers, lambda path, call: watching(path, call, input_axes(layers[path]))):
        yield


@contextlib.contextmanager
def preactivated(layers: Mapping[str, keras.layers.Layer], change: Callable[[str, Any], Any]) -> Iterator[None]:
    """Within the context, every call of a layer goes on with `change(path, y)` in place of its y = x W + bias.

    In the place of what it looks up, where it is a table of embeddings (and not called in reverse).
    """

    def changing(path: str, activation):
        def changed(y):
            y = change(path, y)
            return y if activation is None else activation(y)

        return changed

    def changing_rows(path: str, call):
        def changed_call(*args, **kwargs):
            y = call(*args, **kwargs)
            return y if _is_reverse(args, kwargs) else change(path, y)

        return changed_call

    tables = {path: layer for path, layer in layers.items() if not hasattr(layer, "activation")}
    dense = {id(layer): (path, layer) for path, layer in layers.items() if path not in tables}  # a shared layer once
    own = {key: vars(layer).get("activation", _OF_CLASS) for key, (_, layer) in dense.items()}
    for path, layer in dense.values():
        vars(layer)["activation"] = changing(path, layer.activation)
    try:
        with changed_calls(tables, changing_rows):
            yield
    finally:
        for key, (_, layer) in dense.items():
            if own[key] is _OF_CLASS:  # PyTorch keeps an activation that is a layer elsewhere
                del vars(layer)["activation"]
            else:
                vars(layer)["activation"] = own[key]


def _is_reverse(args: tuple, kwargs: Mapping[str, Any]) -> bool:
    """Whether these are the arguments of a table of embeddings that is called for logits."""
    return kwargs.get("reverse") is True or (len(args) == 2 and args[1] is True)


@contextlib.contextmanager
def answered(layer: keras.layers.Layer, answer: Callable[[Any], Any]) -> Iterator[None]:
    """Within the context the layer gives `answer(inputs)`, and takes inputs of any width."""
    spec, layer.input_spec = layer.input_spec, None
    layer.call = lambda inputs, *_, **__: answer(inputs)
    try:
        yield
    finally:
        del layer.call
        layer.input_spec = spec
