"""One transformer block of BERT, with LayerNorm after each residual sum (post-LN)."""

import keras
from keras import ops

from bert_models.blocks.attention import attention_layer
from bert_models.blocks.feed_forward import FeedForward
from bert_models.blocks.norm import LayerNorm
from bert_models.config import BertConfig


@keras.saving.register_keras_serializable(package="bert_models")
class EncoderBlock(keras.layers.Layer):
    """x = LN(x + Drop(attention(x)));  x = LN(x + Drop(feed_forward(x))).

    Attributes `attention` (`keras.layers.MultiHeadAttention` or `TalkingHeadsAttention`) and `feed_forward`
    (`FeedForward`) do the work. Both LayerNorms compute in float32 whatever the dtype policy.

    Args:
        config: a `BertConfig`, or its dict.

    Call with `x` [B, S, H] and `input_mask` [B, S], 1 for a token and 0 for padding; gives [B, S,
    H]. What stands in a padded position changes nothing in the others.

    Source: Devlin et al. 2018, arXiv:1810.04805; Vaswani et al. 2017, arXiv:1706.03762, section
    3.1.

    >>> block = EncoderBlock(BertConfig(hidden_size=4, num_heads=2))
    >>> tuple(block(ops.ones((2, 3, 4)), ops.ones((2, 3))).shape)
    (2, 3, 4)
    """

    def __init__(self, config: BertConfig | dict, **kwargs):
        super().__init__(**kwargs)
        self.config = config if isinstance(config, BertConfig) else BertConfig.from_dict(config)
        self.attention = attention_layer(self.config, self.dtype_policy)
        self.attention_norm = self._norm("attention_norm")
        self.feed_forward = FeedForward(self.config, dtype=self.dtype_policy, name="feed_forward")
        self.feed_forward_norm = self._norm("feed_forward_norm")
        self.dropout = keras.layers.Dropout(self.config.hidden_dropout, dtype=self.dtype_policy, name="dropout")

    def _norm(self, name: str) -> LayerNorm:
        return LayerNorm(epsilon=self.config.layer_norm_epsilon, dtype="float32", name=name)

    def build(self, input_shape):
        self.attention.build(input_shape, input_shape)
        self.attention_norm.build(input_shape)
        self.feed_forward.build(input_shape)
        self.feed_forward_norm.build(input_shape)

    def call(self, x, input_mask, training=None):
        visible = ops.cast(ops.expand_dims(input_mask, 1), "bool")  # [B, 1, S], one row for every query
        y = self.attention(x, x, attention_mask=visible, training=training)  # [B, S, H]
        # ops.add, not +: under a mixed policy a float32 LayerNorm meets a half-precision sum.
        x = self.attention_norm(ops.add(x, self.dropout(y, training=training)))
        y = self.feed_forward(x)  # [B, S, H]
        return self.feed_forward_norm(ops.add(x, self.dropout(y, training=training)))

    def compute_output_shape(self, x_shape, input_mask_shape=None):
        return x_shape

    def get_config(self):
        return {**super().get_config(), "config": self.config.to_dict()}
