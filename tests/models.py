"""One small model of every kind that `replace_dense` has to cope with, with random weights and inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

WIDTH = 16


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """Dense layers wherever a subclass may hold them; one is held twice, one is called by keyword."""

    def __init__(self, width=WIDTH, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.attribute = layers.Dense(width, "relu")
        self.items = [layers.Dense(width, "tanh"), [layers.Dense(width)]]
        self.named = {"left": layers.Dense(width, "relu"), "right": layers.Dense(width)}
        self.pair = (layers.Dense(width), layers.Dropout(0.2))
        self.again = self.attribute

    def call(self, x, training=None):
        x = self.attribute(x)
        x = self.items[1][0](self.items[0](x))
        x = self.named["left"](inputs=x) + self.named["right"](x, training=training)
        return self.again(self.pair[1](self.pair[0](x), training=training))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="tests")
class Lazy(keras.Model):
    """Makes its sublayers in build(): another subclassed model, and graphs whose layers Keras names."""

    def build(self, input_shape):
        self.first = layers.Dense(WIDTH, "relu")
        self.inner = Subclassed(name="inner")
        entry = keras.Input((WIDTH,))
        self.graph = keras.Model(entry, layers.Dense(WIDTH)(entry))
        self.sequence = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(WIDTH)])
        self.sequence.build((None, WIDTH))
        self.first.build(input_shape)
        self.inner(ops.zeros((1, WIDTH)))
        self.built = True

    def call(self, x, training=None):
        return self.sequence(self.graph(self.inner(self.first(x), training=training)))


@keras.saving.register_keras_serializable(package="tests")
class Block(layers.Layer):
    """A layer, not a model, with a Dense inside and a residual connection."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(WIDTH, "gelu")
        self.norm = layers.LayerNormalization()

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.norm.build(input_shape)

    def call(self, x):
        return self.norm(x + self.dense(x))

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="tests")
class OfInputsAndOutputs(keras.Model):
    """A Functional model by inheritance, as keras_hub's backbones are."""

    def __init__(self, width=WIDTH, **kwargs):
        entry = keras.Input((WIDTH,), name="entry")
        hidden = layers.Dense(width, "relu", name="hidden")
        super().__init__(entry, layers.Dense(WIDTH, name="out")(hidden(entry)), **kwargs)
        self.hidden_layer = hidden
        self.width = width

    def get_config(self):
        return {"name": self.name, "trainable": self.trainable, "width": self.width}


def functional():
    """Two inputs, two outputs, one Dense used twice."""
    left, right = keras.Input((WIDTH,), name="left"), keras.Input((WIDTH,), name="right")
    shared = layers.Dense(WIDTH, "relu", name="shared")
    both = layers.Concatenate(name="both")([shared(left), shared(right)])
    outputs = {"wide": layers.Dense(24, name="wide")(both), "narrow": layers.Dense(WIDTH, name="narrow")(both)}
    return keras.Model({"left": left, "right": right}, outputs, name="functional")


def sequential():
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            layers.Dense(32, "relu", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.3, name="dropout"),
            layers.Dense(WIDTH, name="second"),
        ],
        name="sequential",
    )


def subclassed():
    model = Subclassed(name="subclassed")
    model(np.zeros((1, WIDTH), "float32"))
    return model


def lazy():
    model = Lazy(name="lazy")
    model(np.zeros((1, WIDTH), "float32"))
    return model


def functional_of_models():
    """A Functional model of a Functional model (twice), a subclassed model and a layer of one's own."""
    inside = keras.Input((WIDTH,))
    graph = keras.Model(inside, layers.Dense(WIDTH, "relu", name="hidden")(inside), name="graph")
    entry = keras.Input((WIDTH,), name="entry")
    x = Block(name="block")(graph(graph(entry)))
    x = Subclassed(name="inner")(x)
    return keras.Model(entry, layers.Dense(8, name="head")(x), name="functional_of_models")


def sequential_of_models():
    return keras.Sequential([keras.Input((WIDTH,)), sequential(), Block(name="block"), subclassed()], name="outer")


def inherited():
    return OfInputsAndOutputs(name="inherited")


def after_conv():
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(name="flatten"),
            layers.Dense(20, name="dense"),
        ],
        name="after_conv",
    )


def frozen():
    model = keras.Sequential(
        [
            keras.Input((WIDTH,)),
            layers.Dense(WIDTH, "relu", name="kept", trainable=False),
            layers.Dense(WIDTH, name="trained"),
        ],
        name="frozen",
    )
    return model


def regularized():
    """Everything that a Dense may carry besides kernel and bias."""
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            layers.Dense(
                24,
                "relu",
                name="first",
                kernel_regularizer=keras.regularizers.L2(0.01),
                bias_regularizer="l1",
                activity_regularizer=keras.regularizers.L2(0.001),
            ),
            layers.Dense(WIDTH, name="no_bias", use_bias=False, kernel_constraint=keras.constraints.MaxNorm(3.0)),
        ],
        name="regularized",
    )


def masked():
    """Tokens; the mask of the Embedding goes through the Dense layers to the pooling."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(11, WIDTH, mask_zero=True, name="embedding")(tokens)
    x = layers.Dense(32, "relu", name="first")(x)
    x = layers.Dense(WIDTH, name="second")(x)
    return keras.Model(tokens, layers.GlobalAveragePooling1D(name="mean")(x), name="masked")


def half_precision():
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            layers.Dense(32, "relu", name="first", dtype="mixed_bfloat16"),
            layers.Dense(WIDTH, name="second", dtype="mixed_bfloat16"),
            layers.Activation("linear", name="out", dtype="float32"),
        ],
        name="half_precision",
    )


def preprocessed():
    """State that is not in variables or not trained: a vocabulary and adapted statistics."""
    words, numbers = keras.Input((3,), dtype="string", name="words"), keras.Input((WIDTH,), name="numbers")
    lookup = layers.StringLookup(name="lookup")
    lookup.adapt([["a", "b"], ["c", "b"]])
    norm = layers.Normalization(name="norm")
    norm.adapt(np.random.default_rng(3).normal(2, 3, (50, WIDTH)).astype("float32"))
    embedded = layers.Flatten(name="flat")(layers.Embedding(5, WIDTH, name="embedding")(lookup(words)))
    both = layers.Concatenate(name="both")([embedded, norm(numbers)])
    return keras.Model(
        {"words": words, "numbers": numbers}, layers.Dense(WIDTH, name="dense")(both), name="preprocessed"
    )


def bert_backbone():
    import keras_hub

    return keras_hub.models.BertBackbone(
        vocabulary_size=30,
        num_layers=1,
        num_heads=2,
        hidden_dim=WIDTH,
        intermediate_dim=32,
        max_sequence_length=12,
        name="bert_backbone",
    )


def encoder():
    import bert_models

    config = bert_models.BertConfig(
        vocab_size=30, hidden_size=WIDTH, num_layers=2, num_heads=2, intermediate_size=32, max_positions=12
    )
    return bert_models.build_encoder(config)


def vectors(seed=0, rows=12):
    return np.random.default_rng(seed).normal(0, 1, (rows, WIDTH)).astype("float32")


def token_batch(names=("input_word_ids", "input_mask", "input_type_ids"), rows=6, seed=0):
    """int32 [rows, 7] each: ids, a mask with padding at the end of every row but the first, segments."""
    draw = np.random.default_rng(seed)
    mask = (np.arange(7) < draw.integers(2, 8, (rows, 1))).astype("int32")
    mask[0] = 1
    ids = draw.integers(1, 11, mask.shape).astype("int32") * mask
    return dict(zip(names, (ids, mask, np.zeros_like(ids)), strict=True))


def _strings(rows=12):
    return np.array([["a", "b", "x"], ["c", "c", "b"]] * (rows // 2))


@dataclass(frozen=True)
class Kind:
    """How to make a model, what to give it, and which paths of dense layers it has."""

    make: Callable[[], keras.Model]
    inputs: Callable[[], Any]
    paths: tuple[str, ...]


_INNER = ("attribute", "items/0", "items/1/0", "named/left", "named/right", "pair/0")
_ATTENTION = tuple(f"_{part}_dense" for part in ("query", "key", "value", "output"))
_BLOCKS = ("block_0", "block_1")

KINDS = {
    "functional": Kind(functional, lambda: {"left": vectors(), "right": vectors(1)}, ("shared", "wide", "narrow")),
    "sequential": Kind(sequential, vectors, ("first", "second")),
    "subclassed": Kind(subclassed, vectors, _INNER),
    "lazy": Kind(
        lazy,
        vectors,
        ("first", *(f"inner/{path}" for path in _INNER), "graph/dense", "sequence/dense", "sequence/dense_1"),
    ),
    "functional_of_models": Kind(
        functional_of_models,
        vectors,
        ("graph/hidden", "block/dense", *(f"inner/{path}" for path in _INNER), "head"),
    ),
    "sequential_of_models": Kind(
        sequential_of_models,
        vectors,
        ("sequential/first", "sequential/second", "block/dense", *(f"subclassed/{path}" for path in _INNER)),
    ),
    "inherited": Kind(inherited, vectors, ("hidden", "out")),
    "after_conv": Kind(
        after_conv, lambda: np.random.default_rng(0).normal(0, 1, (12, 6, 6, 2)).astype("float32"), ("dense",)
    ),
    "frozen": Kind(frozen, vectors, ("kept", "trained")),
    "regularized": Kind(regularized, vectors, ("first", "no_bias")),
    "masked": Kind(masked, lambda: token_batch()["input_word_ids"], ("first", "second")),
    "half_precision": Kind(half_precision, vectors, ("first", "second")),
    "preprocessed": Kind(preprocessed, lambda: {"words": _strings(), "numbers": vectors()}, ("dense",)),
    "bert_backbone": Kind(
        bert_backbone,
        lambda: token_batch(("token_ids", "padding_mask", "segment_ids")),
        (
            *(f"transformer_layer_0/_feedforward_{part}_dense" for part in ("intermediate", "output")),
            *(f"transformer_layer_0/self_attention_layer/{part}" for part in _ATTENTION),
            "pooled_dense",
        ),
    ),
    "encoder": Kind(
        encoder,
        token_batch,
        (
            *(f"{b}/feed_forward/{part}" for b in _BLOCKS for part in ("intermediate", "output_dense")),
            *(f"{b}/attention/{part}" for b in _BLOCKS for part in _ATTENTION),
            "pooler",
        ),
    ),
}


def made(name: str, seed: int = 1) -> tuple[keras.Model, Any]:
    """A model of that kind with random weights, biases too, and inputs for it."""
    keras.utils.set_random_seed(seed)
    model = KINDS[name].make()
    draw = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if variable.path.endswith("bias"):
            variable.assign(draw.normal(0, 0.3, variable.shape))
    inputs = KINDS[name].inputs()
    if name == "preprocessed":  # Keras takes no numpy strings
        import tensorflow as tf

        inputs = {key: tf.constant(value) for key, value in inputs.items()}
    return model, inputs


def outputs_of(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    """All outputs in inference, flat."""
    return [ops.convert_to_numpy(ops.cast(y, "float32")) for y in keras.tree.flatten(model(inputs, training=False))]


def largest_difference(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """max |a - b| over lists of arrays."""
    assert len(first) == len(second)
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


def full_recipe(model: keras.Model) -> dict[str, dict]:
    """Low rank of full rank for every Dense layer: represents any kernel exactly."""
    from tncompress import find_sites
    from tncompress.forms import low_rank

    return {
        site.path: {
            "form": "low_rank",
            "spec": low_rank.spec(site.in_dim, site.out_dim, min(site.in_dim, site.out_dim)).to_config(),
        }
        for site in find_sites(model)
        if not site.reason
    }
