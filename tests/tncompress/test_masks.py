"""Masks of all shapes: what padding holds changes no moment, and what can be no mask is refused in one sentence."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from tncompress import calibrate, recover, replace_dense
from tncompress.conversion.refit import refit

B, T, D = 9, 10, 24  # of so few rows none is held out
RNG = np.random.default_rng(5)
MASK = np.arange(T) < RNG.integers(3, T, (B, 1))
X = RNG.normal(size=(B, T, D)).astype("float32")
OTHER = np.where(MASK[..., None], X, 9.0).astype("float32")  # at padding


def model_of(shape, name="mask", heads=None, transposed=False, flat=False):
    """Dense layers on `[B, T, heads, d]`, `[B, heads, T, d]` or `[B * T, heads, d]`; the mask is an input."""
    x, mask = keras.Input((T, D), name="x"), keras.Input(shape, dtype="bool", name=name)
    y = x
    if heads:
        y = layers.Reshape((T, heads, D // heads))(y)
        y = ops.transpose(y, (0, 2, 1, 3)) if transposed else y
        y = ops.reshape(y, (-1, heads, D // heads)) if flat else y
    return keras.Model({"x": x, name: mask}, layers.Dense(4, name="dense")(y))


SHAPES = {  # of the mask, and of the vectors
    "[B, T, heads]": (MASK, {"heads": 4}),
    "[B, T, T heads]": (MASK, {"heads": 12}),
    "[B, heads, T]": (MASK, {"heads": 4, "transposed": True}),
    "[B, 1, T]": (MASK, {"heads": 1, "transposed": True}),
    "[B T, heads]": (MASK, {"heads": 4, "flat": True}),
    "mask [B, T, 1]": (MASK[:, :, None], {}),
    "mask [B, 1, T]": (MASK[:, None], {}),
    "mask [B, 1, 1, T]": (MASK[:, None, None], {"heads": 4}),
    "of attention": (MASK[:, None] & MASK[:, :, None], {"name": "attention_mask"}),
    "of attention, by heads": (np.stack([MASK[:, None] & MASK[:, :, None]] * 2, 1), {"name": "attention_mask"}),
    "causal, with padding": (MASK[:, None] & np.tri(T, dtype=bool), {"name": "attention_mask"}),
}


@pytest.mark.parametrize(("mask", "options"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("objective", [None, "outputs"])
def test_no_padding_in_moments(mask, options, objective):
    model = model_of(mask.shape[1:], **options)
    name = options.get("name", "mask")
    found, other = (
        calibrate(model, ["dense"], [{"x": x, name: mask}], objective=objective)["dense"] for x in (X, OTHER)
    )
    assert found.count == MASK.sum() * options.get("heads", 1)
    np.testing.assert_array_equal(found.second, other.second)


def test_a_causal_mask_is_no_padding():
    causal = np.tile(np.tri(T, dtype=bool), (B, 1, 1))
    model = model_of((T, T), "attention_mask")
    assert calibrate(model, ["dense"], [{"x": X, "attention_mask": causal}])["dense"].count == B * T


def sides(length=T, batch=B):
    """Ids and masks as KerasHub's encoder-decoder models take them; and the same with other ids at padding."""
    masks = {side: np.arange(n) < RNG.integers(2, n, (batch, 1)) for side, n in (("encoder", T), ("decoder", length))}
    ids = {side: RNG.integers(1, 30, mask.shape) for side, mask in masks.items()}
    other = {side: np.where(masks[side], ids[side], 31) for side in ids}
    named = {f"{side}_padding_mask": mask.astype("int32") for side, mask in masks.items()}
    return masks, *({**named, **{f"{side}_token_ids": i for side, i in given.items()}} for given in (ids, other))


INSIDE = {  # layers that see the encoder's vectors, the decoder's, and the encoder's within the decoder
    "T5": (
        "encoder_layer_0/self_attention/query_projector",
        "decoder_layer_0/self_attention/query_projector",
        "decoder_layer_0/cross_attention/key_projector",
    ),
    "Bart": (
        "encoder_layer_0/self_attention_layer/_query_dense",
        "decoder_layer_0/self_attention/_query_dense",
        "decoder_layer_0/_cross_attention_layer/_key_dense",
    ),
}


@pytest.mark.parametrize("length", [T, T + 2], ids=["equal lengths", "other lengths"])
@pytest.mark.parametrize("kind", ["T5", "Bart"])
def test_two_sides_have_their_own_masks(kind, length):
    keras_hub = pytest.importorskip("keras_hub")
    sizes = {"vocabulary_size": 32, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}
    if kind == "Bart":
        sizes["max_sequence_length"] = length
    model = getattr(keras_hub.models, f"{kind}Backbone")(**sizes, dropout=0)
    masks, batch, other = sides(length, batch=6)
    paths = [f"transformer_{name}" for name in INSIDE[kind]]
    found, changed = (calibrate(model, paths, [given], objective="outputs") for given in (batch, other))
    shared = masks["encoder"] & masks["decoder"] if length == T else masks["encoder"]
    counts = [masks["encoder"].sum(), masks["decoder"].sum(), shared.sum()]
    assert [found[path].count for path in paths] == counts
    for path in paths:
        np.testing.assert_allclose(changed[path].second, found[path].second, rtol=1e-5, atol=1e-6)
        gradients = [moments[path].gradients.second for moments in (changed, found)]
        np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5 * np.abs(gradients[1]).max())
    assert found.energy == pytest.approx(changed.energy, rel=1e-5)


def test_the_encoders_mask_may_go_without_a_name():
    """As in Hugging Face's models."""
    masks, _, _ = sides()
    inputs = {"attention_mask": masks["encoder"], "decoder_attention_mask": masks["decoder"]}
    entries = {name: keras.Input((T,), dtype="int32", name=name) for name in inputs}
    x = keras.Input((T, D), name="x")
    outputs = [layers.Dense(4, name=name)(x) for name in ("encoder", "decoder")]
    model = keras.Model({**entries, "x": x}, outputs)
    found = calibrate(model, ["encoder", "decoder"], [{**inputs, "x": X}])
    assert {side: found[side].count for side in masks} == {side: mask.sum() for side, mask in masks.items()}


# -- what is no mask -----------------------------------------------------------------------------


def plain():
    return keras.Sequential(
        [keras.Input((T, D)), layers.Dense(32, name="dense"), layers.Dense(4, name="head")], name="plain"
    )


def failing(batch):
    raise KeyError("my_key")


BAD = {
    "a number": (3, TypeError, r"mask is the key of .* or a function .*got int; for an array a, "),
    "an array": (MASK, TypeError, r"mask is the key of .* got ndarray; for an array a, put it into the batches"),
    "raises": (failing, ValueError, r"function mask= fails on calibration batch 0 \(KeyError: 'my_key'\); it takes"),
    "nothing": (lambda _: None, ValueError, r"function mask= gives NoneType in calibration batch 0; a mask is an"),
    "texts": (lambda _: np.array(["a"] * B), ValueError, "function mask= gives ndarray in calibration batch 0"),
    "a number for all": (lambda _: 1.0, ValueError, r"gives an array of shape \[\] in calibration batch 0 of 9 rows"),
    "other rows": (lambda _: MASK[:5], ValueError, r"array of shape \[5, 10\] .* 9 rows; a mask is .*\[9, length\]"),
    "other length": (
        lambda _: MASK[:, :7],
        ValueError,
        r"mask= has the shape \[batch, 7\], which fits none of .*\('dense' sees 10 vectors for each row of .* batch 0",
    ),
}


@pytest.mark.parametrize(("mask", "error", "words"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("objective", [None, "outputs"])
def test_bad_masks_in_one_sentence(mask, error, words, objective):
    model = plain()
    with pytest.raises(error, match=words) as caught:
        replace_dense(model, calibration=[X], mask=mask, objective=objective)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError if mask is failing else type(None))


def test_bad_masks_are_refused_before_any_work():
    model = plain()
    small = replace_dense(model, keep=0.5)
    for run in (
        lambda: refit(model, small, [X, X], paths=["dense"], mask=3),
        lambda: recover(small, model, [X, X], mask=3),
        lambda: replace_dense(model, mask=3),
    ):
        with pytest.raises(TypeError, match="mask is the key of a mask"):
            run()


def test_a_mask_for_layers_that_see_one_vector_a_row():
    model = keras.Sequential([keras.Input((T, D)), layers.GlobalAveragePooling1D(), layers.Dense(4, name="dense")])
    with pytest.warns(UserWarning, match="mask of the calibration batches fits none of the chosen layers' inputs"):
        calibrate(model, ["dense"], [X], mask=lambda _: MASK)


def test_a_mask_that_cannot_be_used():
    model = model_of((T, T + 1), "attention_mask")
    with pytest.warns(UserWarning, match=r"fits none of the chosen layers' inputs, .* give mask=, a function"):
        calibrate(model, ["dense"], [{"x": X, "attention_mask": np.ones((B, T, T + 1), bool)}])


def test_a_mask_that_fits_some_layers_is_no_reason_to_warn():
    x = keras.Input((T, D))
    pooled = layers.GlobalAveragePooling1D()(layers.Dense(D, name="dense")(x))
    model = keras.Model(x, layers.Dense(4, name="head")(pooled))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        found = calibrate(model, ["dense", "head"], [X], mask=lambda _: MASK)
    assert [found[path].count for path in ("dense", "head")] == [MASK.sum(), B]
