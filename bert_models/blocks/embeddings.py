"""Word, position and segment embeddings, added and normalised: the first layer of BERT."""

import keras
from keras import ops

from bert_models.blocks.norm import LayerNorm
from bert_models.config import BertConfig
from bert_models.inputs import check_range


@keras.saving.register_keras_serializable(package="bert_models")
class Embeddings(keras.layers.Layer):
    """Dropout(LayerNorm(word + position + segment)).

    The tables are `keras.layers.Embedding`s under the attributes `word`, `position` and `segment`.

    Args:
        config: a `BertConfig`, or its dict.

    Call with `input_word_ids` and `input_type_ids`, int32 [B, S]; gives [B, S, H].

    Raises:
        ValueError: more than `max_positions` tokens; in eager TensorFlow also an id outside its
        table.

    >>> layer = Embeddings(BertConfig(vocab_size=9, hidden_size=4, num_heads=2))
    >>> tuple(layer(ops.array([[1, 2, 3]]), ops.array([[0, 0, 1]])).shape)
    (1, 3, 4)
    """

    def __init__(self, config: BertConfig | dict, **kwargs):
        super().__init__(**kwargs)
        self.config = config if isinstance(config, BertConfig) else BertConfig.from_dict(config)
        self.word = self._table(self.config.vocab_size, "word")
        self.position = self._table(self.config.max_positions, "position")
        self.segment = self._table(self.config.type_vocab_size, "segment")
        self.norm = LayerNorm(epsilon=self.config.layer_norm_epsilon, dtype="float32", name="norm")
        self.dropout = keras.layers.Dropout(self.config.hidden_dropout, dtype=self.dtype_policy, name="dropout")

    def _table(self, rows: int, name: str) -> keras.layers.Embedding:
        init = keras.initializers.TruncatedNormal(stddev=self.config.init_stddev)
        return keras.layers.Embedding(
            rows,
            self.config.hidden_size,
            embeddings_initializer=init,
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape):
        for table in (self.word, self.position, self.segment):
            table.build(input_shape)
        self.norm.build((*input_shape, self.config.hidden_size))

    def call(self, input_word_ids, input_type_ids, training=None):
        self.check(input_word_ids, input_type_ids)
        positions = ops.arange(ops.shape(input_word_ids)[1], dtype="int32")  # [S]
        x = self.word(input_word_ids) + self.segment(input_type_ids)  # [B, S, H]
        x = self.norm(x + self.position(positions))  # [S, H] is added to every row
        return self.dropout(x, training=training)

    def check(self, input_word_ids, input_type_ids) -> None:
        """Refuse what the tables do not hold; an encoder asks first, where Keras adds nothing to the message."""
        self._check_length(input_word_ids.shape[1])
        advice = "Use the tokenizer that belongs to this encoder."
        check_range(input_word_ids, self.config.vocab_size, self.name, "input_word_ids", advice)
        check_range(input_type_ids, self.config.type_vocab_size, self.name, "input_type_ids", advice)

    def _check_length(self, length: int | None) -> None:
        if isinstance(length, int) and length > self.config.max_positions:  # not None, nor a symbol of JAX's
            raise ValueError(
                f"{self.name}: the batch has {length} tokens per row, but this encoder knows "
                f"{self.config.max_positions} positions. Truncate the text to "
                f"max_length={self.config.max_positions} tokens."
            )

    def compute_output_shape(self, input_word_ids_shape, input_type_ids_shape=None):
        self._check_length(input_word_ids_shape[1])  # while a functional model is put together, call is not run
        return (*input_word_ids_shape, self.config.hidden_size)

    def get_config(self):
        return {**super().get_config(), "config": self.config.to_dict()}
