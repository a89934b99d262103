"""The dense encoder: outputs, masks, saving, export, training."""

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import ops

from bert_models import BertConfig, build_encoder
from bert_models.encoder import INPUT_NAMES

ON_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="needs the TensorFlow backend")


def batch_of(lengths, longest, vocab_size=14, seed=0):
    """A dict of int32 [B, longest] with random ids and rows of the given lengths."""
    draw = np.random.default_rng(seed)
    mask = (np.arange(longest) < np.array(lengths)[:, None]).astype("int32")
    ids = draw.integers(5, vocab_size, mask.shape).astype("int32")
    types = draw.integers(0, 2, mask.shape).astype("int32")
    return dict(zip(INPUT_NAMES, (ids * mask, mask, types * mask), strict=True))


def outputs_of(encoder, batch):
    """All outputs as one flat list of arrays."""
    return [ops.convert_to_numpy(x) for x in keras.tree.flatten(encoder(batch, training=False))]


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


def test_padding_does_not_change_the_other_positions(encoder):
    tight = batch_of([4, 4], 4)
    wide = {name: np.pad(array, ((0, 0), (0, 6))) for name, array in tight.items()}
    wide["input_word_ids"][:, 4:] = 7  # what stands there must not matter either
    for short, long in zip(outputs_of(encoder, tight), outputs_of(encoder, wide), strict=True):
        np.testing.assert_allclose(short, long[:, :4] if long.ndim == 3 else long, atol=2e-6)


def test_a_row_does_not_depend_on_its_neighbours(encoder):
    batch = batch_of([9, 2, 5], 9)
    alone = {name: array[1:2] for name, array in batch.items()}
    for one, many in zip(outputs_of(encoder, alone), outputs_of(encoder, batch), strict=True):
        np.testing.assert_allclose(one[0], many[1], atol=2e-6)


def test_a_row_of_padding_alone_is_finite(encoder):
    assert all(np.isfinite(x).all() for x in outputs_of(encoder, batch_of([0, 3], 4)))


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


@pytest.mark.parametrize(("policy", "half"), [("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")])
def test_mixed_precision_keeps_the_hidden_states_in_float32(small_config, policy, half):
    keras.config.set_dtype_policy(policy)
    try:
        encoder = build_encoder(small_config)
    finally:
        keras.config.set_dtype_policy("float32")
    outputs = encoder(batch_of([3, 0], 5))
    kinds = {name: keras.backend.standardize_dtype(x.dtype) for name, x in outputs.items() if name != "encoder_outputs"}
    assert kinds == {"sequence_output": "float32", "pooled_output": half}
    assert all(keras.backend.standardize_dtype(v.dtype) == "float32" for v in encoder.trainable_variables)
    assert np.isfinite(ops.convert_to_numpy(outputs["sequence_output"])).all()


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
