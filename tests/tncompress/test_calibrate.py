"""Moments gathered by `calibrate` against those that numpy computes from inputs seen by a model built for that."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import WIDTH, made, token_batch, vectors

from tncompress import calibrate, find_sites, replace_dense, report
from tncompress.conversion.walking import locate
from tncompress.conversion.watching import watched


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


def fitted(rows):
    """Those that are in the moments, of fewer than a hundred."""
    return np.delete(rows, slice(9, None, 10), axis=0)


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
    check(moments["first"], fitted(X))
    check(moments["second"], fitted(seen_by(sequential, "second", X)))
    np.testing.assert_array_equal(moments.held_out["first"], X[9::10])


@pytest.mark.parametrize("as_dataset", [False, True], ids=["dict of arrays", "dataset of dicts"])
def test_dicts_and_shared_layers(as_dataset):
    model, inputs = made("functional")
    data = tf.data.Dataset.from_tensor_slices(inputs).batch(5) if as_dataset else inputs
    moments = calibrate(model, ["shared", "wide"], data)
    check(moments["shared"], np.concatenate([fitted(inputs["left"]), fitted(inputs["right"])]))  # both calls
    check(moments["wide"], fitted(seen_by(model, "wide", inputs)))


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
    check(moments["dense"], fitted(X + X[::-1]))


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


def test_a_keras_mask_comes_before_a_key():
    ids = token_batch(rows=8)["input_word_ids"]
    model = embedded(["ids", "padding_mask"], mask_zero=True)
    table = keras.ops.convert_to_numpy(model.get_layer("embedding").embeddings)
    batch = {"ids": ids, "padding_mask": (ids > 9).astype("int32")}
    assert 0 < (ids > 9).sum() < (ids != 0).sum() < ids.size
    check(calibrate(model, ["dense"], [batch])["dense"], table[ids[ids != 0]])


@pytest.mark.parametrize("mask", ["padding_mask", lambda batch: batch["padding_mask"]], ids=["a key", "a function"])
def test_a_mask_that_is_asked_for_comes_before_a_keras_mask(mask):
    ids = token_batch(rows=8)["input_word_ids"]
    model = embedded(["ids", "padding_mask"], mask_zero=True)
    table = keras.ops.convert_to_numpy(model.get_layer("embedding").embeddings)
    batch = {"ids": ids, "padding_mask": (ids > 9).astype("int32")}
    check(calibrate(model, ["dense"], [batch], mask=mask)["dense"], table[ids[ids > 9]])


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


def test_nothing_at_padding_matters():
    """Neither ids nor lengths: moments, gradients, the objective's energy and what is held out are the same."""
    model, _ = made("encoder")
    paths = [f"block_0/feed_forward/{name}" for name in ("intermediate", "output_dense")]
    inputs = token_batch(rows=240)
    mask = inputs["input_mask"]
    assert 0 < mask.sum() < mask.size
    other = {**inputs, "input_word_ids": np.where(mask == 1, inputs["input_word_ids"], 29)}
    longer = {name: np.pad(ids, [(0, 0), (0, 3)], constant_values=0) for name, ids in inputs.items()}
    usual, *changed = (
        calibrate(model, paths, data, objective="sequence_output", gradient_rows=50) for data in (inputs, other, longer)
    )
    for found in changed:
        same(found, usual)
        assert found.energy == pytest.approx(usual.energy, rel=1e-5)
        for path in paths:
            np.testing.assert_allclose(found.held_out[path], usual.held_out[path], atol=1e-5)


# -- how the data are cut into batches -----------------------------------------------------


def same(found, expected):
    """Equal moments: mean and second moment to 1e-6 of their size."""
    assert found.keys() == expected.keys()
    for path, moments in expected.items():
        for a, b in ((found[path], moments), (found[path].gradients, moments.gradients)):
            assert (a is None) == (b is None)
            if b is not None:
                assert a.count == b.count
                assert np.linalg.norm(a.mean - b.mean) <= 1e-6 * np.sqrt(np.trace(b.second))
                assert np.linalg.norm(a.second - b.second) <= 1e-6 * np.linalg.norm(b.second)


def squares(outputs, x):
    return keras.ops.square(outputs)


@pytest.mark.parametrize("objective", [None, "outputs", squares])
def test_one_batch_or_a_hundred(sequential, objective):
    """Rows have their own signs, are held out and give gradients wherever they stand."""
    x = vectors(rows=600)
    options = {"objective": objective, "gradient_rows": 250}
    once = calibrate(sequential, ["first", "second"], [x], **options)
    hundred = calibrate(sequential, ["first", "second"], [x[k : k + 6] for k in range(0, 600, 6)], **options)
    same(hundred, once)
    assert once["first"].count == 590
    if objective is None:
        assert once.energy is hundred.energy is once["first"].gradients is None
    else:
        assert once["first"].gradients.count == 10 * 31  # every second block of 250 // 8 rows
        assert hundred.energy == pytest.approx(once.energy, rel=1e-6)
    np.testing.assert_array_equal(once.held_out["first"], x[59::60])
    np.testing.assert_allclose(hundred.held_out["second"], seen_by(sequential, "second", x[59::60]), atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="differentiates functions, which it calls again")
def test_every_row_is_run_once(sequential):
    """A pass with gradients sees what layers see, too."""
    rows = []
    with watched(locate(sequential, ["first"]), lambda _, x: rows.append(len(x))):
        calibrate(sequential, ["first", "second"], vectors(rows=600), objective="outputs", gradient_rows=100)
    assert sum(rows) == 600


@pytest.mark.parametrize("objective", [None, "outputs"])
def test_two_streams_merge(sequential, objective):
    """The second stream's rows have other signs than in one stream, so the gradients are those of the two."""
    x = vectors(rows=2200)
    paths = ["first", "second"]
    options = {"objective": objective, "gradient_rows": len(x)}
    one, two = (calibrate(sequential, paths, part, **options) for part in (x[:1200], x[1200:]))
    both, whole = one + two, calibrate(sequential, paths, x, **options)
    same(both.without_gradients(), whole.without_gradients())
    for found in (both, both.without_gradients()):
        np.testing.assert_array_equal(found.held_out["first"], whole.held_out["first"])
    assert both.probe is one.probe
    assert both.energy == (None if objective is None else pytest.approx(whole.energy, rel=1e-6))
    for path in paths:
        if objective is None:
            assert both[path].gradients is None
        else:
            expected = one[path].gradients + two[path].gradients
            np.testing.assert_array_equal(both[path].gradients.second, expected.second)
    assert replace_dense(sequential, calibration=both).count_params() < sequential.count_params()


def test_streams_that_do_not_merge(sequential):
    both = calibrate(sequential, ["first", "second"], X, objective="outputs")
    with pytest.raises(ValueError, match="other layers do not add up: only one of them has second"):
        both + calibrate(sequential, ["first"], X, objective="outputs")
    with pytest.raises(ValueError, match=r"one without do not add up; use without_gradients\(\)"):
        both + both.without_gradients()


@pytest.mark.parametrize(
    ("kind", "path", "last"),
    [
        ("encoder", "block_0/feed_forward/intermediate", "pooler"),
        ("sequential", "first", "second"),
        ("subclassed", "items/0", "pair/0"),
    ],
)
def test_a_pass_ends_after_the_last_layer(kind, path, last):
    """From the second batch on nothing behind it is called, and the model is none the worse for it."""
    model, inputs = made(kind)
    calls = []
    with watched(locate(model, [last]), lambda path, _: calls.append(path)):
        found = calibrate(model, [path], [inputs] * 3)
    assert len(calls) == 1
    whole = calibrate(model, [path, last], [inputs] * 3)
    same(found, {path: whole[path]})
    before = calibrate(model, [path, last], [inputs] * 3)
    same(before, whole)


class Loop(keras.Model):
    """Calls its layer once for every position."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(WIDTH)

    def call(self, x):
        for position in range(x.shape[1]):
            state = self.dense(x[:, position])
        return state


def test_a_layer_that_is_called_more_and_more_often():
    model, x = Loop(), vectors(rows=9).reshape(3, 3, WIDTH)
    model(x)
    found = calibrate(model, ["dense"], [x[:, :2], x, x[:, :1]])
    check(found["dense"], np.concatenate([x[:, :2].reshape(-1, WIDTH), x.reshape(-1, WIDTH), x[:, 0]]))


# -- kinds of layers and of batches --------------------------------------------------------


def test_nested_lists():
    model, inputs = made("encoder")
    path = "block_0/feed_forward/intermediate"
    lists = {name: ids.tolist() for name, ids in inputs.items()}
    found = calibrate(model, [path], [lists], objective="pooled_output")
    same(found, calibrate(model, [path], [inputs], objective="pooled_output"))
    assert found.sample == {name: ids[:2] for name, ids in lists.items()}
    small = replace_dense(model, calibration=[lists], form=("narrow", "low_rank"), include="feed_forward")
    assert small.count_params() < model.count_params()


class OfLists(keras.Model):
    """Takes numbers as Python has them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3, name="dense")

    def __call__(self, x, **kwargs):
        return super().__call__(keras.ops.convert_to_tensor(x, "float32"), **kwargs)

    def call(self, x):
        return self.dense(x)


def test_a_batch_that_is_a_nested_list():
    model, x = OfLists(), [[1, 2], [3, 4], [5, 6]]
    model(x)
    found = calibrate(model, ["dense"], [x])
    check(found["dense"], np.array(x))
    assert found.sample == [[1, 2], [3, 4]]


def attention():
    """Projections of several axes, and a table."""
    ids, mask = keras.Input((None,), dtype="int32", name="ids"), keras.Input((None,), dtype="int32", name="mask")
    x = keras.layers.Embedding(30, WIDTH, name="table")(ids)
    heads = keras.layers.EinsumDense("bth,hnk->btnk", (None, 2, 5), bias_axes="nk", name="split")(x)
    y = keras.layers.EinsumDense("btnk,nkh->bth", (None, 3), name="joined")(heads)
    return keras.Model({"ids": ids, "mask": mask}, y)


def test_tables_and_layers_of_several_axes():
    model = attention()
    tokens = token_batch(rows=8)
    batch = {"ids": tokens["input_word_ids"], "mask": tokens["input_mask"]}
    counted = batch["mask"] == 1
    found = calibrate(model, ["table", "split", "joined"], [batch], objective="outputs")
    np.testing.assert_array_equal(found["table"].counts, np.bincount(batch["ids"][counted], minlength=30))
    table, split, bias, joined = (keras.ops.convert_to_numpy(w).astype("float64") for w in model.get_weights())
    x = table[batch["ids"][counted]]
    check(found["split"], x)
    check(found["joined"], x @ split.reshape(WIDTH, 10) + bias.reshape(10))
    # Of a linear model gradients are J^T v; over the 3 signs of a position v v^T is the identity but for chance.
    names = {
        "joined": np.eye(3),
        "split": joined.reshape(10, 3).T,
        "table": (split.reshape(WIDTH, 10) @ joined.reshape(10, 3)).T,
    }
    for name, jacobian in names.items():
        gradients = found[name].gradients
        assert gradients.count == counted.sum()
        signs = np.linalg.lstsq(jacobian.T, gradients.second @ np.linalg.pinv(jacobian), rcond=None)[0]
        np.testing.assert_allclose(np.diag(signs), 1, atol=1e-4)


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
    x = narrow_inputs(0, rows=9)  # none is held out
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


def with_nan(value=np.nan, row=3):
    bad = vectors().copy()
    bad[row, 2] = value
    return bad


class NeverAsked:
    def __iter__(self):
        raise AssertionError("the calibration data were asked for")


BAD = {
    "empty list": ([], ValueError, "calibration data are empty"),
    "empty generator": (iter(()), ValueError, "calibration data are empty"),
    "empty array": (np.zeros((0, WIDTH)), ValueError, "calibration data are empty"),
    "NaN": ([vectors(), with_nan()], ValueError, "'first' sees NaN or infinity in calibration batch 1"),
    "NaN in a row that is held out": ([with_nan(row=9)], ValueError, "'first' sees NaN .* in calibration batch 0"),
    "infinity": ([with_nan(np.inf)], ValueError, "'first' sees NaN or infinity in calibration batch 0"),
    "too large for a square": ([with_nan(1e30)], ValueError, "'first' sees NaN or infinity in calibration batch 0"),
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


IDS = np.ones((2, 4), "int32")
SIDES = vectors(rows=3)


def fixed_inputs():
    """Two inputs of fixed sizes, in a list."""
    left, right = keras.Input((WIDTH,), name="left"), keras.Input((4,), name="right")
    both = keras.layers.Concatenate()([left, right])
    return keras.Model([left, right], keras.layers.Dense(2, name="dense")(both), name="fixed")


def table():
    """Of ten rows."""
    ids = keras.Input((4,), dtype="int32", name="ids")
    rows = keras.layers.Embedding(10, WIDTH)(ids)
    return keras.Model(ids, keras.layers.Dense(2, name="dense")(rows), name="table")


OTHER_BATCHES = {
    "encoder, keys": (
        lambda: made("encoder")[0],
        {"input_word_ids": IDS},
        r"input_mask: int32 \[any, any\].* and got {input_word_ids: int32 \[2, 4\]} .*missing: input_mask",
    ),
    "encoder, shapes": (
        lambda: made("encoder")[0],
        {"input_word_ids": IDS, "input_mask": IDS[:, :3], "input_type_ids": IDS},
        r"input_mask: int32 \[2, 3\].*input_mask must have the shape \(2, 4\)",
    ),
    "encoder, no dict": (
        lambda: made("encoder")[0],
        IDS,
        r"got int32 \[2, 4\]; give all inputs at once as a dict of arrays, input_.*, or a list of batches, each such",
    ),
    "dict, a key": (
        lambda: made("functional")[0],
        {"left": SIDES},
        r"it takes {left: float32 \[any, 16\], right: float32 \[any, 16\]} and got {left: float32 \[3, 16\]}",
    ),
    "dict, a width": (
        lambda: made("functional")[0],
        {"left": SIDES, "right": SIDES[:, :5]},
        r"and got {left: float32 \[3, 16\], right: float32 \[3, 5\]}",
    ),
    "list, one too few": (fixed_inputs, [SIDES], r"it takes list of float32 \[any, 16\], float32 \[any, 4\] and got"),
    "list of all inputs": (
        fixed_inputs,
        SIDES,
        r"and got float32 \[3, 16\]; give all inputs at once as a dict of arrays, left and right, or a list of "
        r"batches, each \[left, right\]\.$",
    ),
    "texts": (
        lambda: made("sequential")[0],
        np.array(["good", "bad"]),
        r"it takes float32 \[any, 16\] and got text \[2\]; texts have to be tokenised first: give the arrays that a ",
    ),
    "texts in a list": (lambda: made("sequential")[0], "good", "got str of 4; texts have to be tokenised first"),
    "fractions for ids": (table, IDS / 3, r"it got float64 \[2, 4\] \(ids are whole numbers, and these are not\)"),
    "list, a width": (fixed_inputs, [SIDES, SIDES], r"and got list of float32 \[3, 16\], float32 \[3, 16\]"),
    "subclassed, a width": (
        lambda: made("subclassed")[0],
        SIDES[:, :5],
        r"got float32 \[3, 5\] \(.*expected axis -1 .* value 16",
    ),
    "subclassed, a dict": (lambda: made("subclassed")[0], {"a": SIDES}, r"got {a: float32 \[3, 16\]}"),
}


@pytest.mark.filterwarnings("ignore:The structure of")
@pytest.mark.parametrize(("make", "batch", "words"), OTHER_BATCHES.values(), ids=OTHER_BATCHES)
def test_a_batch_of_another_kind(make, batch, words):
    """What the model wants, what it got, and which batch it is."""
    model = make()
    path = next(site.path for site in find_sites(model) if not site.reason)
    with pytest.raises(ValueError, match=f"{model.name!r} does not take calibration batch 0: .*{words}") as caught:
        calibrate(model, [path], [batch])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends take any id")
def test_ids_that_the_table_does_not_have():
    """The shapes fit, so what is in the batch is wrong; without the name that TensorFlow gives its operation."""
    with pytest.raises(ValueError, match="does not take calibration batch 0") as caught:
        calibrate(table(), ["dense"], [IDS + 5000])
    assert str(caught.value).endswith(": it got int32 [2, 4] (indices[0,0] = 5001 is not in [0, 10)).")


def test_whole_numbers_are_ids_in_any_dtype():
    """As arrays that came through a file or a table often are."""
    found = calibrate(table(), ["dense"], [IDS.astype("float64")])
    assert found["dense"].count == IDS.size


def test_the_batch_that_does_not_fit_is_named(sequential):
    with pytest.raises(ValueError, match="does not take calibration batch 2"):
        calibrate(sequential, ["first"], [X, X, X[:, :5]])


def test_no_rows_for_gradients(sequential):
    with pytest.raises(ValueError, match="gradient_rows must be at least 1, got 0"):
        calibrate(sequential, ["first"], X, objective="outputs", gradient_rows=0)


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
