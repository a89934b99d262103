"""`export`: an encoder as a SavedModel with the interface of TF Hub's text encoders."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from bert_models.encoder import Encoder
from bert_models.folders import check_target, new_folder
from bert_models.heads import MaskedLM
from bert_models.inputs import INPUT_NAMES, POSITIONS_NAME
from bert_models.manifest import head_weights, weight_names, write_manifest
from bert_models.text.preprocessor import Preprocessor, read_vocabulary
from bert_models.text.tokenize import Tokenizer
from bert_models.text.vocabulary import FILE_NAME, SETTINGS_NAME, Vocabulary

PREPROCESSOR_FOLDER = "preprocess"


def export(
    encoder: Encoder,
    path: str | Path,
    *,
    mlm: MaskedLM | None = None,
    preprocessor: Preprocessor | None = None,
    vocab: str | Path | Sequence[str] | Tokenizer | None = None,
    lower_case: bool | None = None,
    overwrite: bool = False,
) -> None:
    """Write a folder that `hub.load` and `hub.KerasLayer` take, with the interface of the models' cards.

    The loaded object `m` has

    * `m(inputs, training=False)`, inputs a dict of `input_word_ids`, `input_mask`, `input_type_ids`, all int32 or all
      int64 [B, S], training a bool or a bool tensor; gives a dict of `sequence_output` [B, S, H], `pooled_output`
      [B, H], also as `default`, and `encoder_outputs`, a list of L tensors [B, S, H];
    * `m.variables`, `m.trainable_variables`, and `m.regularization_losses`, functions that give scalars;
    * `m.mlm`, if `mlm` is given: the same again, with `masked_lm_positions` [B, P] also in the inputs, and
      `mlm_logits` [B, P, V] in place of `default` in the outputs;
    * `m.vocab_file` (`.asset_path`) and `m.do_lower_case`, if there is a vocabulary;
    * `m.seed_states`, the states of the dropout layers' random generators;
    * `m.serve(inputs)` and `m.serve_training(inputs)`, for `keras.layers.TFSMLayer`;
    * signatures `serving_default`, and `mlm` if given, whose outputs are `pooled_output`, `sequence_output`,
      `encoder_outputs_0`, `encoder_outputs_1` ... and `mlm_logits`.

    Args:
        encoder: of `bert_models`, compressed or not. What is frozen in it stays frozen.
        path: the folder to make. It is written beside and then renamed.
        mlm: a `MaskedLM` on that encoder.
        preprocessor: the text side that belongs to it: its vocabulary goes with the encoder, and it is itself exported
            to the folder `preprocess` inside, another SavedModel.
        vocab: the vocabulary alone, if there is no preprocessor (this needs no tensorflow_text): a `vocab.txt`, the
            folder of a checkpoint, a list of tokens, or a tokenizer of `load_tokenizer`.
        lower_case: text is turned into small letters before it is looked up; None: as the folder says, else True.
        overwrite: replace a SavedModel that is there.

    Raises:
        RuntimeError: Keras runs on another backend than TensorFlow.
        TypeError: not an encoder, not a `MaskedLM`, not a `Preprocessor`.
        ValueError: an mlm of another encoder, or a vocabulary larger than the encoder's table.
        FileExistsError, FileNotFoundError: the target is taken, or its parent does not exist.

    Source: TF Hub, "Common SavedModel APIs for text", transformer encoders; cards, "Usage".

    Example:
        mlm = bert_models.MaskedLM(encoder)
        bert_models.export(encoder, "tn_bert", mlm=mlm, preprocessor=bert_models.Preprocessor("vocab.txt"))
        hub.load("tn_bert").mlm.trainable_variables
    """
    path = Path(path)
    _check_arguments(encoder, mlm, preprocessor, vocab, lower_case)
    check_target(path, overwrite)
    vocabulary = _checked_vocabulary(encoder, preprocessor, vocab, lower_case)
    with new_folder(path, overwrite) as folder:
        if preprocessor:
            from bert_models.text.export import export_preprocessor  # needs tensorflow_text

            export_preprocessor(preprocessor, folder / PREPROCESSOR_FOLDER)
        names = weight_names(encoder)
        head = {} if mlm is None else head_weights(mlm)
        _save(encoder, mlm, vocabulary, names, head, folder)
        write_manifest(folder, encoder, list(names), None if mlm is None else list(head))


def _check_arguments(encoder, mlm, preprocessor, vocab, lower_case) -> None:
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"a SavedModel can only be written with Keras's tensorflow backend, but it runs on "
            f"{keras.backend.backend()}: save the encoder as x.keras and export it in a process with "
            "KERAS_BACKEND=tensorflow."
        )
    if isinstance(encoder, MaskedLM):
        raise TypeError("export takes an encoder, got a MaskedLM: write export(model.encoder, path, mlm=model).")
    if not isinstance(encoder, Encoder):
        raise TypeError(
            f"export takes an encoder of bert_models, compressed or not, got {type(encoder).__name__}; "
            "other models have model.export."
        )
    if mlm is not None and not isinstance(mlm, MaskedLM):
        raise TypeError(f"mlm must be a MaskedLM, got {type(mlm).__name__}: write mlm=MaskedLM(encoder).")
    if mlm is not None and mlm.encoder is not encoder:
        raise ValueError("mlm stands on another encoder: write export(mlm.encoder, path, mlm=mlm).")
    if preprocessor is not None and not isinstance(preprocessor, Preprocessor):
        raise TypeError(f"preprocessor must be a bert_models.Preprocessor, got {type(preprocessor).__name__}.")
    if preprocessor is not None and (vocab, lower_case) != (None, None):
        raise ValueError("a preprocessor has a vocabulary and its rules; leave out vocab and lower_case.")
    if vocab is None and preprocessor is None and lower_case is not None:
        raise ValueError("lower_case says how a vocabulary is used, but there is none: give vocab too.")


def _checked_vocabulary(encoder: Encoder, preprocessor, vocab, lower_case: bool | None) -> Vocabulary | None:
    if preprocessor is None and vocab is None:
        return None
    rules = {} if lower_case is None else {"lower_case": lower_case}
    vocabulary = preprocessor.vocabulary if preprocessor else read_vocabulary(vocab, rules)
    tokens, rows = len(vocabulary.tokens), encoder.config.vocab_size
    if tokens > rows:
        raise ValueError(
            f"the vocabulary has {tokens:,} tokens, but the encoder's table of words has {rows:,} rows; "
            "give the vocabulary that belongs to this encoder."
        )
    return vocabulary


def _save(encoder, mlm, vocabulary, names: Mapping, head: Mapping, folder: Path) -> None:
    exported = tf.train.Checkpoint()
    extra = _add_vocabulary(exported, vocabulary, folder.parent) if vocabulary else []
    _fill(exported, encoder, INPUT_NAMES, {"default": "pooled_output"}, extra)
    signatures = {"serving_default": _signature(exported, INPUT_NAMES)}
    if mlm is not None:
        exported.mlm = tf.train.Checkpoint()
        exported.mlm.head = [weight.value for weight in head.values()]
        _fill(exported.mlm, mlm, (*INPUT_NAMES, POSITIONS_NAME), {})
        signatures["mlm"] = _signature(exported.mlm, (*INPUT_NAMES, POSITIONS_NAME))
    hub_names = {_hub_name(name): weight for name, weight in names.items()}
    hub_names |= {_hub_name(f"mlm/{name}"): weight for name, weight in head.items()}
    with _named(hub_names):
        tf.saved_model.save(exported, str(folder), signatures)


def _add_vocabulary(exported, vocabulary: Vocabulary, scratch: Path) -> list[tf.Variable]:
    (scratch / FILE_NAME).write_text("".join(f"{token}\n" for token in vocabulary.tokens), "utf-8")
    (scratch / SETTINGS_NAME).write_text(json.dumps(vocabulary.settings, indent=1), "utf-8")
    exported.vocab_file = tf.saved_model.Asset(str(scratch / FILE_NAME))
    exported.settings_file = tf.saved_model.Asset(str(scratch / SETTINGS_NAME))
    exported.do_lower_case = tf.Variable(vocabulary.lower_case, trainable=False, name="do_lower_case")
    return [exported.do_lower_case]  # one of the variables, as on TF Hub


def _fill(exported, model: keras.Model, names: Sequence[str], aliases: Mapping[str, str], extra=()) -> None:
    """Give an object the call, the variables and the losses of a model."""
    weights = {id(weight) for weight in model.weights}
    exported.variables = [weight.value for weight in model.weights] + list(extra)
    exported.trainable_variables = [weight.value for weight in model.trainable_variables]
    exported.seed_states = [v.value for v in model.variables if id(v) not in weights]
    exported.regularization_losses = [_penalty(v) for v in model.trainable_variables if v.regularizer is not None]
    call = _traced(model, names, aliases)
    exported.__call__ = call
    exported.serve = tf.function(lambda inputs: call(inputs, training=False), [_specs(names)])
    exported.serve_training = tf.function(lambda inputs: call(inputs, training=True), [_specs(names)])


def _traced(model: keras.Model, names: Sequence[str], aliases: Mapping[str, str]):
    """The model's call, traced for every kind of argument; the model's own graph is made only twice."""

    @tf.function(autograph=False)
    def run(inputs, training):
        outputs = dict(model(inputs, training=training))
        return {**outputs, **{alias: outputs[name] for alias, name in aliases.items()}}

    @tf.function(autograph=False)
    def call(inputs, training=False):
        inputs = {name: tf.cast(ids, tf.int32) for name, ids in inputs.items()}
        if isinstance(training, bool):
            return run(inputs, training)
        return tf.cond(training, lambda: run(inputs, True), lambda: run(inputs, False))

    for dtype in (tf.int32, tf.int64):
        for training in (False, True, tf.TensorSpec([], tf.bool)):
            call.get_concrete_function(_specs(names, dtype), training=training)
    return call


def _signature(exported, names: Sequence[str]):
    """A function of tensors by name whose outputs have names too: a signature holds no lists."""

    def serve(inputs):
        outputs = dict(exported.serve(inputs))
        outputs.pop("default", None)
        hidden = outputs.pop("encoder_outputs")
        return {**outputs, **{f"encoder_outputs_{i}": states for i, states in enumerate(hidden)}}

    return tf.function(serve, [_specs(names)])


def _specs(names: Sequence[str], dtype=tf.int32) -> dict[str, tf.TensorSpec]:
    return {name: tf.TensorSpec([None, None], dtype, name) for name in names}


def _penalty(variable: keras.Variable):
    return tf.function(lambda: variable.regularizer(variable.value), [])


def _hub_name(name: str) -> str:
    """As the name of a weight, but LayerNorms are called so: optimizers are told by patterns what not to decay.

    >>> _hub_name("block_0/attention_norm/gamma"), _hub_name("pooler/bias")
    ('block_0/attention_layer_norm/gamma', 'pooler/bias')
    """
    return re.sub(r"norm/(gamma|beta)$", r"layer_norm/\1", name)


@contextmanager
def _named(weights: Mapping[str, keras.Variable]) -> Iterator[None]:
    """While a model is saved, let its TensorFlow variables have full names.

    Keras names them `kernel`, `bias` and so on, all alike. TensorFlow stores the name under which a variable was made
    and has no public way to change it; should this private one go away, the exported variables have short names.
    """
    before = [(weight.value, weight.value._handle_name) for weight in weights.values()]
    try:
        for name, weight in weights.items():
            weight.value._handle_name = f"{name}:0"
        yield
    finally:
        for value, name in before:
            value._handle_name = name
