"""Rows of calibration data that are kept out of the moments, and what they tell of a fit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models import WIDTH, made, token_batch, vectors

from tncompress import calibrate, replace_dense, report
from tncompress.conversion import calibration_passes


@pytest.fixture
def sequential():
    return made("sequential")[0]


X = vectors(rows=80)

SIZES = {  # rows of the data, and those that are held out
    9: [],
    30: [9, 19, 29],
    80: [*range(9, 80, 10)],
    199: [*range(18, 199, 19)],
    999: [*range(98, 999, 99)],
    1000: [*range(99, 1000, 100)],
    2150: [*range(99, 2150, 100)],
}


@pytest.mark.parametrize(("rows", "apart"), SIZES.items(), ids=map(str, SIZES))
@pytest.mark.parametrize("is_known", [True, False], ids=["known", "not known"])
def test_few_rows_are_checked_too(rows, apart, is_known):
    """Of data whose number of rows is not known every tenth of the first hundred, then every hundredth."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="dense")])
    x = np.arange(rows, dtype="float32")[:, None]
    batches = np.array_split(x, max(1, rows // 37))
    found = calibrate(model, ["dense"], batches if is_known else iter(batches), objective="outputs")
    wanted = apart if is_known else [*range(9, min(rows, 100), 10), *range(199, rows, 100)]
    for held_out in (found.held_out.get("dense", x[:0]), [row for batch, _ in found.probe.batches for row in batch]):
        assert [int(row[0]) for row in held_out] == wanted
    assert found["dense"].count == rows - len(wanted)


def test_too_little_data_is_told():
    """A fit to a few texts is far off on others, and the report warns; of very few it says that nothing was checked."""
    keras.utils.set_random_seed(2)
    dense = keras.layers.Dense
    model = keras.Sequential([keras.Input((20, 48)), dense(256, "relu", name="wide"), dense(48, name="narrow")])
    x = np.random.default_rng(0).normal(size=(60, 20, 48)).astype("float32")
    few = np.repeat(x[:, :1], 20, axis=1)  # texts of one word
    found = report(replace_dense(model, calibration=few, objective="outputs", include="wide|narrow"))
    assert found.measured_loss is not None
    assert any("On held-out calibration inputs the layers' error is" in text for text in found.warnings)
    found = report(replace_dense(model, calibration=x[:9], objective="outputs"))
    assert found.measured_loss is None
    assert found.warnings == (
        "Not checked on held-out inputs, for which the calibration data were too few, so the errors may be larger on "
        "other inputs: calibrate on 80 inputs or more.",
    )
    assert "predicted to change, not checked on held-out inputs." in str(found)


def test_inputs_that_are_held_out_are_put_together(sequential):
    """Those of like shape, whatever the batches; what changed is the same."""
    x = vectors(rows=1000)
    small = replace_dense(sequential, 0.5, calibration=x[:200])
    tensors = list(map(tf.constant, np.array_split(x, 10)))  # are left as they are
    found = [
        calibrate(sequential, ["first"], data, objective="outputs").probe for data in ([x], [*x[:, None]], tensors)
    ]
    assert [len(probe.batches) for probe in found] == [1, 1, 10]
    changed = [probe.changed(sequential, small) for probe in found]
    assert changed == [pytest.approx(changed[0], rel=1e-4)] * 3


def tokens_and_texts():
    """Two outputs, of every position and of all of them."""
    entries = {name: keras.Input((None,), dtype="int32", name=name) for name in ("ids", "input_mask")}
    x = keras.layers.Embedding(30, WIDTH, name="embedding")(entries["ids"])
    tokens = keras.layers.Dense(12, name="dense")(x)
    counts = keras.ops.cast(entries["input_mask"], "float32")[..., None]
    texts = keras.layers.Dense(5, name="head")(keras.ops.sum(tokens * counts, axis=1))
    return keras.Model(entries, {"texts": texts, "tokens": tokens})


def test_the_measured_loss_is_of_all_outputs_without_padding():
    """Each output's mean squared change where it was held out, for as many numbers as its variance is of."""
    ids, mask, _ = token_batch(rows=60).values()
    model = tokens_and_texts()
    data = [{"ids": given, "input_mask": mask} for given in (ids, np.where(mask == 1, ids, 29))]
    small = replace_dense(model, 0.5, calibration=data[0], include="dense|head")
    found = [calibrate(model, ["dense", "head"], given, objective="outputs", gradient_rows=60) for given in data]
    before, after = (m.predict(data[0], verbose=0) for m in (model, small))
    lost = energy = 0.0
    for name, counts in (("texts", np.ones(60, bool)), ("tokens", mask == 1)):
        values, apart = before[name][counts].astype("float64"), np.zeros(60, bool)
        apart[9::10] = True
        apart = counts & (apart if counts.ndim == 1 else apart[:, None])
        lost += np.mean((before[name] - after[name])[apart].astype("float64") ** 2) * values.size
        energy += np.sum((values - values.mean(axis=0)) ** 2)
    for calibration in found:
        assert calibration.probe.changed(model, small) == pytest.approx(lost / energy, rel=1e-4)


def test_the_objective_is_measured_on_rows_that_are_held_out(sequential, monkeypatch):
    x = vectors(rows=1350)
    parts = np.split(x, [30, 130, 260])  # the first has no hundredth row
    for most, wanted in ((64, x[99::100]), (2, x[99:200:100])):
        monkeypatch.setattr("tncompress.conversion.calibrate.PROBED", most)
        found = calibrate(sequential, ["first"], parts, objective="outputs")
        np.testing.assert_array_equal(np.concatenate([batch for batch, _ in found.probe.batches]), wanted)
        assert all(len(batch) for batch, _ in found.probe.batches)
        np.testing.assert_array_equal(found.held_out["first"], x[99::100])


def test_a_stream_too_short_to_be_checked_is_checked_by_the_other(sequential):
    short, other = (calibrate(sequential, ["first"], x, objective="outputs") for x in (X[:5], X[5:]))
    assert (short + other).probe is (other + short).probe is other.probe
    np.testing.assert_array_equal((short + other).held_out["first"], other.held_out["first"])


def test_held_out_vectors_are_thinned_evenly(sequential, monkeypatch):
    monkeypatch.setattr(calibration_passes, "HELD_OUT_VECTORS", 5)
    x = vectors(rows=4100)
    held_out = calibrate(sequential, ["first"], x).held_out["first"]
    np.testing.assert_array_equal(held_out, x[99::100][::8])  # 41 vectors, 10 at most
