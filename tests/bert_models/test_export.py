"""An exported encoder is what the cards promise: outputs, variables, mlm, signatures, gradients."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from bert_models.config import BertConfig
from bert_models.encoder import build, build_encoder
from bert_models.heads import MaskedLM
from bert_models.inputs import INPUT_NAMES, POSITIONS_NAME

if keras.backend.backend() != "tensorflow":
    pytest.skip("SavedModels are TensorFlow's", allow_module_level=True)

import tensorflow as tf

from bert_models.hub_export import export

TINY = {"vocab_size": 14, "hidden_size": 8, "num_layers": 2, "num_heads": 2, "max_positions": 20}
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s"]


def batch_of(lengths=(3, 5), longest=5, dtype="int32"):
    draw = np.random.default_rng(0)
    mask = np.arange(longest) < np.array(lengths)[:, None]
    ids = draw.integers(5, 14, mask.shape) * mask
    return dict(zip(INPUT_NAMES, (x.astype(dtype) for x in (ids, mask, ids % 2)), strict=True))


def randomised(model):
    """The model with random numbers in every weight, so that none can be left out unnoticed."""
    draw = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight + draw.normal(0, 0.3, weight.shape))
    return model


def graph_call(model, batch):
    """In a graph operations are fused as they are in a SavedModel."""
    return tf.function(lambda x: model(x, training=False))(batch)


def assert_same(outputs, expected, tolerance=1e-5):
    assert set(outputs) == set(expected)
    for name, value in expected.items():
        for one, other in zip(keras.tree.flatten(outputs[name]), keras.tree.flatten(value), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_allclose(tf.cast(one, "float32"), tf.cast(other, "float32"), rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny encoder with a head and a regularizer, its folder, and what is loaded from there."""
    encoder = build_encoder(BertConfig(**TINY))
    encoder.get_layer("pooler").kernel.regularizer = keras.regularizers.L2(0.1)
    mlm = randomised(MaskedLM(encoder))
    names = [w.value.name for w in mlm.weights]
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    export(encoder, folder, mlm=mlm, vocab=VOCAB, lower_case=False)
    assert [w.value.name for w in mlm.weights] == names
    return SimpleNamespace(encoder=encoder, mlm=mlm, folder=folder, loaded=tf.saved_model.load(folder))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("lengths", [(1, 4), (20, 1, 0)])
def test_outputs_are_the_encoders(made, dtype, lengths):
    batch = batch_of(lengths, max(lengths))
    expected = graph_call(made.encoder, batch)
    outputs = made.loaded(batch_of(lengths, max(lengths), dtype))
    assert isinstance(outputs["encoder_outputs"], list)
    assert_same(outputs, {**expected, "default": expected["pooled_output"]})
    np.testing.assert_array_equal(outputs["encoder_outputs"][-1], outputs["sequence_output"])


def test_mlm_is_a_model_of_its_own_on_the_same_variables(made):
    batch = {**batch_of(), POSITIONS_NAME: np.array([[1, 0], [2, 4]], "int32")}
    assert_same(made.loaded.mlm(batch), graph_call(made.mlm, batch))
    below = {id(v) for v in made.loaded.trainable_variables}
    own = [v.name for v in made.loaded.mlm.trainable_variables if id(v) not in below]
    assert len(made.loaded.mlm.trainable_variables) == len(below) + len(own)
    assert {*own} == {
        f"mlm/{x}:0"
        for x in ("output_bias", "transform/kernel", "transform/bias", "layer_norm/gamma", "layer_norm/beta")
    }


def test_variables_have_the_values_and_full_names(made):
    loaded = made.loaded
    for variable, weight in zip(loaded.trainable_variables, made.encoder.weights, strict=True):
        np.testing.assert_array_equal(variable, weight)
    assert [v.name for v in loaded.variables if not v.trainable] == ["do_lower_case:0"]
    names = [v.name for v in loaded.trainable_variables]
    assert "block_1/attention/query/kernel:0" in names
    # The patterns with which the lambert card keeps weights out of decay
    excluded = [name for name in names if "layer_norm" in name or "bias" in name]
    assert excluded == [name for name in names if name.rpartition("/")[2] in ("gamma:0", "beta:0", "bias:0")]
    assert len(names) == len({*names}) == 39


def test_regularization_losses(made):
    expected = 0.1 * np.sum(np.square(made.encoder.get_layer("pooler").kernel.numpy()))
    assert [float(loss()) for loss in made.loaded.regularization_losses] == [pytest.approx(expected, rel=1e-6)]


@pytest.mark.parametrize("pass_it", [lambda m, x, t: m(x, t), lambda m, x, t: m(x, training=t)])
@pytest.mark.parametrize("kind", [bool, tf.constant])
def test_training_is_positional_or_keyword_and_drops_out(made, pass_it, kind):
    batch = batch_of()
    inference = made.loaded(batch)["sequence_output"]
    np.testing.assert_allclose(pass_it(made.loaded, batch, kind(False))["sequence_output"], inference, atol=1e-6)
    first, second = (pass_it(made.loaded, batch, kind(True))["sequence_output"] for _ in range(2))
    assert not np.allclose(first, inference)
    assert not np.allclose(first, second)


def test_seed_states_set_the_dropout(made):
    def once():
        for i, state in enumerate(made.loaded.seed_states):
            state.assign(tf.constant([7, i], state.dtype))
        return made.loaded(batch_of(), training=True)["pooled_output"]

    assert len(made.loaded.seed_states) == 5
    np.testing.assert_array_equal(once(), once())


def test_signatures_name_what_they_give(made):
    batch = {name: tf.constant(ids) for name, ids in batch_of().items()}
    outputs = made.loaded.signatures["serving_default"](**batch)
    expected = dict(made.loaded(batch))
    expected.pop("default")
    hidden = expected.pop("encoder_outputs")
    assert_same(outputs, {**expected, **{f"encoder_outputs_{i}": x for i, x in enumerate(hidden)}})
    predicted = made.loaded.signatures["mlm"](**batch, masked_lm_positions=tf.constant([[1], [2]]))
    assert {*predicted} == {*outputs, "mlm_logits"}
    assert_same(made.loaded.serve(batch), made.loaded(batch))


# Gradients


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
    encoder = randomised(build_encoder(BertConfig(**{**TINY, "num_layers": 1})))
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    export(encoder, folder)
    return SimpleNamespace(encoder=encoder, loaded=tf.saved_model.load(folder))


EAGER_OR_NOT = pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "function"])


SLOW_TENSOR = pytest.param(tf.constant(True), marks=pytest.mark.slow, id="a tensor")


@EAGER_OR_NOT
@pytest.mark.parametrize("training", [True, SLOW_TENSOR])
def test_a_persistent_tape_is_asked_twice(shallow, wrap, training):
    @wrap
    def gradients(batch):
        with tf.GradientTape(persistent=True) as tape:
            outputs = shallow.loaded(batch, training=training)
            losses = [tf.reduce_sum(outputs[name] ** 2) for name in ("pooled_output", "sequence_output")]
        found = [tape.gradient(loss, shallow.loaded.trainable_variables) for loss in losses]
        assert all(g is not None for g in found[0] + found[1])
        return [[tf.reduce_max(tf.abs(tf.convert_to_tensor(g))) for g in gradient] for gradient in found]

    pooled, sequence = gradients(batch_of())
    assert np.all(np.array(pooled) > 0)
    assert np.all(np.array(sequence[:-2]) > 0)
    assert np.all(np.array(sequence[-2:]) == 0)  # it does not see the pooler


def second_order(model, variables, batch):
    """Gradient of |d loss / d variables|^2."""
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            loss = tf.reduce_sum(model(batch, training=False)["pooled_output"] ** 2)
        size = tf.add_n([tf.reduce_sum(tf.convert_to_tensor(g) ** 2) for g in inner.gradient(loss, variables)])
    return [tf.convert_to_tensor(g) for g in outer.gradient(size, variables)]


@EAGER_OR_NOT
def test_gradients_of_gradients(shallow, wrap):
    loaded, encoder = shallow.loaded, shallow.encoder
    found = wrap(lambda x: second_order(loaded, loaded.trainable_variables, x))(batch_of())
    expected = second_order(encoder, [v.value for v in encoder.trainable_variables], batch_of())
    largest = max(np.abs(x).max() for x in expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * largest)


# Every kind of encoder


def assert_export_is(encoder, folder, tolerance=1e-5):
    export(encoder, folder)
    loaded = tf.saved_model.load(folder)
    expected = graph_call(encoder, batch_of())
    assert_same(loaded(batch_of()), {**expected, "default": expected["pooled_output"]}, tolerance)
    assert len(loaded.trainable_variables) == len(encoder.trainable_variables)


SMALLER = {**TINY, "hidden_size": 128, "num_layers": 1}
PRESETS = ["tn_bert", "talkheads_ggelu_bert_en_base", "lambert_en_uncased_L-24_H-1024_A-16"]
POLICIES = ["float32", "mixed_bfloat16", "mixed_float16"]


@pytest.mark.parametrize(("name", "dtype"), zip(PRESETS, POLICIES, strict=True))
def test_presets_and_dtype_policies(name, dtype, tmp_path):
    # One rounding to bfloat16 is 2^-9 of values up to about 4
    assert_export_is(build(name, dtype=dtype, **SMALLER), tmp_path / "encoder", 1e-5 if dtype == "float32" else 2e-2)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", POLICIES)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_in_every_dtype_policy(name, dtype, tmp_path):
    test_presets_and_dtype_policies(name, dtype, tmp_path)
