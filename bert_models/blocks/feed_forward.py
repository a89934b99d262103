"""The feed-forward part of a block: widen, activate, perhaps gate, narrow."""

import keras
from keras import ops

from bert_models.config import BertConfig
from tncompress.layers.dense import TNDense, core_stddev
from tncompress.layers.fast_paths import keeps_axes
from tncompress.layers.pair import holds_less, trained
from tncompress.network.spec import Spec


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
    """output_dense(intermediate(x)), or output_dense(intermediate(x) * gate(x)): [..., H] -> [..., F] -> [..., H].

    The activation sits in `intermediate`; `gate` is linear. All three are `keras.layers.Dense`, or `TNDense` where
    `config.feed_forward` asks for networks, so that a converted dense block and one built this way have one structure.

    Args:
        config: a `BertConfig`, or its dict.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.3; gated: Shazeer 2020, arXiv:2002.05202, equation 6, here
    with biases, as on the card of talkheads_ggelu_bert_en_base.

    >>> tuple(FeedForward(BertConfig(hidden_size=4, num_heads=2))(ops.ones((2, 3, 4))).shape)
    (2, 3, 4)
    """

    def __init__(self, config: BertConfig | dict, **kwargs):
        super().__init__(**kwargs)
        self.config = config if isinstance(config, BertConfig) else BertConfig.from_dict(config)
        hidden, wide = self.config.hidden_size, self.config.intermediate_size
        widen, narrow = self.config.feed_forward.specs(hidden, wide)
        self.intermediate = self._map(wide, widen, "intermediate", ACTIVATION_FUNCTIONS[self.config.activation])
        self.gate = self._map(wide, widen, "gate") if self.config.gated else None
        self.output_dense = self._map(hidden, narrow, "output_dense", use_bias=self.config.output_bias)

    def _map(self, units: int, spec: Spec | None, name: str, activation=None, use_bias: bool = True):
        settings = {"activation": activation, "use_bias": use_bias, "dtype": self.dtype_policy, "name": name}
        stddev = self.config.init_stddev
        if spec is None:
            init = keras.initializers.TruncatedNormal(stddev=stddev)
            return keras.layers.Dense(units, kernel_initializer=init, **settings)
        # Cut off at two standard deviations, the normal of the dense kernels has this much of them left.
        init = keras.initializers.RandomNormal(stddev=core_stddev(spec, kernel_stddev=0.8796 * stddev))
        return TNDense(spec, core_initializer=init, **settings)

    def build(self, input_shape):
        self.intermediate.build((None, self.config.hidden_size))
        if self.gate is not None:
            self.gate.build((None, self.config.hidden_size))
        self.output_dense.build((None, self.config.intermediate_size))

    def call(self, x, training=None):
        # Two axes, not three: only then does TensorFlow on a CPU fuse MatMul, BiasAdd and GELU.
        rows = x if keeps_axes() else ops.reshape(x, (-1, self.config.hidden_size))  # [B*S, H]
        if training and self.gate is None and holds_less(self.intermediate, self.output_dense):
            return ops.reshape(trained(self.intermediate, self.output_dense, rows), ops.shape(x))
        wide = self.intermediate(rows)  # [B*S, F]
        if self.gate is not None:
            wide = ops.multiply(wide, self.gate(rows))
        return ops.reshape(self.output_dense(wide), ops.shape(x))  # [B, S, H]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "config": self.config.to_dict()}
