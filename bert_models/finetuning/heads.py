"""What stands on an encoder for a task: a class or a score of a text, or where the answer begins and ends."""

from collections.abc import Sequence

import keras
from keras import ops

from bert_models.config import BertConfig
from bert_models.finetuning.tasks import SpanTask, Task
from bert_models.inputs import INPUT_NAMES

INIT_STDDEV = 0.02  # Devlin et al. 2018
OUTPUTS = ("pooled", "mean")
DROPOUT_NAME = "head_dropout"
FAR = -1e9  # a logit whose probability is 0


@keras.saving.register_keras_serializable(package="bert_models")
class MaskedMean(keras.layers.Layer):
    """States [B, S, H] and a mask [B, S] -> float32 [B, H], the mean over the positions where the mask is 1.

    >>> MaskedMean()(ops.array([[[1.0], [3.0], [9.0]]]), ops.array([[1, 1, 0]]))[0, 0] == 2.0
    <...True...>
    """

    def call(self, states, mask):
        weights = ops.expand_dims(ops.cast(mask, "float32"), -1)  # [B, S, 1]
        total = ops.sum(ops.cast(states, "float32") * weights, axis=1)  # [B, H]
        return total / ops.maximum(ops.sum(weights, axis=1), 1.0)

    def compute_output_spec(self, states, mask):
        return keras.KerasTensor((states.shape[0], states.shape[-1]), dtype="float32")


@keras.saving.register_keras_serializable(package="bert_models")
class SpanHead(keras.layers.Layer):
    """States [B, S, H] and a mask [B, S] -> float32 logits [B, S, 2]: the answer starts here, ends here.

    Args:
        seed: of the initial kernel.
    """

    def __init__(self, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        initializer = keras.initializers.TruncatedNormal(stddev=INIT_STDDEV, seed=seed)
        self.dense = keras.layers.Dense(2, kernel_initializer=initializer, dtype="float32", name="dense")

    def build(self, states_shape, mask_shape=None):
        self.dense.build(states_shape)

    def call(self, states, mask):
        logits = self.dense(states)
        # Otherwise the probabilities of a window would depend on how far it is padded.
        return ops.where(ops.expand_dims(ops.cast(mask, "bool"), -1), logits, FAR)

    def compute_output_spec(self, states, mask):
        return keras.KerasTensor((*states.shape[:-1], 2), dtype="float32")

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def model_for(
    task: Task | SpanTask, encoder: keras.Model, *, output: str = "pooled", dropout: float = 0.1, seed: int = 0
) -> keras.Model:
    """A model of the encoder, which it uses and trains, and a new head; not compiled.

    Args:
        task: what the head is for.
        encoder: a Keras model that takes the dict of an encoder and gives its outputs, compressed or not.
        output: what a class or score is read from: "pooled", BERT's pooled output, or "mean", the mean of the last
            hidden states over the tokens, for encoders whose pooler was not trained, such as those for sentences.
        dropout: of what goes into the head.
        seed: of the head's kernel and of its dropout.

    Returns:
        A functional model: the encoder's inputs -> float32 logits [B, classes], a score [B, 1], or [B, S, 2].

    Raises:
        TypeError, ValueError: an encoder without the outputs, or an unknown `output`.

    >>> from bert_models import BertConfig, build_encoder
    >>> from bert_models.finetuning.tasks import TASKS
    >>> encoder = build_encoder(BertConfig(vocab_size=9, hidden_size=4, num_heads=2, num_layers=1))
    >>> [model_for(TASKS[name], encoder).output_shape for name in ("mnli", "stsb", "squad1")]
    [(None, 3), (None, 1), (None, None, 2)]
    """
    if output not in OUTPUTS:
        raise ValueError(f"output must be {' or '.join(OUTPUTS)}, got {output!r}.")
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUT_NAMES}
    outputs = encoder(inputs)
    needed = "pooled_output" if output == "pooled" and isinstance(task, Task) else "sequence_output"
    if not isinstance(outputs, dict) or needed not in outputs:
        given = ", ".join(outputs) if isinstance(outputs, dict) else type(outputs).__name__
        raise ValueError(f"the encoder must give a dict with {needed!r}, as bert_models.build makes them; got {given}.")
    x = outputs[needed]
    drop = keras.layers.Dropout(dropout, seed=seed, dtype="float32", name=DROPOUT_NAME)
    if isinstance(task, SpanTask):
        # As in BERT's released code, nothing is dropped out here.
        return keras.Model(inputs, SpanHead(seed, name="head")(x, inputs["input_mask"]), name=task.name)
    if output == "mean":
        x = MaskedMean(name="mean")(x, inputs["input_mask"])  # [B, H]
    initializer = keras.initializers.TruncatedNormal(stddev=INIT_STDDEV, seed=seed)
    head = keras.layers.Dense(task.outputs, kernel_initializer=initializer, dtype="float32", name="head")
    return keras.Model(inputs, head(drop(x)), name=task.name)


def has_head(model: keras.Model, task: Task | SpanTask) -> bool:
    """Whether it is a model of this task, as `model_for` makes it, and no encoder."""
    return model.name == task.name and not isinstance(getattr(model, "output", {}), dict)


def encoder_in(model: keras.Model) -> keras.Model | None:
    """The encoder of a task's model or of a `MaskedLM`, which it shares; an encoder is given back. None: there is none.

    >>> from bert_models import BertConfig, build_encoder
    >>> from bert_models.finetuning.tasks import TASKS
    >>> encoder = build_encoder(BertConfig(vocab_size=9, hidden_size=4, num_heads=2, num_layers=1))
    >>> encoder_in(model_for(TASKS["cola"], encoder)) is encoder
    True
    """
    parts = (model, getattr(model, "encoder", None), *getattr(model, "layers", ()))
    found = (part for part in parts if isinstance(part, keras.Model) and _is_encoder(part))
    return next(found, None)


def _is_encoder(model: keras.Model) -> bool:
    return isinstance(getattr(model, "config", None), BertConfig) and not hasattr(model, "encoder")


def check_outputs(task: Task | SpanTask, shape: Sequence[int] | None, model: str = "the model") -> None:
    """Refuse a model of another task, or an encoder without a head.

    Args:
        shape: of its output, [B, ...]; None: it gives several.
        model: how it is called in the message.

    Raises:
        ValueError: another shape.

    >>> from bert_models.finetuning.tasks import TASKS
    >>> check_outputs(TASKS["mnli"], (32, 2))
    Traceback (most recent call last):
    ValueError: the model is not of the task mnli: it should give [batch, 3], but gives [batch, 2].
    """
    if shape is None:
        raise ValueError(f"{model} gives several outputs, as an encoder does; fine-tune it on {task.name} first.")
    is_span = isinstance(task, SpanTask)
    if len(shape) != 2 + is_span or shape[-1] != (2 if is_span else task.outputs):
        wanted = "[batch, tokens, 2]" if is_span else f"[batch, {task.outputs}]"
        found = ", ".join(["batch", *("tokens" if i < len(shape) - 2 else str(n) for i, n in enumerate(shape[1:]))])
        raise ValueError(f"{model} is not of the task {task.name}: it should give {wanted}, but gives [{found}].")


@keras.saving.register_keras_serializable(package="bert_models")
def span_loss(targets, logits):
    """Mean of the cross-entropies of the first and the last token; targets int [B, 2], logits [B, S, 2]."""
    by_token = ops.transpose(logits, (0, 2, 1))  # [B, 2, S]
    return ops.mean(ops.sparse_categorical_crossentropy(targets, by_token, from_logits=True), axis=-1)


def loss_of(task: Task | SpanTask):
    """What is minimised: cross-entropy, of scores the mean squared error."""
    if isinstance(task, SpanTask):
        return span_loss
    if task.labels is None:
        return keras.losses.MeanSquaredError()
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
