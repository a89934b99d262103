"""`report`: numbers that add up, every layer and reason, JSON, and models that are not compressed."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers
from models import KINDS, made

from tncompress import replace_dense, report
from tncompress.conversion.outcomes import ROOM

INPUTS = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")


@pytest.fixture(scope="module")
def found():
    model, inputs = made("functional_of_models")
    small = replace_dense(model, keep=0.6, exclude="head|items", calibration=[inputs])
    return report(small), model, small


def test_rows_are_all_layers_with_form_or_reason(found):
    rows = found[0].rows
    assert {row.layer for row in rows} == set(KINDS["functional_of_models"].paths)
    assert all((row.form is None) != (row.reason is None) for row in rows)
    assert {row.layer for row in rows if row.reason == "in exclude"} == {"head", "inner/items/0", "inner/items/1/0"}


def test_numbers_add_up(found):
    result, model, small = found
    assert (result.params_before, result.params_after) == (model.count_params(), small.count_params())
    saved = sum(row.params_before - row.params_after for row in result.rows)
    assert result.params_before - result.params_after == saved > 0
    kernels = sum(row.params_before for row in result.replaced)
    assert result.keep == sum(row.params_after for row in result.replaced) / kernels


def test_flops_are_two_for_each_weight_of_a_low_rank_layer(found):
    for row in found[0].rows:
        assert row.flops_before == 2 * row.params_before
        assert row.flops_after == 2 * row.params_after


def test_text_holds_every_layer_and_reason(found):
    result = found[0]
    for text in (str(result), f"{result}"):
        for row in result.rows:
            assert row.layer in text
            assert (row.reason or row.form) in text
        assert f"{result.params_before:,} -> {result.params_after:,}" in text
        assert f"{result.keep:.2%}" in text
        assert all(len(line) <= 160 for line in text.splitlines())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "Fitted to the weights alone"),
        ({"calibration": INPUTS}, "Without an objective"),
        ({"calibration": INPUTS, "objective": "outputs"}, None),
        ({"calibration": INPUTS, "allocation": "global"}, None),
    ],
)
def test_text_says_what_would_lose_less(arguments, words):
    model = keras.Sequential([keras.Input((16,)), layers.Dense(32, "relu"), layers.Dense(16)])
    text = str(report(replace_dense(model, keep=0.5, progress=False, **arguments)))
    known = ("Fitted to the weights alone", "Without an objective")
    assert [part for part in known if part in text] == ([words] if words else [])


def test_text_and_totals_tell_what_the_budget_left_whole_and_small_losses():
    result = report(keras.Sequential([keras.Input((8,)), layers.Dense(8, name="a"), layers.Dense(8, name="b")]))
    small, whole = (
        replace(result.rows[0], form="low_rank", equation="i, i r, r o -> o", sizes="i=8, o=8, r=2"),
        result.rows[1],
    )
    small = replace(small, params_after=32, reason=None, predicted_loss=2.81e-5, output_error=0.1)
    found = replace(result, rows=(small, replace(whole, reason=ROOM)), measured_loss=0.02)
    assert "(50.00% kept; 75.00% with the 1 that the budget left dense)" in found.totals()
    assert "Objective: 0.0028% of its variance predicted to change, 2.00% measured" in found.totals()
    assert str(found).count(" 0.0028% ") == 2  # in the table and in the sum
    assert "with the" not in replace(found, rows=(small,)).totals()
    assert "identity" not in str(found)
    assert "identity" in str(replace(found, rows=(replace(small, pivots=True),)))


def test_text_holds_long_paths_in_one_piece():
    entry = keras.Input((16,))
    name = "a_layer_with_quite_a_long_name_" * 3
    inner = keras.Input((16,))
    graph = keras.Model(inner, layers.Dense(16, name=name)(inner), name=name + "outer")
    small = replace_dense(keras.Model(entry, graph(entry)), keep=0.5)
    assert f"{name}outer/{name}" in str(report(small))


def test_json_is_the_whole_report(found):
    result = found[0]
    read = json.loads(result.to_json())
    assert read["keep"] == result.keep
    assert read["params_after"] == result.params_after
    assert read["recipe"] == result.recipe
    assert [row["layer"] for row in read["rows"]] == [row.layer for row in result.rows]
    assert read["rows"][0]["weight_error"] == result.rows[0].weight_error


def test_of_a_model_that_is_not_compressed():
    model, _ = made("sequential")
    result = report(model)
    assert {row.reason for row in result.rows} == {"not compressed"}
    assert result.params_before == result.params_after == model.count_params()
    assert (result.keep, result.recipe, result.replaced) == (1.0, {}, ())
    assert "first" in str(result)
    assert "Replaced kernels" not in str(result)


def test_of_a_model_without_dense_layers():
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(2, 2)])
    assert report(model).rows == ()
    str(report(model))
    json.loads(report(model).to_json())


def test_layers_that_are_never_called_have_no_size():
    class Model(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.used, self.unused = layers.Dense(16), layers.Dense(4)

        def call(self, x):
            return self.used(x)

    model = Model()
    model(np.zeros((1, 16), "float32"))
    row = report(model).rows[1]
    assert (row.layer, row.params_before, row.flops_before) == ("unused", 0, 0)


@pytest.mark.parametrize("thing", [layers.Dense(3), "model", None])
def test_of_what_is_no_model(thing):
    with pytest.raises(TypeError, match="Keras model was expected, got"):
        report(thing)
