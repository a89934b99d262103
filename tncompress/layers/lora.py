"""`TNLora`: a frozen network with a trainable low-rank map beside it."""

import keras
from keras import ops

from tncompress.layers.dense import TNDense
from tncompress.layers.pivoted import TNPivoted


class _Lora:
    """What a layer becomes by `enable_lora`. See `TNLora`."""

    lora_rank: int
    lora_alpha: float
    lora_enabled = True

    def __init__(self, *args, lora_rank, lora_alpha=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.lora_rank, self.lora_alpha = lora_rank, lora_rank if lora_alpha is None else lora_alpha

    def build(self, input_shape):
        super().build(input_shape)
        self.add_map("he_uniform", "zeros")

    def add_map(self, a_initializer, b_initializer) -> None:
        """Add the weights, and freeze the cores."""
        shapes = {"a": (self.spec.in_dim, self.lora_rank), "b": (self.lora_rank, self.spec.out_dim)}
        initializers = {"a": a_initializer, "b": b_initializer}
        for part, shape in shapes.items():
            # float32, as in Keras: small steps would be lost in half precision.
            weight = self.add_weight(
                name=f"lora_kernel_{part}",
                shape=shape,
                initializer=keras.initializers.get(initializers[part]),
                dtype="float32",
                regularizer=self.core_regularizer,
            )
            setattr(self, f"lora_kernel_{part}", weight)
        for core in self.cores:
            core.trainable = False

    def mapped(self, x, activation):
        y = super().mapped(x, None)
        beside = ops.matmul(ops.matmul(x, self.lora_kernel_a), self.lora_kernel_b)
        y = ops.add(y, ops.multiply(beside, self.lora_alpha / self.lora_rank))
        return y if activation is None else activation(y)

    def to_dense(self):
        a, b = (ops.convert_to_numpy(weight) for weight in (self.lora_kernel_a, self.lora_kernel_b))
        return super().to_dense() + (self.lora_alpha / self.lora_rank) * (a @ b)

    def get_config(self):
        return {**super().get_config(), "lora_rank": self.lora_rank, "lora_alpha": self.lora_alpha}


@keras.saving.register_keras_serializable(package="tncompress")
class TNLora(_Lora, TNDense):
    """`TNDense` with frozen cores, plus `x A B alpha / rank` with A `[in_dim, rank]` and B `[rank, out_dim]` to train.

    Args:
        spec and others: as in `TNDense`.
        lora_rank: of the map beside the network.
        lora_alpha: its scale is `lora_alpha / lora_rank`; None: 1.

    Source: Hu et al. 2021, arXiv:2106.09685; arguments as in `keras.layers.Dense`.

    >>> from tncompress.forms import low_rank
    >>> layer = TNLora(low_rank.spec(8, 6, rank=2), lora_rank=1)
    >>> tuple(layer(ops.ones((3, 8))).shape), [weight.name for weight in layer.trainable_weights]
    ((3, 6), ['bias', 'lora_kernel_a', 'lora_kernel_b'])
    """


@keras.saving.register_keras_serializable(package="tncompress")
class TNLoraPivoted(_Lora, TNPivoted):
    """`TNPivoted` likewise."""


_BECOMES = {TNDense: TNLora, TNPivoted: TNLoraPivoted}


def enable_lora(layer: TNDense, rank: int, lora_alpha=None, a_initializer="he_uniform", b_initializer="zeros") -> None:
    """Turn a layer into one with a low-rank map beside it; see `Adaptable.enable_lora`."""
    if not layer.built:
        raise ValueError(f"{layer.name} is not built, so it has no cores yet; call the model once.")
    if type(layer) not in _BECOMES:
        raise ValueError(
            f"{layer.name}: a {type(layer).__qualname__} takes no LoRA, which goes beside trainable cores, once."
        )
    if layer.core_constraint is not None:
        raise ValueError(f"{layer.name} has a constraint on its cores, which a map beside them would evade; remove it.")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"{layer.name}: rank is a whole number, at least 1, got {rank!r}.")
    layer.__class__ = _BECOMES[type(layer)]
    layer.lora_rank, layer.lora_alpha = rank, rank if lora_alpha is None else lora_alpha
    layer._tracker.unlock()
    try:
        layer.add_map(a_initializer, b_initializer)
    finally:
        layer._tracker.lock()
