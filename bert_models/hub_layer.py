"""`HubEncoder`: a hub-style SavedModel as a layer of Keras 3."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bert_models.inputs import INPUT_NAMES, POSITIONS_NAME, checked_inputs

# Folders whose programs the user of this process has asked to run; see `HubEncoder.trust`.
_TRUSTED: set[Path] = set()


@keras.saving.register_keras_serializable(package="bert_models")
class HubEncoder(keras.layers.Layer):
    """What `hub.KerasLayer` is for tf_keras: the encoder in a folder, as a trainable layer.

    The folder was written by `bert_models.export`, or is a text encoder in the format of TF Hub. Works in functional
    models, with every Keras optimizer and with `jit_compile=True`. The folder's regularization losses are added to the
    model's. A layer with `trainable=False` does not drop out either, as with `hub.KerasLayer`.

    Call with a dict of `input_word_ids`, `input_mask`, `input_type_ids` [B, S], integers; with `mlm` also
    `masked_lm_positions` [B, P]. Gives the dict of the saved encoder: `pooled_output` [B, H], `sequence_output`
    [B, S, H], `encoder_outputs`, a list of [B, S, H], and with `mlm` also `mlm_logits` [B, P, V].

    A `.keras` file of a model with this layer holds the weights and the folder's path, but not the encoder's program:
    the folder has to stay where it is. In a new process, say `HubEncoder.trust(folder)` before loading.

    Args:
        folder: path of it. A relative one counts from the working folder, also when a saved model is loaded.
        mlm: take its masked-language model, `.mlm`.
        trainable: weights can be trained.

    Raises:
        RuntimeError: Keras runs on another backend than TensorFlow.
        FileNotFoundError: no SavedModel is there.
        ValueError: what is there is no text encoder, or has no `mlm`.

    Source: TF Hub, "Common SavedModel APIs for text", transformer encoders.

    Example:
        inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in names}
        outputs = bert_models.HubEncoder("tn_bert")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(2)(outputs["pooled_output"]))
        model.compile("adam", "mse", jit_compile=True)
    """

    def __init__(self, folder: str | Path, *, mlm: bool = False, trainable: bool = True, **kwargs):
        super().__init__(trainable=trainable, **kwargs)
        self.folder = str(folder)
        self.mlm = mlm
        self.input_names = (*INPUT_NAMES, POSITIONS_NAME) if mlm else INPUT_NAMES
        self.saved = _loaded(self.folder, mlm)
        self.output_specs = _output_specs(self.saved, self.input_names, self.folder)
        self.saved_variables = as_keras_variables(
            (*self.saved.variables, *getattr(self.saved, "seed_states", ())), self.saved.trainable_variables
        )
        self.trainable = trainable  # now that there are variables
        self.trust(folder)
        self.built = True

    def __call__(self, inputs, *args, **kwargs):
        return super().__call__(checked_inputs(inputs, self.input_names, self.name), *args, **kwargs)

    def call(self, inputs, training=None):
        if self.trainable:
            for loss in self.saved.regularization_losses:
                self.add_loss(loss())
        return self.saved(inputs, training=bool(training and self.trainable))

    def compute_output_spec(self, inputs, training=None):
        batch, tokens = inputs["input_word_ids"].shape
        lengths = dict.fromkeys(self.output_specs, tokens)
        if self.mlm:
            lengths["mlm_logits"] = inputs[POSITIONS_NAME].shape[1]

        def spec(tensor, length):
            shape = (batch, *tensor.shape[1:]) if len(tensor.shape) < 3 else (batch, length, *tensor.shape[2:])
            return keras.KerasTensor(shape, tensor.dtype.name)

        return {
            name: [spec(one, lengths[name]) for one in value] if isinstance(value, list) else spec(value, lengths[name])
            for name, value in self.output_specs.items()
        }

    @staticmethod
    def trust(folder: str | Path) -> None:
        """Let `.keras` files that are loaded from now on run the SavedModel in that folder.

        A SavedModel is a program, which may also read and write files. Keras's safe mode does not know of it, so a file
        from somebody else could name a folder of theirs; hence only folders are run that this process has named.
        """
        _TRUSTED.add(Path(folder).resolve())

    def get_config(self):
        return {**super().get_config(), "folder": self.folder, "mlm": self.mlm}

    @classmethod
    def from_config(cls, config):
        if Path(config["folder"]).exists() and Path(config["folder"]).resolve() not in _TRUSTED:
            raise ValueError(
                f"loading this model would run the SavedModel in {config['folder']}. If you trust that folder, call "
                f"bert_models.HubEncoder.trust({config['folder']!r}) before."
            )
        return cls(**config)


def _loaded(folder: str, mlm: bool) -> Any:
    """The loaded object, or its `.mlm`."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"a SavedModel can only be a layer with Keras's tensorflow backend, but it runs on "
            f"{keras.backend.backend()}; bert_models.load reads the weights of an exported encoder on every backend."
        )
    if not (Path(folder) / "saved_model.pb").is_file():
        raise FileNotFoundError(
            f"No SavedModel in {folder!r}: give the folder of an exported encoder. A .keras file holds its weights but "
            "not its program, so put the folder back there, or load the model from the working folder it was made in."
        )
    saved = tf.saved_model.load(folder)
    if mlm and not hasattr(saved, "mlm"):
        raise ValueError(f"the encoder in {folder} was exported without mlm; export it with mlm=MaskedLM(encoder).")
    return saved.mlm if mlm else saved


def _output_specs(saved: Any, names: Iterable[str], folder: str) -> dict[str, Any]:
    """Shapes and dtypes of what the object gives for int32 [None, None]; says whether it is an encoder at all."""
    specs = {name: tf.TensorSpec([None, None], tf.int32, name) for name in names}
    try:
        outputs = saved.__call__.get_concrete_function(specs, training=False).structured_outputs
        # Keras would wrap lists and dicts, and outputs have to have the same structure
        return {name: list(value) if isinstance(value, list | tuple) else value for name, value in outputs.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"what was saved in {folder} is not a text encoder as on TF Hub: it cannot be called with a dict of "
            f"{', '.join(names)}, int32 [batch, length], and training=False."
        ) from None


def as_keras_variables(variables: Iterable[tf.Variable], trainable: Iterable[tf.Variable]) -> list[keras.Variable]:
    """Keras variables that are the given ones, not copies: what one assigns, the other has.

    Keras takes a `tf.Variable` for its own as `keras.layers.TFSMLayer` has it do, but does not promise it.
    """
    trained = {id(variable) for variable in trainable}
    wrapped = []
    for value in variables:
        name = value.name.removesuffix(":0").replace("/", "_")
        variable = keras.Variable(value, trainable=id(value) in trained, dtype=value.dtype.name, name=name)
        if variable.value is not value:
            raise RuntimeError(f"Keras {keras.__version__} copies TensorFlow's variables; HubEncoder needs >= 3.12.")
        wrapped.append(variable)
    return wrapped
