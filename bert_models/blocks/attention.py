"""Attention of a block: Keras's multi-head attention, or talking heads."""

import keras
from keras import ops

from bert_models.config import BertConfig
from bert_models.kinds import TalkingHeads


def attention_layer(config: BertConfig, dtype, name: str = "attention") -> keras.layers.Layer:
    """The attention that `config.attention` asks for; both kinds are called alike.

    Its projections are `keras.layers.EinsumDense`s named `query`, `key`, `value` and `attention_output`.
    """
    settings = {
        "dropout": config.attention_dropout,
        "kernel_initializer": keras.initializers.TruncatedNormal(stddev=config.init_stddev),
        "dtype": dtype,
        "name": name,
    }
    if isinstance(config.attention, TalkingHeads):
        key_heads, value_heads = config.attention.sizes(config.num_heads)
        return TalkingHeadsAttention(config.num_heads, config.head_size, key_heads, value_heads, **settings)
    return keras.layers.MultiHeadAttention(config.num_heads, config.head_size, **settings)


@keras.saving.register_keras_serializable(package="bert_models")
class TalkingHeadsAttention(keras.layers.Layer):
    """Attention whose scores are mixed across heads before and after the softmax, by two matrices without bias.

    With N = h heads of the softmax, h_k of queries and keys, h_v of values, and K features in each:

        scores [B, h_k, T, S] -> pre_softmax [h_k, h] -> softmax over S -> post_softmax [h, h_v] -> weights of values

    Args:
        num_heads: heads of the softmax, h.
        head_size: features per head, K.
        key_heads: heads of queries and keys, h_k; None: as num_heads.
        value_heads: heads of the values, h_v; None: as num_heads.
        dropout: rate on the weights, after they are mixed.
        kernel_initializer: of the four projections. The two mixing matrices start with the standard deviation that
            keeps the variance of what they mix.

    Call with `query` [B, T, H], `value` [B, S, H] and, if some of the S may not be seen, `attention_mask` [B, T, S] or
    [B, 1, S]; gives [B, T, H].

    Source: Shazeer et al. 2020, arXiv:2003.02436, section 3; card of talkheads_ggelu_bert_en_base.

    >>> layer = TalkingHeadsAttention(num_heads=4, head_size=8, key_heads=2, value_heads=3)
    >>> x = ops.ones((2, 5, 32))
    >>> tuple(layer(x, x).shape), tuple(layer.pre_softmax.shape), tuple(layer.post_softmax.shape)
    ((2, 5, 32), (2, 4), (4, 3))
    """

    def __init__(
        self,
        num_heads: int,
        head_size: int,
        key_heads: int | None = None,
        value_heads: int | None = None,
        dropout: float = 0.0,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_size = head_size
        self.key_heads = key_heads or num_heads
        self.value_heads = value_heads or num_heads
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.query = self._to_heads(self.key_heads, "query")
        self.key = self._to_heads(self.key_heads, "key")
        self.value = self._to_heads(self.value_heads, "value")
        self.softmax = keras.layers.Softmax(dtype=self.dtype_policy, name="softmax")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.supports_masking = True

    def _to_heads(self, heads: int, name: str) -> keras.layers.EinsumDense:
        return keras.layers.EinsumDense(
            "bth,hnk->btnk",
            (None, heads, self.head_size),
            bias_axes="nk",
            kernel_initializer=self._fresh_initializer(),
            dtype=self.dtype_policy,
            name=name,
        )

    def _fresh_initializer(self):
        # An initializer without a seed still gives the same numbers each time; a copy gives others.
        return self.kernel_initializer.clone() if hasattr(self.kernel_initializer, "clone") else self.kernel_initializer

    def build(self, query_shape, value_shape=None):
        value_shape = value_shape or query_shape
        self.query.build(query_shape)
        self.key.build(value_shape)
        self.value.build(value_shape)
        self.pre_softmax = self._mixing(self.key_heads, self.num_heads, "pre_softmax")
        self.post_softmax = self._mixing(self.num_heads, self.value_heads, "post_softmax")
        self.attention_output = keras.layers.EinsumDense(
            "btnk,nkh->bth",
            (None, query_shape[-1]),
            bias_axes="h",
            kernel_initializer=self._fresh_initializer(),
            dtype=self.dtype_policy,
            name="attention_output",
        )
        self.attention_output.build((*query_shape[:-1], self.value_heads, self.head_size))

    def _mixing(self, heads_in: int, heads_out: int, name: str):
        normal = keras.initializers.RandomNormal(stddev=heads_in**-0.5)
        return self.add_weight(shape=(heads_in, heads_out), initializer=normal, name=name)

    def call(self, query, value, attention_mask=None, training=None):
        q = self.query(query)  # [B, T, h_k, K]
        k = self.key(value)  # [B, S, h_k, K]
        v = self.value(value)  # [B, S, h_v, K]
        scores = ops.einsum("btnk,bsnk->bnts", q, k) * self.head_size**-0.5  # [B, h_k, T, S]
        scores = ops.einsum("bnts,nm->bmts", scores, self.pre_softmax)  # [B, h, T, S]
        seen = None if attention_mask is None else ops.expand_dims(ops.cast(attention_mask, "bool"), 1)
        weights = self.softmax(scores, mask=seen)
        weights = ops.einsum("bnts,nm->bmts", weights, self.post_softmax)  # [B, h_v, T, S]
        weights = self.dropout(weights, training=training)
        return self.attention_output(ops.einsum("bnts,bsnk->btnk", weights, v))

    def compute_output_shape(self, query_shape, value_shape=None):
        return query_shape

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_size": self.head_size,
            "key_heads": self.key_heads,
            "value_heads": self.value_heads,
            "dropout": self.dropout.rate,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
