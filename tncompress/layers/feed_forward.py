"""`TNFeedForward`: two networks around an activation, as the feed-forward block of TN-BERT."""

from collections.abc import Mapping

import keras

from tncompress.layers.dense import TNDense
from tncompress.layers.fast_paths import keeps_axes
from tncompress.layers.pair import holds_less, trained
from tncompress.network.spec import Spec


@keras.saving.register_keras_serializable(package="tncompress")
class TNFeedForward(keras.layers.Layer):
    """`condense(activation(expand(x)))`: `[..., width] -> [..., hidden] -> [..., width]`.

    Args:
        expand: spec of the first map, or its config.
        condense: spec of the second map, or its config.
        activation: between the two.
        use_bias: add a bias to the hidden units.
        use_output_bias: add a bias to the outputs. TN-BERT itself has none.
        dropout: rate on the outputs of the activation, in training.

    Raises:
        ValueError: if `condense` does not take what `expand` gives.

    >>> from tncompress.forms import expand_condense
    >>> block = TNFeedForward(expand_condense.expand(8, 32, 2, 4), expand_condense.condense(32, 8, 2, 4))
    >>> block(keras.ops.ones((3, 5, 8))).shape
    TensorShape([3, 5, 8])
    """

    def __init__(
        self,
        expand: Spec | Mapping,
        condense: Spec | Mapping,
        activation="gelu",
        use_bias=True,
        use_output_bias=True,
        dropout=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.expand = TNDense(expand, activation, use_bias, dtype=self.dtype_policy, name="expand")
        self.condense = TNDense(condense, None, use_output_bias, dtype=self.dtype_policy, name="condense")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.supports_masking = True
        hidden, taken = self.expand.spec.out_dim, self.condense.spec.in_dim
        if hidden != taken:
            raise ValueError(
                f"{self.name}: expand gives {hidden} features, but condense takes {taken}; make them equal."
            )

    def build(self, input_shape):
        self.expand.build(input_shape)
        hidden = self.expand.compute_output_shape(input_shape)
        self.dropout.build(hidden)
        self.condense.build(hidden)

    def call(self, inputs, training=None):
        # Two axes: where the lengths are not known, the shape of the hidden units would have to be read from them.
        rows = inputs if keeps_axes() else keras.ops.reshape(inputs, (-1, self.expand.spec.in_dim))
        if training and not self.dropout.rate and holds_less(self.expand, self.condense):
            outputs = trained(self.expand, self.condense, rows)
        else:
            outputs = self.condense(self.dropout(self.expand(rows, training=training), training=training))
        return keras.ops.reshape(outputs, (*keras.ops.shape(inputs)[:-1], self.condense.spec.out_dim))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.condense.spec.out_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "expand": self.expand.spec.to_config(),
            "condense": self.condense.spec.to_config(),
            "activation": keras.activations.serialize(self.expand.activation),
            "use_bias": self.expand.use_bias,
            "use_output_bias": self.condense.use_bias,
            "dropout": self.dropout.rate,
        }
