"""The feed-forward part of a block: widen, activate, narrow."""

import keras
from keras import ops

from bert_models.config import BertConfig


@keras.saving.register_keras_serializable(package="bert_models")
def gelu_tanh(x):
    """GELU by its tanh approximation, as in the first BERT.  Hendrycks & Gimpel 2016,
    arXiv:1606.08415.

    Registered under a name of its own, because Keras's "gelu" is the exact one.
    """
    return keras.activations.gelu(x, approximate=True)


ACTIVATION_FUNCTIONS = {
    "gelu": keras.activations.gelu,
    "gelu_tanh": gelu_tanh,
    "relu": keras.activations.relu,
}


@keras.saving.register_keras_serializable(package="bert_models")
class FeedForward(keras.layers.Layer):
    """output_dense(intermediate(x)), [..., H] -> [..., F] -> [..., H].

    Both are plain `keras.layers.Dense`; the activation sits in `intermediate`.

    Args:
        config: a `BertConfig`, or its dict.

    >>> tuple(FeedForward(BertConfig(hidden_size=4, num_heads=2))(ops.ones((2, 3, 4))).shape)
    (2, 3, 4)
    """

    def __init__(self, config: BertConfig | dict, **kwargs):
        super().__init__(**kwargs)
        self.config = config if isinstance(config, BertConfig) else BertConfig.from_dict(config)
        activation = ACTIVATION_FUNCTIONS[self.config.activation]
        self.intermediate = self._dense(self.config.intermediate_size, "intermediate", activation=activation)
        self.output_dense = self._dense(self.config.hidden_size, "output_dense")

    def _dense(self, units: int, name: str, activation=None) -> keras.layers.Dense:
        init = keras.initializers.TruncatedNormal(stddev=self.config.init_stddev)
        return keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=init,
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape):
        self.intermediate.build((None, self.config.hidden_size))
        self.output_dense.build((None, self.config.intermediate_size))

    def call(self, x):
        # Two axes, not three: only then does TensorFlow on a CPU fuse MatMul, BiasAdd and GELU.
        rows = ops.reshape(x, (-1, self.config.hidden_size))  # [B*S, H]
        rows = self.output_dense(self.intermediate(rows))  # [B*S, F] -> [B*S, H]
        return ops.reshape(rows, ops.shape(x))  # [B, S, H]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "config": self.config.to_dict()}
