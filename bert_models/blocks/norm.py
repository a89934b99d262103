"""LayerNorm that holds less in training."""

from functools import lru_cache
from typing import Any

import keras
from keras import ops

from tncompress.layers.recompute import holding_arguments


@keras.saving.register_keras_serializable(package="bert_models")
class LayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization`, of which training with TensorFlow holds the input alone.

    Keras's own also holds the inputs' scale, a tensor of their shape. Means and variances are computed twice, in no
    measurable time.

    Source: Ba et al. 2016, arXiv:1607.06450.

    >>> LayerNorm(epsilon=0.0)(ops.array([[1.0, 3.0]]), training=True).numpy().tolist()
    [[-1.0, 1.0]]
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training or keras.backend.backend() != "tensorflow" or self.gamma is None or self.beta is None:
            return super().call(inputs)
        outputs = _normalization(tuple(self.axis), self.epsilon)(inputs, self.gamma, self.beta)
        return ops.cast(outputs, self.compute_dtype)


@lru_cache(maxsize=64)
def _normalization(axis: tuple[int, ...], epsilon: float) -> Any:
    return holding_arguments(lambda x, gamma, beta: ops.layer_normalization(x, gamma, beta, list(axis), epsilon))
