"""`build_encoder`: a BERT encoder as a Keras model, from a `BertConfig`; `build`: from the name of a preset."""

from typing import Any

import keras

from bert_models.blocks.embeddings import Embeddings
from bert_models.blocks.encoder_block import EncoderBlock
from bert_models.config import BertConfig
from bert_models.inputs import INPUT_NAMES, checked_inputs
from bert_models.presets import preset


@keras.saving.register_keras_serializable(package="bert_models")
class Encoder(keras.Model):
    """A functional Keras model that knows its `BertConfig`, checks its inputs and can be exported."""

    @property
    def config(self) -> BertConfig:
        """The config it was built from; survives `.keras`, since the layers carry it."""
        return self.get_layer("embeddings").config

    def __call__(self, inputs, *args, **kwargs):
        inputs = checked_inputs(inputs, INPUT_NAMES, self.name)
        self.get_layer("embeddings").check(inputs["input_word_ids"], inputs["input_type_ids"])
        return super().__call__(inputs, *args, **kwargs)

    def export(self, filepath, *args, **kwargs):
        """`keras.Model.export` with `encoder_outputs` as `encoder_outputs_0`, `encoder_outputs_1`
        ...

        A SavedModel signature holds tensors only, so the list has to be taken apart. For a SavedModel as on TF Hub,
        use `bert_models.export`.
        """
        outputs = dict(self.output)
        for i, hidden in enumerate(outputs.pop("encoder_outputs")):
            outputs[f"encoder_outputs_{i}"] = hidden
        flat = keras.Model(self.input, outputs, name=self.name)
        flat({name: keras.ops.ones((1, 2), "int32") for name in INPUT_NAMES})  # Keras wants this before ONNX
        return flat.export(filepath, *args, **kwargs)


def build(name: str, *, dtype: Any = None, **overrides: Any) -> Encoder:
    """Build the encoder of a preset with new random weights; see `build_encoder` for inputs and outputs.

    Args:
        name: of a preset, e.g. "tn_bert"; `bert_models.PRESETS` holds them all.
        dtype: dtype policy, e.g. "mixed_bfloat16"; None: Keras's global one.
        overrides: fields of `BertConfig` that shall differ from the preset.

    Raises:
        ValueError: no such preset (the nearest names are given), or an override that is not a field.

    Source: the presets' cards; `bert_models.PRESETS[name].card`.

    >>> small = build("tn_bert", num_layers=1, hidden_size=256, num_heads=4, vocab_size=100)
    >>> small.get_layer("block_0").feed_forward.intermediate.spec
    Spec.parse('i, i c d, d e -> c e', c=2, d=128, e=512, i=256)
    """
    return build_encoder(preset(name).config_with(**overrides), dtype=dtype)


def build_encoder(config: BertConfig, *, name: str = "encoder", dtype: Any = None) -> Encoder:
    """Build a BERT encoder with new random weights.

    Inputs: a dict of int32 [B, S], `input_word_ids`, `input_mask` (1 = token, 0 = padding) and
    `input_type_ids`; S may differ from batch to batch, up to `config.max_positions`. Other integers are converted,
    floats and other keys are refused.

    Outputs: a dict of `sequence_output` [B, S, H], `pooled_output` [B, H] (tanh of the first
    token's projection) and `encoder_outputs`, the list of the L blocks' outputs [B, S, H]; its
    last item is `sequence_output`.

    Args:
        config: the architecture.
        name: name of the model.
        dtype: dtype policy of its layers, e.g. "mixed_bfloat16"; None: Keras's global one.

    Source: Devlin et al. 2018, arXiv:1810.04805.

    >>> encoder = build_encoder(BertConfig(vocab_size=9, hidden_size=4, num_heads=2, num_layers=3))
    >>> batch = {name: keras.ops.ones((2, 5), "int32") for name in INPUT_NAMES}
    >>> outputs = encoder(batch)
    >>> len(outputs["encoder_outputs"]), tuple(outputs["pooled_output"].shape)
    (3, (2, 4))
    """
    if not isinstance(config, BertConfig):
        raise TypeError(f"build_encoder takes a BertConfig, got {config!r}; for a preset's name there is build(name).")
    # Inputs
    inputs = {key: keras.Input((None,), dtype="int32", name=key) for key in INPUT_NAMES}
    mask = inputs["input_mask"]  # [B, S]

    # Tokens to vectors, then block after block
    x = Embeddings(config, dtype=dtype, name="embeddings")(inputs["input_word_ids"], inputs["input_type_ids"])
    hidden = []
    for i in range(config.num_layers):
        x = EncoderBlock(config, dtype=dtype, name=f"block_{i}")(x, mask)  # [B, S, H]
        hidden.append(x)

    # The first token, [CLS], stands for the whole row
    pooled = keras.layers.Dense(
        config.hidden_size,
        activation="tanh",
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=config.init_stddev),
        dtype=dtype,
        name="pooler",
    )(x[:, 0, :])  # [B, H]

    outputs = {"sequence_output": x, "pooled_output": pooled, "encoder_outputs": hidden}
    return Encoder(inputs, outputs, name=name)
