"""The encoder: outputs, masks, saving, export, training; what belongs to the kinds of blocks is in test_blocks.py."""

import math
from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pytest
from encoders import KINDS, batch_of, encoder_of, outputs_of
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from bert_models import BertConfig, build_encoder

ON_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs the TensorFlow backend")


@pytest.fixture
def encoder(small_config):
    keras.utils.set_random_seed(1)
    return build_encoder(small_config)


def test_outputs_have_their_names_and_shapes(encoder):
    outputs = encoder(batch_of([3, 5], 5))
    assert set(outputs) == {"sequence_output", "pooled_output", "encoder_outputs"}
    assert tuple(outputs["pooled_output"].shape) == (2, 8)
    assert [tuple(x.shape) for x in outputs["encoder_outputs"]] == [(2, 5, 8)] * 2
    last, sequence = map(ops.convert_to_numpy, (outputs["encoder_outputs"][-1], outputs["sequence_output"]))
    np.testing.assert_array_equal(last, sequence)


def test_layer_names_are_the_documented_ones(encoder):
    names = [layer.name for layer in encoder.layers]
    assert {"embeddings", "block_0", "block_1", "pooler"} <= set(names)
    block = encoder.get_layer("block_1")
    assert block.feed_forward.intermediate.kernel.path == "block_1/feed_forward/intermediate/kernel"
    assert type(block.feed_forward.output_dense) is keras.layers.Dense


def dense(x, layer):
    """x [..., in] -> [..., out] in float64."""
    return x @ ops.convert_to_numpy(layer.kernel).astype("float64") + ops.convert_to_numpy(layer.bias)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu"])
def test_feed_forward_is_the_formula(small_config, activation):
    erf = np.vectorize(math.erf)
    formulas = {
        "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
        "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
        "relu": lambda x: np.maximum(x, 0),
    }
    layer = build_encoder(replace(small_config, activation=activation)).get_layer("block_0").feed_forward
    x = np.random.default_rng(0).normal(0, 2, (2, 3, 8))
    expected = dense(formulas[activation](dense(x, layer.intermediate)), layer.output_dense)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x.astype("float32"))), expected, atol=1e-5)


WITHOUT_DROPOUT = "dense, no dropout"  # Keras computes attention by another function then
encoder_once = cache(encoder_of)


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")  # of one token
@pytest.mark.parametrize("kind", [*KINDS, WITHOUT_DROPOUT])
@given(st.lists(st.integers(0, 9), min_size=1, max_size=3), st.integers(0, 11), st.integers(0, 2**31))
@settings(max_examples=6, deadline=None)
def test_neither_padding_nor_neighbours_change_a_row(kind, lengths, padding, seed):
    encoder = encoder_once("dense", attention_dropout=0.0) if kind == WITHOUT_DROPOUT else encoder_once(kind)
    batch = batch_of(lengths, max(*lengths, 1) + padding, seed=seed)
    noise = batch_of([batch["input_mask"].shape[1]] * len(lengths), batch["input_mask"].shape[1], seed=seed + 1)
    for name in ("input_word_ids", "input_type_ids"):  # what stands in the padding must not matter
        batch[name] = np.where(batch["input_mask"], batch[name], noise[name])
    together = outputs_of(encoder, batch)
    assert all(np.isfinite(x).all() for x in together)  # also of a row of padding alone
    for row, length in enumerate(lengths):
        if length:
            alone = {name: array[row : row + 1, :length] for name, array in batch.items()}
            for one, many in zip(outputs_of(encoder, alone), together, strict=True):
                np.testing.assert_allclose(one[0], many[row, :length] if many.ndim == 3 else many[row], atol=2e-5)


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis 3")  # of one token
@pytest.mark.parametrize("longest", [1, 3, 20])
def test_any_length_up_to_the_last_position(encoder, longest):
    assert encoder(batch_of([1, longest], longest))["sequence_output"].shape[1] == longest


@ON_TENSORFLOW
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: batch_of([21], 21), ["21 tokens", "20 positions", "max_length=20"]),
        (lambda x: {**x, "input_word_ids": x["input_word_ids"] + 9}, ["input_word_ids", "0 to 13"]),
        (lambda x: {**x, "input_type_ids": x["input_type_ids"] - 1}, ["input_type_ids", "0 to 1"]),
        (lambda x: {"input_word_ids": x["input_word_ids"]}, ["input_mask"]),
    ],
    ids=["too long", "unknown word", "unknown segment", "missing input"],
)
def test_bad_batch_is_refused_with_what_was_wanted(encoder, change, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are looked for below
        encoder(change(batch_of([3, 3], 3)))
    assert all(word in str(caught.value) for word in words), caught.value


def test_keras_file_gives_the_same_numbers(encoder, tmp_path):
    batch = batch_of([3, 5], 5)
    encoder.save(tmp_path / "encoder.keras")
    again = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    assert again.config == encoder.config
    for before, after in zip(outputs_of(encoder, batch), outputs_of(again, batch), strict=True):
        np.testing.assert_array_equal(before, after)


@ON_TENSORFLOW
def test_saved_model_gives_the_same_numbers(encoder, tmp_path):
    import tensorflow as tf

    batch = batch_of([3, 5], 5)
    encoder.save(tmp_path / "encoder.keras")
    keras.saving.load_model(tmp_path / "encoder.keras").export(tmp_path / "saved", verbose=False)
    saved = tf.saved_model.load(tmp_path / "saved")  # kept: its variables die with it
    served = saved.serve(batch)
    # Compared with the compiled program: in eager TensorFlow operations are not fused, and
    # rounding differs.
    outputs = tf.function(lambda x: encoder(x, training=False))(batch)
    hidden = outputs.pop("encoder_outputs")
    outputs.update({f"encoder_outputs_{i}": x for i, x in enumerate(hidden)})
    assert set(served) == set(outputs)
    for name, value in outputs.items():
        np.testing.assert_array_equal(served[name], value)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_training_step_moves_every_weight(small_config, jit_compile):
    if jit_compile and keras.backend.backend() == "torch":
        pytest.skip("jit_compile is not for the torch backend")
    encoder = build_encoder(small_config)
    before = [ops.convert_to_numpy(v) for v in encoder.trainable_variables]
    head = keras.Model(encoder.input, ops.sum(encoder.output["pooled_output"], axis=-1))
    head.compile("adam", "mse", jit_compile=jit_compile)
    loss = head.train_on_batch(batch_of([3, 5, 9, 9], 9), np.ones(4, "float32"))
    assert np.isfinite(loss)
    still = [
        v.path
        for v, old in zip(encoder.trainable_variables, before, strict=True)
        if np.array_equal(ops.convert_to_numpy(v), old)
    ]
    # Attention scores do not change when one number is added to all keys of a head.
    assert [path for path in still if not path.endswith("attention/key/bias")] == []


@pytest.mark.parametrize(
    ("config", "count"),
    [
        # V*H + 512*H + 2*H + 2*H + L*(4*(H*H + H) + 2*H*F + F + H + 4*H) + H*H + H
        (BertConfig(hidden_size=384, num_layers=6, intermediate_size=1536), 22_713_216),
        pytest.param(BertConfig(), 109_482_240, marks=pytest.mark.slow),  # BERT-base, uncased
    ],
    ids=["MiniLM", "BERT-base"],
)
def test_parameter_count(config, count):
    assert build_encoder(config).count_params() == count
