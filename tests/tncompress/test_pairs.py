"""Which dense layers share hidden units: what is found by experiment against what the code says."""

import keras
import numpy as np
import pytest
from keras import ops

from tncompress.conversion.pairs import Pair, find_pairs
from tncompress.conversion.sites import find_sites

X = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")


def pairs_of(model, x=X):
    return find_pairs(model, [site for site in find_sites(model) if not site.reason], x)


def functional(between, wide=12, end=3):
    """Dense(12), whatever is between, Dense(3)."""
    inputs = keras.Input((6,))
    x = keras.layers.Dense(wide, "gelu", name="up")(inputs)
    return keras.Model(inputs, keras.layers.Dense(end, name="down")(between(x, inputs)))


@pytest.mark.parametrize(
    "between",
    [
        lambda x, _: x,
        lambda x, _: keras.layers.Dropout(0.5)(x),
        lambda x, _: keras.layers.Activation("relu")(x),
        lambda x, _: ops.square(x) + 1.0,
    ],
    ids=["nothing", "dropout", "activation", "arithmetic"],
)
def test_unit_by_unit_work_makes_a_pair(between):
    assert pairs_of(functional(between)) == [Pair(("up",), "down")]


@pytest.mark.parametrize(
    "between",
    [
        lambda x, _: keras.layers.LayerNormalization()(x),
        lambda x, _: keras.layers.Softmax()(x),
        lambda x, _: ops.flip(x, axis=-1),
        lambda x, _: keras.layers.BatchNormalization()(x),  # has weights of the old width
        lambda x, inputs: x + ops.concatenate([inputs, inputs], axis=-1),
    ],
    ids=["normalised", "softmax", "other order", "batch norm", "residual"],
)
def test_other_work_makes_none(between):
    assert pairs_of(functional(between)) == []


def test_hidden_units_that_are_used_elsewhere_make_no_pair():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(12, "relu", name="up")(inputs)
    model = keras.Model(inputs, [keras.layers.Dense(3, name="down")(hidden), ops.sum(hidden, axis=-1)])
    assert pairs_of(model) == []


def test_a_shared_layer_is_in_no_pair():
    inputs = keras.Input((6,))
    up = keras.layers.Dense(6, "relu", name="up")
    model = keras.Model(inputs, keras.layers.Dense(3, name="down")(up(up(inputs))))
    assert pairs_of(model) == []


@keras.saving.register_keras_serializable(package="tests")
class Gated(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.wide = keras.layers.Dense(12, "gelu")
        self.gate = keras.layers.Dense(12)
        self.narrow = keras.layers.Dense(6)

    def build(self, shape):
        self.wide.build(shape)
        self.gate.build(shape)
        self.narrow.build((*shape[:-1], 12))

    def call(self, x):
        return x + self.narrow(ops.multiply(self.wide(x), self.gate(x)))


def test_gated_units_are_a_pair_of_three():
    model = keras.Sequential([keras.Input((6,)), Gated(name="a"), Gated(name="b")])
    assert pairs_of(model) == [Pair((f"{n}/wide", f"{n}/gate"), f"{n}/narrow") for n in "ab"]


def test_a_chain_pairs_neighbours_once():
    layers = [keras.layers.Dense(8, "relu", name=name) for name in ("one", "two", "three", "four")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    assert pairs_of(model) == [Pair(("one",), "two"), Pair(("three",), "four")]


def test_encoder_blocks():
    from bert_models import BertConfig, build_encoder

    config = BertConfig(vocab_size=20, hidden_size=8, num_heads=2, num_layers=2)
    batch = {name: np.ones((2, 5), "int32") for name in ("input_word_ids", "input_mask", "input_type_ids")}
    found = pairs_of(build_encoder(config), batch)
    part = "block_{}/feed_forward/{}".format
    assert found == [Pair((part(i, "intermediate"),), part(i, "output_dense")) for i in range(2)]


def test_the_model_is_as_before():
    model = functional(lambda x, _: x)
    before = model.predict(X, verbose=0)
    pairs_of(model)
    np.testing.assert_array_equal(model.predict(X, verbose=0), before)
    with pytest.raises(ValueError, match="incompatible"):
        model.get_layer("down")(np.ones((1, 5), "float32"))
