"""Moments gathered by `calibrate` against those that numpy computes from inputs seen by a model built for that."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import WIDTH, made, token_batch, vectors

from tncompress import calibrate, replace_dense, report


def check(moments, rows):
    """Equal to numpy's for the vectors `rows [n, in_dim]`."""
    rows = np.asarray(rows, "float64").reshape(-1, rows.shape[-1])
    assert moments.count == len(rows)
    size = np.abs(rows).max() + 1e-6
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=0, atol=2**-22 * size)
    second = rows.T @ rows / len(rows)
    np.testing.assert_allclose(moments.second, second, rtol=0, atol=2**-23 * np.sqrt(len(rows)) * size**2)


def seen_by(model, name, inputs):
    """What the layer of that name gets, by a model of its own."""
    entry = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.Model(entry, model.get_layer(name).input).predict(inputs, verbose=0)


@pytest.fixture
def sequential():
    return made("sequential")[0]


X = vectors(rows=80)
HALVES = [X[:33], X[33:]]


def generator():
    yield from HALVES


SAME_DATA = {
    "list": HALVES,
    "one batch": [X],
    "array": X,
    "generator": generator,
    "with labels": [(x, np.zeros(len(x))) for x in HALVES],
    "with weights": [(x, np.zeros(len(x)), np.ones(len(x))) for x in HALVES],
    "tensors": [tf.constant(x) for x in HALVES],
    "dataset": tf.data.Dataset.from_tensor_slices(X).batch(7),
    "dataset with labels": tf.data.Dataset.from_tensor_slices((X, np.zeros(80))).batch(7),
}


@pytest.mark.parametrize("data", SAME_DATA.values(), ids=SAME_DATA)
def test_data_of_every_kind(sequential, data):
    moments = calibrate(sequential, ["first", "second"], data() if callable(data) else data)
    check(moments["first"], X)
    check(moments["second"], seen_by(sequential, "second", X))


@pytest.mark.parametrize("as_dataset", [False, True], ids=["dict of arrays", "dataset of dicts"])
def test_dicts_and_shared_layers(as_dataset):
    model, inputs = made("functional")
    data = tf.data.Dataset.from_tensor_slices(inputs).batch(5) if as_dataset else inputs
    moments = calibrate(model, ["shared", "wide"], data)
    check(moments["shared"], np.concatenate([inputs["left"], inputs["right"]]))  # both calls
    check(moments["wide"], seen_by(model, "wide", inputs))


def two_inputs():
    left, right = keras.Input((WIDTH,)), keras.Input((WIDTH,))
    total = keras.layers.Add(name="total")([left, right])
    return keras.Model([left, right], keras.layers.Dense(WIDTH, name="dense")(total))


@pytest.mark.parametrize(
    "batch",
    [[X, X[::-1]], (X, X[::-1]), ((X, X[::-1]), np.zeros(len(X))), ([X, X[::-1]], np.zeros(len(X)))],
    ids=["list", "tuple", "tuple and labels", "list and labels"],
)
def test_several_inputs(batch):
    moments = calibrate(two_inputs(), ["dense"], [batch])
    check(moments["dense"], X + X[::-1])


def test_model_stays_as_it_is(sequential):
    weights = sequential.get_weights()
    attributes = set(vars(sequential.get_layer("first")))
    calibrate(sequential, ["first", "second"], X)
    assert set(vars(sequential.get_layer("first"))) == attributes
    for before, after in zip(weights, sequential.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


# -- padding -------------------------------------------------------------------------


def embedded(keys, flat=False, mask_zero=False):
    """A Dense that sees the embedded tokens [B, T, F], or [B*T, F]."""
    entries = {key: keras.Input((None,), dtype="int32", name=key) for key in keys}
    x = keras.layers.Embedding(30, WIDTH, mask_zero=mask_zero, name="embedding")(entries[keys[0]])
    if flat:
        x = keras.layers.Lambda(lambda x: keras.ops.reshape(x, (-1, WIDTH)), output_shape=(WIDTH,), name="flat")(x)
    return keras.Model(entries if len(keys) > 1 else entries[keys[0]], keras.layers.Dense(WIDTH, name="dense")(x))


PADDED = {
    "mask among the inputs": ({}, "input_mask", None),
    "another usual key": ({}, "attention_mask", None),
    "a key that is named": ({}, "my_mask", "my_mask"),
    "a function": ({}, "other", lambda batch: batch["ids"] != 0),
    "the Keras mask": ({"mask_zero": True}, None, None),
    "rows side by side": ({"flat": True}, "padding_mask", None),
    "rows side by side, a function": ({"flat": True}, None, lambda batch: batch != 0),
}


@pytest.mark.parametrize(("options", "key", "mask"), PADDED.values(), ids=PADDED)
def test_padding_is_left_out(options, key, mask):
    ids, input_mask, _ = token_batch(rows=8).values()
    assert 0 < input_mask.sum() < input_mask.size
    model = embedded(["ids", key] if key else ["ids"], **options)
    batch = {"ids": ids, key: input_mask} if key else ids
    found = calibrate(model, ["dense"], [batch], mask=mask)["dense"]
    table = keras.ops.convert_to_numpy(model.get_layer("embedding").embeddings)
    check(found, table[ids[input_mask == 1]])


def test_without_a_mask_all_positions_count():
    ids = token_batch(rows=8)["input_word_ids"]
    model = embedded(["ids"])
    table = keras.ops.convert_to_numpy(model.get_layer("embedding").embeddings)
    check(calibrate(model, ["dense"], [ids])["dense"], table[ids])


def test_feed_forward_of_the_encoder_without_padding():
    """The blocks put the tokens of all rows side by side before their feed-forward layers."""
    model, inputs = made("encoder")
    path = "block_0/feed_forward/intermediate"
    found = calibrate(model, [path], [inputs])[path]
    assert found.count == inputs["input_mask"].sum()
    changed = {**inputs, "input_word_ids": np.where(inputs["input_mask"] == 1, inputs["input_word_ids"], 29)}
    np.testing.assert_allclose(calibrate(model, [path], [changed])[path].second, found.second, atol=1e-6)


# -- use -------------------------------------------------------------------------------


def narrow_inputs(seed, rows=400):
    """Vectors about a mean, most of them in few directions."""
    draw = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(0, 1, (4, WIDTH))
    x = draw.normal(0, 1, (rows, 4)) @ directions + 0.1 * draw.normal(0, 1, (rows, WIDTH)) + 1.5
    return x.astype("float32")


@pytest.mark.parametrize("form", ["low_rank", "kronecker", "tt_matrix"])
def test_calibration_halves_the_error_on_other_inputs(form):
    model, _ = made("sequential")
    held_out = narrow_inputs(1)
    expected = model.predict(held_out, verbose=0)
    plain = replace_dense(model, keep=0.4, form=form)
    calibrated = replace_dense(model, keep=0.4, form=form, calibration=narrow_inputs(0))

    def error(small):
        return np.linalg.norm(small.predict(held_out, verbose=0) - expected)

    assert error(calibrated) < 0.5 * error(plain)
    rows = report(calibrated).replaced
    assert all(row.output_error is not None and row.output_error < row.weight_error for row in rows)
    assert all(row.output_error is None for row in report(plain).replaced)


def test_output_error_is_that_of_the_layer():
    """Reported: root mean square of what changed over that of the outputs, both about their means."""
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(32, name="dense")])
    x = narrow_inputs(0)
    small = replace_dense(model, keep=0.5, calibration=x)
    before, after = model.predict(x, verbose=0), small.predict(x, verbose=0)
    expected = np.linalg.norm(after - before) / np.linalg.norm(before - before.mean(axis=0))
    assert report(small).rows[0].output_error == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(after.mean(axis=0), before.mean(axis=0), atol=1e-4)  # the bias took up the mean error


def test_gathered_moments_may_be_used_again():
    model, _ = made("sequential")
    x = narrow_inputs(0)
    moments = calibrate(model, ["first", "second"], x)
    first, second = replace_dense(model, calibration=moments), replace_dense(model, calibration=x)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# -- bad input ---------------------------------------------------------------------------


def with_nan(value=np.nan):
    bad = vectors().copy()
    bad[3, 2] = value
    return bad


class NeverAsked:
    def __iter__(self):
        raise AssertionError("the calibration data were asked for")


BAD = {
    "empty list": ([], ValueError, "calibration data are empty"),
    "empty generator": (iter(()), ValueError, "calibration data are empty"),
    "empty array": (np.zeros((0, WIDTH)), ValueError, "calibration data are empty"),
    "NaN": ([vectors(), with_nan()], ValueError, "'first' sees NaN or infinity in calibration batch 1"),
    "infinity": ([with_nan(np.inf)], ValueError, "'first' sees NaN or infinity in calibration batch 0"),
    "a number": (3, TypeError, "iterable of what the model takes as input .* got int"),
    "a text": ("texts", TypeError, "iterable of what the model takes as input .* got str"),
    "wrong width": ([np.ones((2, 5), "float32")], ValueError, "'sequential' does not take calibration batch 0"),
    "uneven": ({"a": np.ones((2, 3)), "b": np.ones((3, 3))}, ValueError, r"equal lengths, got \[2, 3\]"),
}


@pytest.mark.parametrize(("data", "error", "words"), BAD.values(), ids=BAD)
def test_bad_data_in_one_sentence(sequential, data, error, words):
    with pytest.raises(error, match=words) as caught:
        replace_dense(sequential, calibration=data)
    assert "\n" not in str(caught.value)
    assert "call" not in vars(sequential.get_layer("first"))


def test_layer_that_no_batch_reaches():
    model, inputs = made("functional")
    with pytest.raises(ValueError, match="No calibration batch reaches the layer 'dense'"):
        calibrate(embedded(["ids", "mask"]), ["dense"], [{"ids": np.ones((2, 3)), "mask": np.zeros((2, 3))}])
    with pytest.raises(ValueError, match="no layer 'nowhere'; its dense layers are shared, narrow, wide"):
        calibrate(model, ["nowhere"], inputs)


def test_mask_that_the_batch_does_not_hold():
    model, inputs = made("functional")
    with pytest.raises(ValueError, match=r"batch 0 has no 'padding' to mask with; it holds \['left', 'right'\]"):
        calibrate(model, ["wide"], [inputs], mask="padding")


def test_moments_of_too_few_layers(sequential):
    moments = calibrate(sequential, ["first"], X)
    with pytest.raises(ValueError, match="moments lack the layer 'second'"):
        replace_dense(sequential, calibration=moments)


def test_arguments_are_checked_before_the_data_are_asked_for(sequential):
    with pytest.raises(ValueError, match="keep"):
        replace_dense(sequential, keep=0, calibration=NeverAsked())
