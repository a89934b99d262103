"""Copies of models, layers that become others, and watched calls: what rests on Keras's private parts."""

import keras
import numpy as np
import pytest
from keras import layers
from models import KINDS, largest_difference, made, outputs_of

from tncompress import TNDense
from tncompress.conversion.surgery import copy_model, model_config, put_networks, rebuilt
from tncompress.conversion.walking import locate, walk
from tncompress.conversion.watching import watched
from tncompress.fitting.choice import Choice
from tncompress.forms import low_rank


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"bert_backbone"}))
def test_copies_compute_the_same_and_share_nothing(name):
    model, inputs = made(name)
    copy = copy_model(model)
    assert type(copy) is type(model)
    assert largest_difference(outputs_of(copy, inputs), outputs_of(model, inputs)) == 0.0
    assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}
    assert not {id(layer) for _, layer in walk(copy)} & {id(layer) for _, layer in walk(model)}


def test_a_config_may_be_used_more_than_once():
    """Keras takes parts out of what it deserialises."""
    model, _ = made("functional")
    config = model_config(model)
    first, second = rebuilt(config), rebuilt(config)
    assert first.count_params() == second.count_params() == model.count_params()


def test_copy_has_running_statistics_and_vocabulary():
    model, inputs = made("preprocessed")
    copy = copy_model(model)
    assert copy.get_layer("lookup").get_vocabulary() == model.get_layer("lookup").get_vocabulary()
    np.testing.assert_array_equal(copy.get_layer("norm").mean, model.get_layer("norm").mean)
    model, inputs = made("sequential")
    model.compile("sgd", "mse")
    model.fit(inputs, inputs, verbose=0)
    moving = model.get_layer("norm").moving_mean
    assert np.abs(np.asarray(moving)).max() > 0
    np.testing.assert_array_equal(copy_model(model).get_layer("norm").moving_mean, moving)


def test_networks_take_the_place_of_layers_everywhere():
    model, inputs = made("subclassed")
    attribute, tracked = model.attribute, len(list(walk(model)))
    network = put_networks(model, {"attribute": Choice("low_rank", low_rank.spec(16, 16, 2))})["attribute"]
    assert type(attribute) is TNDense
    assert attribute is model.attribute is model.again
    assert vars(network) is vars(attribute)
    assert len(list(walk(model))) == tracked
    for core in network.cores:
        core.assign(np.ones(core.shape))
    entering = np.ones((1, 16), "float32")
    np.testing.assert_allclose(np.asarray(attribute(entering)), np.full((1, 16), 32.0))  # relu(sum of 16 ones, twice)
    assert model.count_params() == sum(int(np.prod(v.shape)) for v in model.weights)
    outputs_of(model, inputs)


def test_a_network_is_stripped_of_the_kernel():
    model, _ = made("sequential")
    put_networks(model, {"first": Choice("low_rank", low_rank.spec(16, 32, 2))})
    paths = [v.path for v in model.variables if "first" in v.path]
    assert [path.rsplit("/")[-1] for path in paths] == ["core_0", "core_1", "bias"]


def test_watching_sees_every_call_and_leaves_no_trace():
    model, inputs = made("subclassed")
    chosen = locate(model, ["attribute", "named/left"])
    before = {path: set(vars(layer)) for path, layer in chosen.items()}
    seen = []
    expected = outputs_of(model, inputs)
    with watched(chosen, lambda path, x: seen.append((path, tuple(x.shape)))):
        got = outputs_of(model, inputs)
    assert largest_difference(got, expected) == 0.0
    assert [path for path, _ in seen] == ["attribute", "named/left", "attribute"]  # the shared one twice
    assert {path: set(vars(layer)) for path, layer in chosen.items()} == before
    seen.clear()
    outputs_of(model, inputs)
    assert seen == []


def test_watching_ends_with_an_error():
    model, inputs = made("sequential")
    chosen = locate(model, ["first"])

    def fail(path, x):
        raise RuntimeError("seen")

    with pytest.raises(RuntimeError, match="seen"), watched(chosen, fail):
        model(inputs)
    assert "call" not in vars(chosen["first"])
    model(inputs)


def test_layers_of_the_same_name_in_a_functional_subclass():
    entry = keras.Input((4,))
    model = keras.Model(entry, layers.Dense(4)(layers.Dense(6)(entry)))
    copy = copy_model(model)
    assert [path for path, _ in walk(copy)] == [path for path, _ in walk(model)]


def test_a_traced_call_is_refused():
    """tf.function on `call` keeps the variables that it was traced with, in Keras's own copies too."""
    tensorflow = pytest.importorskip("tensorflow")

    class Traced(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(4)

        @tensorflow.function
        def call(self, x):
            return self.dense(x)

    model = Traced(name="traced")
    model(np.ones((1, 4), "float32"))
    with pytest.raises(ValueError, match=r"'traced' has @tf\.function on its call"):
        copy_model(model)


def test_training_the_copy_leaves_the_model_as_it_was():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2)])
    x = np.ones((8, 4), "float32")
    before = model.predict(x, verbose=0)
    copy = copy_model(model)
    copy.compile("adam", "mse")
    copy.fit(x, np.zeros((8, 2)), epochs=2, verbose=0)  # on JAX a step gives the buffers of its variables away
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)
