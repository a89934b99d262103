"""How long layers take here, side by side: compiled as models are, interleaved, so that a noisy moment hits all."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import keras
import numpy as np

ROUNDS = 7
SLICE = 0.01  # seconds that one candidate runs at least in each round


def time_layers(layers: Mapping[str, keras.layers.Layer], in_shape: Sequence[int], tokens: int) -> dict[str, float]:
    """Median seconds of one call of each layer on `[tokens, *in_shape]`, in inference.

    On a processor it is the time that this process uses, whatever else runs on the machine; on an accelerator the time
    until the result is there.

    Args:
        layers: built, by any names; all take the same inputs.
        in_shape: trailing axes of the inputs.
        tokens: vectors at once.

    >>> dense = keras.layers.Dense(8)
    >>> dense.build((None, 4))
    >>> 0 < time_layers({"dense": dense}, (4,), tokens=2)["dense"] < 1
    True
    """
    policy = next(iter(layers.values())).dtype_policy
    x = np.random.default_rng(0).normal(size=(tokens, *in_shape)).astype("float32")
    inputs = keras.ops.convert_to_tensor(x, policy.compute_dtype)
    clock = _clock()
    calls = {name: _compiled(layer, inputs) for name, layer in layers.items()}
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
