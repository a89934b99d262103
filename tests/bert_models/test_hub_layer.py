"""A SavedModel as a layer of Keras 3: shapes, training, saving, encoders from elsewhere."""

import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest

from bert_models import hub_layer
from bert_models.config import BertConfig
from bert_models.encoder import build_encoder
from bert_models.heads import MaskedLM
from bert_models.hub_export import export
from bert_models.hub_layer import HubEncoder, as_keras_variables
from bert_models.inputs import INPUT_NAMES, POSITIONS_NAME

if keras.backend.backend() != "tensorflow":
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf

BATCH = dict(zip(INPUT_NAMES, np.array([[[2, 9, 3, 0]] * 2, [[1, 1, 1, 0]] * 2, [[0, 0, 1, 1]] * 2]), strict=True))
MLM_BATCH = {**BATCH, POSITIONS_NAME: np.array([[1, 2, 0]] * 2)}
TARGETS = np.array([[1.0], [-2.0]])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    encoder = build_encoder(BertConfig(vocab_size=14, hidden_size=8, num_layers=1, num_heads=2, max_positions=20))
    encoder.get_layer("pooler").kernel.regularizer = keras.regularizers.L2(0.1)
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    export(encoder, folder, mlm=MaskedLM(encoder), vocab=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return encoder, folder


def classifier(layer, tokens=None):
    inputs = {name: keras.Input((tokens,), dtype="int32", name=name) for name in INPUT_NAMES}
    return keras.Model(inputs, keras.layers.Dense(1)(layer(inputs)["pooled_output"]))


def test_the_layer_computes_what_the_encoder_does(made):
    encoder, folder = made
    expected, outputs = encoder(BATCH), HubEncoder(folder)(BATCH)  # int64: converted
    np.testing.assert_array_equal(outputs.pop("default"), outputs["pooled_output"])
    assert set(outputs) == set(expected)
    for name in expected:
        for one, other in zip(*map(keras.tree.flatten, (outputs[name], expected[name])), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_symbolic_outputs_have_the_structure_and_shapes_of_real_ones(made):
    layer = HubEncoder(made[1], mlm=True)
    symbols = {name: keras.Input(ids.shape[1:], batch_size=2, dtype="int32") for name, ids in MLM_BATCH.items()}
    expected = keras.tree.map_structure(lambda x: (tuple(x.shape), x.dtype.name), layer(MLM_BATCH))
    assert keras.tree.map_structure(lambda x: (tuple(x.shape), x.dtype), layer(symbols)) == expected
    assert expected["mlm_logits"] == ((2, 3, 14), "float32")
    unknown = classifier(HubEncoder(made[1]))
    assert unknown.output_shape == (None, 1)


def test_wrapped_variables_are_the_given_ones():
    variables = [tf.Variable([1.0, 2.0], name="a/b"), tf.Variable(3, trainable=False), tf.Variable(True)]
    first, second, third = as_keras_variables(variables, variables[:1])
    assert (first.name, first.trainable, second.trainable, third.dtype) == ("a_b", True, False, "bool")
    first.assign([5.0, 6.0])
    assert variables[0].numpy().tolist() == [5.0, 6.0]
    variables[1].assign(7)
    assert int(second) == 7
    assert first.value is variables[0]


def test_it_trains_with_adam_and_xla_and_is_saved_exactly(made, tmp_path):
    layer = HubEncoder(made[1])
    model = classifier(layer, tokens=4)
    model.compile("adam", "mse", jit_compile=True)
    before = [v.numpy() for v in layer.trainable_variables]
    model.fit(BATCH, TARGETS, verbose=0)
    changed = [not np.array_equal(*pair) for pair in zip(before, layer.trainable_variables, strict=True)]
    assert changed == [True] * len(made[0].trainable_variables)

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")  # in safe mode
    np.testing.assert_array_equal(again(BATCH), model(BATCH))
    for one, other in zip(again.variables, model.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    again.export(tmp_path / "whole", verbose=False)
    whole = tf.saved_model.load(tmp_path / "whole")
    batch = {name: tf.cast(ids, tf.int32) for name, ids in BATCH.items()}
    np.testing.assert_allclose(whole.serve(batch), model(BATCH), atol=1e-6)


def test_a_frozen_layer_neither_trains_nor_drops_out(made):
    layer = HubEncoder(made[1], trainable=False)
    assert layer.trainable_variables == []
    np.testing.assert_array_equal(layer(BATCH, training=True)["pooled_output"], layer(BATCH)["pooled_output"])
    assert layer.losses == []
    layer.trainable = True
    assert len(layer.trainable_variables) == len(made[0].trainable_variables)
    dropped = [layer(BATCH, training=True)["pooled_output"] for _ in range(2)]
    assert not np.allclose(*dropped)
    penalty = 0.1 * np.sum(np.square(made[0].get_layer("pooler").kernel.numpy()))
    assert [float(loss) for loss in layer.losses] == [pytest.approx(penalty, rel=1e-6)]


def test_a_file_from_elsewhere_runs_no_folder_that_was_not_named(made, tmp_path, monkeypatch):
    classifier(HubEncoder(made[1])).save(tmp_path / "model.keras")
    monkeypatch.setattr(hub_layer, "_TRUSTED", set())
    with pytest.raises(ValueError, match=r"HubEncoder\.trust"):
        keras.saving.load_model(tmp_path / "model.keras")
    HubEncoder.trust(made[1])
    keras.saving.load_model(tmp_path / "model.keras")


def test_a_folder_that_is_gone(made, tmp_path):
    made[1].rename(tmp_path / "encoder")
    try:
        model = classifier(HubEncoder(tmp_path / "encoder"))
        model.save(tmp_path / "model.keras")
    finally:
        (tmp_path / "encoder").rename(made[1])
    with pytest.raises(FileNotFoundError, match="put the folder back"):
        keras.saving.load_model(tmp_path / "model.keras")


def test_what_is_no_text_encoder(made, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="No SavedModel in"):
        HubEncoder(tmp_path)
    module = tf.Module()
    module.double = tf.function(lambda x: 2 * x, [tf.TensorSpec([], tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "module"))
    with pytest.raises(ValueError, match="not a text encoder"):
        HubEncoder(tmp_path / "module")
    with pytest.raises(ValueError, match="exported without mlm"):
        HubEncoder(tmp_path / "module", mlm=True)
    with pytest.raises(ValueError, match="missing: masked_lm_positions"):
        HubEncoder(made[1], mlm=True)(BATCH)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="tensorflow backend"):
        HubEncoder(made[1])


# Saved by tf_keras with the interface of TF Hub's own exporter: a Keras model, no functions to serve
FROM_TF_HUB = """
import sys
import tf_keras
from tf_keras import layers

ids, mask, types = inputs = [layers.Input((None,), dtype="int32", name=name) for name in sys.argv[2:5]]
x = layers.Embedding(14, 8, name="word_embeddings")(ids) + layers.Embedding(2, 8)(types)
first = layers.Dropout(0.5)(layers.Dense(8, kernel_regularizer="l2", name="first")(x))
second = layers.LayerNormalization(name="second/layer_norm")(first)
pooled = layers.Dense(8, "tanh", name="pooler")(second[:, 0])
outputs = {"sequence_output": second, "pooled_output": pooled, "encoder_outputs": [first, second], "default": pooled}
core = tf_keras.Model(dict(zip(sys.argv[2:5], inputs)), outputs)
core.save(sys.argv[1], include_optimizer=False, save_format="tf")
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tf_keras") is None, reason="needs the extra [hub]")
def test_an_encoder_of_tf_hubs_exporter(tmp_path):
    folder = tmp_path / "encoder"
    subprocess.run([sys.executable, "-c", FROM_TF_HUB, str(folder), *INPUT_NAMES], check=True, capture_output=True)
    layer = HubEncoder(folder)
    model = classifier(layer)
    assert "second_layer_norm_gamma" in [v.name for v in layer.trainable_variables]
    before = [v.numpy() for v in layer.trainable_variables]
    model.compile("adam", "mse")
    model.fit(BATCH, TARGETS, verbose=0)
    assert all(not np.array_equal(*pair) for pair in zip(before, layer.trainable_variables, strict=True))
    assert len(layer.losses) == 1
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(BATCH), model(BATCH))
