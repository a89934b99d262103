"""One budget over all layers, and hidden units that are left out."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

import tncompress
from tncompress import densify, load, replace_dense, report
from tncompress.conversion import gathered

PAIR = ["layer_0", "layer_1"]
RNG = np.random.default_rng(0)
X = (RNG.normal(size=(600, 12)) @ RNG.normal(size=(12, 24))).astype("float32")


def mlp(widths, seed=0, activation="gelu"):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(width, activation, name=f"layer_{i}") for i, width in enumerate(widths)]
    return keras.Sequential([keras.Input((24,)), *layers], name="mlp")


@pytest.fixture(scope="module")
def model():
    return mlp([96, 24, 96, 24])


@pytest.fixture(scope="module")
def moments(model):
    return tncompress.calibrate(model, [f"layer_{i}" for i in range(4)], X, objective="outputs")


def outputs(model):
    return ops.convert_to_numpy(model(X))


def distance(model, small):
    """Mean squared difference of the outputs over their variance."""
    return float(np.mean((outputs(model) - outputs(small)) ** 2) / np.var(outputs(model)))


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.integers(8, 64), min_size=4, max_size=6),
    st.floats(0.35, 0.95),
    st.sampled_from(["narrow", "low_rank", ("narrow", "low_rank")]),
)
def test_budget_is_met_closely_and_never_exceeded(widths, keep, form):
    model = mlp(widths)
    moments = tncompress.calibrate(model, [f"layer_{i}" for i in range(len(widths))], X[:150], objective="outputs")
    small = replace_dense(model, keep, form=form, calibration=moments, allocation="global")
    rows = report(small).rows
    before, after = sum(r.params_before for r in rows), sum(r.params_after for r in rows)
    assert after <= keep * before
    stored = sum(int(np.prod(v.shape)) for v in small.variables if not v.path.endswith("bias"))
    assert after == stored
    smallest_step = max(max(r.params_before for r in rows) / 8, 0.01 * before)
    assert after >= keep * before - smallest_step


def test_steps_are_fine_where_layers_are_wide(model, moments):
    for keep in (0.3, 0.5, 0.7):
        small = replace_dense(model, keep, form=("narrow", "low_rank"), calibration=moments)
        rows = report(small).rows
        share = sum(r.params_after for r in rows) / sum(r.params_before for r in rows)
        assert 0.97 * keep <= share <= keep


@pytest.mark.parametrize("widths", [(48, 24), (64, 24, 64, 24), (400, 24)])
@pytest.mark.parametrize("keep", [0.6, 0.7, 0.9, 0.95])
def test_hidden_units_alone_meet_the_budget(widths, keep):
    """To a unit; where the layer is wide, to a step of eight."""
    small = replace_dense(mlp(widths), keep, form="narrow", calibration=X)
    rows = report(small).rows
    before, after = (sum(getattr(row, name) for row in rows) for name in ("params_before", "params_after"))
    assert keep * before - max(48 * (8 if widths[0] == 400 else 1), 0.01 * keep * before) < after <= keep * before


def test_biases_take_up_what_lost_units_gave_on_average():
    """So the outputs' mean over the calibration inputs stays what it was."""
    model = mlp([40, 24], activation="relu")
    model.layers[-1].activation = keras.activations.linear
    shifted = X + 2
    mean = ops.convert_to_numpy(model(shifted)).mean(axis=0)
    small = replace_dense(model, 0.5, form="narrow", calibration=tncompress.calibrate(model, PAIR, shifted))
    assert small.get_layer("layer_0").bias.shape[0] < 40
    error = ops.convert_to_numpy(small(shifted)).mean(axis=0) - mean
    assert np.abs(error).max() < 0.02 * np.abs(mean).max()  # one row in a hundred is held out


def test_no_layer_is_starved():
    """The first would lose next to nothing at rank 1."""
    model = mlp([96, 24])
    kernel = model.layers[0].kernel
    u, s, vt = np.linalg.svd(ops.convert_to_numpy(kernel), full_matrices=False)
    kernel.assign((u * s[0] * 0.1 ** np.arange(len(s))) @ vt)
    first, second = report(replace_dense(model, 0.5, allocation="global")).rows
    assert 0.3 * 0.5 * first.params_before <= first.params_after < 0.3 * second.params_after


@pytest.mark.parametrize("keep", [0.3, 0.5])
def test_narrow_and_low_rank_together_lose_least(model, moments, keep):
    plain = distance(model, replace_dense(model, keep))
    one = distance(model, replace_dense(model, keep, calibration=moments))
    best = distance(model, replace_dense(model, keep, form=("narrow", "low_rank"), calibration=moments))
    assert best < one < plain


def test_almost_everything_kept_changes_almost_nothing(model, moments):
    assert distance(model, replace_dense(model, 0.99, form=("narrow", "low_rank"), calibration=moments)) < 1e-2


@pytest.mark.parametrize("form", ["narrow", ("narrow", "low_rank")])
def test_saved_loaded_densified_and_repeated(model, moments, form, tmp_path):
    small = replace_dense(model, 0.4, form=form, calibration=moments)
    choices = report(small).recipe
    assert any(choice["form"] == "narrow" for choice in choices.values()) or "low_rank" in form
    small.save(tmp_path / "small.keras")
    np.testing.assert_array_equal(outputs(load(tmp_path / "small.keras")), outputs(small))
    np.testing.assert_allclose(outputs(densify(small)), outputs(small), atol=2e-5)
    again = replace_dense(model, recipe=report(small).recipe, calibration=moments)
    np.testing.assert_allclose(outputs(again), outputs(small), atol=2e-5)


@pytest.mark.parametrize("form", ["low_rank", ("narrow", "low_rank")])
@pytest.mark.parametrize("disk", ["room", "full"])
def test_moments_of_large_models_are_gathered_in_groups(model, form, disk, monkeypatch):
    options = {"form": form, "calibration": X, "objective": "outputs"}
    whole = replace_dense(model, 0.5, **options)
    passes = []
    one_pass = gathered.calibrate
    monkeypatch.setattr(gathered, "calibrate", lambda *a, **k: passes.append(a[1]) or one_pass(*a, **k))
    monkeypatch.setattr(gathered, "MOMENTS_BYTES", 2 * (24**2 + 96**2) * 1.5)  # one layer's
    if disk == "full":
        monkeypatch.setattr(gathered, "_write", no_room)
    streamed = replace_dense(model, 0.5, **options)
    groups = [["layer_0"], ["layer_1"], ["layer_2"], ["layer_3"]]
    assert passes[:4] == groups
    assert (len(passes) == 4) == (disk == "room")  # else gathered again for the fits
    assert report(streamed).recipe == report(whole).recipe
    np.testing.assert_allclose(outputs(streamed), outputs(whole), atol=1e-5)
    assert report(streamed).predicted_loss == pytest.approx(report(whole).predicted_loss)
    # A generator cannot be gone over again.
    once = replace_dense(model, 0.5, **{**options, "calibration": (X[k : k + 100] for k in range(0, 600, 100))})
    assert report(once).keep == report(whole).keep


def no_room(*_):
    raise OSError("No space left on device")


def test_lost_units_show_in_the_errors(model, moments):
    small = replace_dense(model, 0.4, form="narrow", calibration=moments)
    seconds = [row for row in report(small).rows if row.layer in ("layer_1", "layer_3")]
    assert all(0 < row.output_error < 1 and 0 < row.loss_error < 1 for row in seconds)


def test_encoders_of_every_kind_lose_units():
    from bert_models import BertConfig, TalkingHeads, build_encoder

    config = BertConfig(
        vocab_size=30, hidden_size=16, num_heads=2, num_layers=2, gated=True, attention=TalkingHeads(), init_stddev=0.3
    )
    encoder = build_encoder(config)
    batch = {"input_word_ids": RNG.integers(0, 30, (40, 9)), "input_mask": np.ones((40, 9), int)}
    batch["input_type_ids"] = np.zeros((40, 9), int)
    small = replace_dense(
        encoder, 0.5, form="narrow", include="feed_forward", calibration=batch, objective="pooled_output"
    )
    specs = {row.layer: row.sizes for row in report(small).replaced}
    for i in range(2):
        part = f"block_{i}/feed_forward"
        hidden = {
            specs[f"{part}/{name}"].split("o=")[-1] for name in ("intermediate", "gate") if f"{part}/{name}" in specs
        }
        if hidden:
            assert hidden == {specs[f"{part}/output_dense"].split("i=")[-1].split(",")[0]}
    rows = [row for row in report(small).rows if "feed_forward" in row.layer]
    assert sum(r.params_after for r in rows) <= 0.5 * sum(r.params_before for r in rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"form": "narrow"}, "give calibration="),
        ({"form": "narrow", "calibration": X, "allocation": "uniform"}, "leave allocation='uniform' away"),
        ({"allocation": "fair"}, "'uniform' or 'global'"),
        ({"form": "narrow", "calibration": X, "keep": 0.0001}, r"more than Budget\(keep=0.0001\); raise the budget"),
    ],
    ids=["no inputs", "uniform", "unknown", "too small"],
)
def test_arguments_that_do_not_go(model, arguments, words):
    with pytest.raises(ValueError, match=words):
        replace_dense(model, **arguments)


def test_moments_without_inputs_do_not_tell_pairs(model, moments):
    with pytest.raises(ValueError, match=r"what tncompress\.calibrate returned"):
        replace_dense(model, form="narrow", calibration=dict(moments))
