"""`TNInt8`: a network whose cores are stored as int8."""

import keras
import numpy as np
from keras import ops

from tncompress.layers.dense import TNDense
from tncompress.layers.pivoted import TNPivoted

LARGEST = 127  # of the whole numbers


class _Int8:
    """What a layer becomes by `quantize("int8")`. See `TNInt8`."""

    def add_weight(self, *args, name=None, shape=None, **kwargs):
        if name is None or not name.startswith("core_"):
            return super().add_weight(*args, name=name, shape=shape, **kwargs)
        scale = super().add_weight(name=f"{name}_scale", shape=(shape[-1],), initializer="ones", trainable=False)
        self.scales = [*getattr(self, "scales", ()), scale]
        return super().add_weight(name=name, shape=shape, initializer="zeros", dtype="int8", trainable=False)

    def tensors(self):
        pairs = ((ops.convert_to_tensor(core), ops.convert_to_tensor(scale)) for core, scale in self._pairs())
        return [ops.multiply(ops.cast(core, scale.dtype), scale) for core, scale in pairs]

    def _pairs(self):
        return zip(self.cores, self.scales, strict=True)

    def store(self, cores) -> None:
        """Take the whole numbers nearest to these cores, by scales of their last axes."""
        for (core, scale), value in zip(self._pairs(), cores, strict=True):
            value = np.asarray(value, "float32")
            largest = np.abs(value).max(axis=tuple(range(value.ndim - 1)))
            unit = np.where(largest > 0, largest / LARGEST, 1.0)
            scale.assign(unit)
            core.assign(np.rint(value / unit).astype("int8"))

    def _rest(self):
        return [weight for weight in (self.bias, getattr(self, "order", None)) if weight is not None]

    def save_own_variables(self, store):
        for k, value in enumerate([*(ops.convert_to_numpy(core) for core in self.tensors()), *self._rest()]):
            store[str(k)] = value

    def load_own_variables(self, store):
        count = len(self.cores)
        self.store([store[str(k)] for k in range(count)])
        for k, weight in enumerate(self._rest(), start=count):
            weight.assign(store[str(k)])


@keras.saving.register_keras_serializable(package="tncompress", name="TNInt8")
class TNInt8(_Int8, TNDense):
    """`TNDense` whose cores are int8, with a float scale for every index of their last axis; not trainable.

    A quarter of the memory of float32. Cores are made floats again where they are used, so that it is no faster.
    Files hold floats, and can be loaded by the layer that it was.

    >>> from tncompress.forms import low_rank
    >>> layer = TNInt8(low_rank.spec(8, 4, rank=2))
    >>> tuple(layer(ops.ones((3, 8))).shape), layer.cores[0].dtype
    ((3, 4), 'int8')
    """


@keras.saving.register_keras_serializable(package="tncompress", name="TNInt8Pivoted")
class TNInt8Pivoted(_Int8, TNPivoted):
    """`TNPivoted` likewise."""


def is_int8(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a network whose cores are int8."""
    return isinstance(layer, _Int8)


_BECOMES = {TNDense: TNInt8, TNPivoted: TNInt8Pivoted}
# Keras makes the names of weights in files of a layer's class, and files hold what the layer was before.
TNInt8.__name__, TNInt8Pivoted.__name__ = TNDense.__name__, TNPivoted.__name__


def quantize(layer: TNDense, mode: str | None, config=None) -> None:
    """Turn a built layer into one with int8 cores; see `Adaptable.quantize`."""
    if not layer.built:
        raise ValueError(f"{layer.name} is not built, so it has no cores yet; call the model once.")
    if type(layer) not in _BECOMES:
        raise NotImplementedError(
            f"{layer.name}: a {type(layer).__qualname__} stays in float; quantize before adding LoRA, and unfold first."
        )
    usual = keras.quantizers.Int8QuantizationConfig().get_config()
    if mode != "int8" or (config is not None and config.get_config() != usual):
        raise NotImplementedError(
            f"{layer.name}: a network is quantized by mode='int8' without settings, got {mode!r}."
        )
    values = [ops.convert_to_numpy(core) for core in layer.cores]
    layer._tracker.unlock()
    try:
        layer.cores.clear()  # which also forgets them
        layer.__class__ = _BECOMES[type(layer)]
        layer.cores = [layer.add_weight(name=f"core_{k}", shape=value.shape) for k, value in enumerate(values)]
    finally:
        layer._tracker.lock()
    layer.store(values)
