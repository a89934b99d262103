"""What stands on an encoder: the masked-language-model head with tied embeddings."""

import keras
from keras import ops

from bert_models.blocks.feed_forward import ACTIVATION_FUNCTIONS
from bert_models.blocks.norm import LayerNorm
from bert_models.config import BertConfig
from bert_models.inputs import INPUT_NAMES, POSITIONS_NAME, check_range, checked_inputs


@keras.saving.register_keras_serializable(package="bert_models")
class MaskedLM(keras.Model):
    """An encoder that also predicts the words at chosen positions; the hub's `encoder.mlm`.

    A hidden state h at a masked position becomes logits LN(gelu(h W + b)) E^T + c over the vocabulary, E being the
    encoder's own table of word embeddings: it is tied, whatever is done to the encoder later.

    Inputs: the encoder's dict and `masked_lm_positions`, int32 [B, P]; what is filled up with 0 predicts the first
    token, and its logits are to be ignored. Outputs: the encoder's dict and `mlm_logits` [B, P, V].

    Args:
        encoder: a built encoder, compressed or not. It is used, not copied: training this model trains it.

    Attributes:
        encoder: as given.
        transform, norm: the Dense layer with the encoder's activation, and the LayerNorm after it.
        output_bias: c, [V].

    Raises:
        TypeError: `encoder` is no encoder; at a call, see `build_encoder`.
        ValueError: at an eager call, a position beyond the tokens.

    Source: Devlin et al. 2018, arXiv:1810.04805, section 3.1; cards, "Masked Language Model".

    >>> from bert_models import BertConfig, build_encoder
    >>> mlm = MaskedLM(build_encoder(BertConfig(vocab_size=9, hidden_size=4, num_heads=2, num_layers=1)))
    >>> batch = {name: ops.ones((2, 5), "int32") for name in INPUT_NAMES}
    >>> tuple(mlm({**batch, "masked_lm_positions": ops.array([[1, 3], [2, 0]])})["mlm_logits"].shape)
    (2, 2, 9)
    """

    def __init__(self, encoder: keras.Model, *, name: str = "masked_lm", **kwargs):
        if not isinstance(getattr(encoder, "config", None), BertConfig):
            kind = type(encoder).__name__
            raise TypeError(
                f"encoder must be a model as bert_models.build makes it, or such a one compressed, got {kind}."
            )
        super().__init__(name=name, **kwargs)
        self.encoder = encoder
        config, dtype = encoder.config, encoder.get_layer("pooler").dtype_policy
        self.transform = keras.layers.Dense(
            config.hidden_size,
            activation=ACTIVATION_FUNCTIONS[config.activation],
            kernel_initializer=keras.initializers.TruncatedNormal(stddev=config.init_stddev),
            dtype=dtype,
            name="transform",
        )
        self.norm = LayerNorm(epsilon=config.layer_norm_epsilon, dtype="float32", name="norm")
        self.transform.build((None, None, config.hidden_size))
        self.norm.build((None, None, config.hidden_size))
        self.output_bias = self.add_weight(shape=(config.vocab_size,), initializer="zeros", name="output_bias")
        self.built = True

    def __call__(self, inputs, *args, **kwargs):
        inputs = checked_inputs(inputs, (*INPUT_NAMES, POSITIONS_NAME), self.name)
        self.encoder.get_layer("embeddings").check(inputs["input_word_ids"], inputs["input_type_ids"])
        tokens = inputs["input_word_ids"].shape[1]
        check_range(inputs[POSITIONS_NAME], tokens, self.name, POSITIONS_NAME, "They count the tokens of a row from 0.")
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, training=None):
        outputs = self.encoder({name: inputs[name] for name in INPUT_NAMES}, training=training)
        states = outputs["sequence_output"]  # [B, S, H]
        positions = ops.expand_dims(inputs[POSITIONS_NAME], -1)  # [B, P, 1]
        x = ops.take_along_axis(states, positions, axis=1)  # [B, P, H]
        x = self.norm(self.transform(x))
        logits = ops.matmul(ops.cast(x, self.transform.compute_dtype), ops.transpose(self._table()))  # [B, P, V]
        return {**outputs, "mlm_logits": ops.add(logits, ops.cast(self.output_bias, logits.dtype))}

    def _table(self):
        """The encoder's word embeddings [V, H], in compute dtype."""
        word = self.encoder.get_layer("embeddings").word
        # Compressed, there is no table to read: the rows of all words make one, and pass gradients on to its factors.
        plain = isinstance(word, keras.layers.Embedding)
        table = word.embeddings if plain else word(ops.arange(self.encoder.config.vocab_size))
        return ops.cast(table, self.transform.compute_dtype)

    def get_config(self):
        return {"name": self.name, "encoder": keras.saving.serialize_keras_object(self.encoder)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        encoder = keras.saving.deserialize_keras_object(config["encoder"], custom_objects)
        return cls(encoder, name=config["name"])
