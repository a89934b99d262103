"""How long layers take here, side by side: compiled as models are, interleaved, so that a noisy moment hits all."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import keras
import numpy as np

from tncompress.conversion.dense_maps import dense_map
from tncompress.layers.dense import TNDense

ROUNDS = 7
SLICE = 0.01  # seconds that one candidate runs at least in each round


def time_layers(layers: Mapping[str, keras.layers.Layer], tokens: int) -> dict[str, float]:
    """Median seconds of one call of each layer on so many vectors, in inference.

    On a processor it is the time that this process uses, whatever else runs on the machine; on an accelerator the time
    until the result is there.

    Args:
        layers: built dense layers or networks, by any names.
        tokens: vectors at once.

    >>> dense = keras.layers.Dense(8)
    >>> dense.build((None, 4))
    >>> 0 < time_layers({"dense": dense}, tokens=2)["dense"] < 1
    True
    """
    clock = _clock()
    calls = {name: _compiled(layer, _inputs(layer, tokens)) for name, layer in layers.items()}
    repeats = {}
    for name, call in calls.items():
        call()  # traced, compiled, into the cache
        start = clock()
        call()
        repeats[name] = max(1, round(SLICE / max(clock() - start, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS):
        order = list(calls) if number % 2 else list(reversed(calls))  # A B C, C B A
        for name in order:
            start = clock()
            for _ in range(repeats[name]):
                calls[name]()
            found[name].append((clock() - start) / repeats[name])
    return {name: median(times) for name, times in found.items()}


def _inputs(layer: keras.layers.Layer, tokens: int) -> Any:
    """Normal numbers of the shape in which models have them: features on one axis as rows, else one text."""
    found = layer if isinstance(layer, TNDense) else dense_map(layer)
    is_plain = len(found.in_shape) == len(found.out_shape) == 1 and not isinstance(layer, keras.layers.EinsumDense)
    lead = (tokens,) if is_plain else (1, tokens)
    x = np.random.default_rng(0).normal(size=(*lead, *found.in_shape)).astype("float32")
    return keras.ops.convert_to_tensor(x, layer.compute_dtype)


def _clock() -> Callable[[], float]:
    return time.perf_counter if on_accelerator() else time.process_time


def on_accelerator() -> bool:
    """Whether layers run on a GPU or TPU here."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return bool(tf.config.get_visible_devices("GPU") or tf.config.get_visible_devices("TPU"))
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    import torch

    return torch.cuda.is_available()


def _compiled(layer: keras.layers.Layer, inputs: Any) -> Callable[[], object]:
    """A call that ends when the result is there."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        graph = tf.function(layer)
        wait = on_accelerator()
        return lambda: graph(inputs).numpy() if wait else graph(inputs)
    if backend == "jax":
        import jax

        weights = [[v.value for v in part] for part in (layer.trainable_variables, layer.non_trainable_variables)]
        jitted = jax.jit(lambda given, x: layer.stateless_call(*given, x)[0])
        return lambda: jitted(weights, inputs).block_until_ready()
    import torch

    def call() -> object:
        with torch.no_grad():
            y = layer(inputs)
        return y.cpu() if y.is_cuda else y

    return call
