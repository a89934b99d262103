"""`quantize("int8")` and `enable_lora` act on networks as they do on Keras's dense layers."""

import warnings

import keras
import models
import numpy as np
import pytest

import tncompress
from tncompress import TNDense, TNFeedForward
from tncompress.conversion.adapted import adaptations_of
from tncompress.conversion.walking import walk
from tncompress.forms import expand_condense, low_rank, tt_matrix
from tncompress.layers.folded import TNFolded
from tncompress.layers.lora import TNLora
from tncompress.layers.pivoted import TNPivoted
from tncompress.layers.quantized import TNInt8

SPECS = {"low rank": low_rank.spec(16, 8, 4), "tt": tt_matrix.spec((4, 4), (2, 4), 3)}
KINDS = {
    "low rank": lambda: TNDense(SPECS["low rank"], "tanh", name="layer"),
    "without bias": lambda: TNDense(SPECS["tt"], use_bias=False, name="layer"),
    "pivoted": lambda: TNPivoted(SPECS["low rank"], "relu", name="layer"),
    "several axes": lambda: TNDense(SPECS["low rank"], out_shape=(2, 4), name="layer"),
}


def inputs(rows=6):
    return np.random.default_rng(0).normal(0, 1, (rows, 5, 16)).astype("float32")


def model_of(layer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5, 16)), layer, keras.layers.Flatten(), keras.layers.Dense(3, name="head")])
    draw = np.random.default_rng(1)
    for weight in layer.trainable_weights:
        weight.assign(weight + draw.normal(0, 0.1, weight.shape))
    if hasattr(layer, "order"):
        layer.order.assign(draw.permutation(8))
    return model


def outputs(model):
    return keras.ops.convert_to_numpy(model(inputs(), training=False))


@pytest.mark.parametrize("kind", KINDS)
def test_int8_is_the_network_of_rounded_cores(kind, tmp_path):
    model = model_of(KINDS[kind]())
    layer = model.get_layer("layer")
    before, size = layer.count_params(), outputs(model)
    cores = [keras.ops.convert_to_numpy(core) for core in layer.cores]

    model.quantize("int8", filters="layer")

    assert [core.dtype for core in layer.cores] == ["int8"] * len(cores)
    assert layer.count_params() == before + sum(core.shape[-1] for core in cores)  # the scales
    for core, rounded, found in zip(cores, layer.tensors(), layer.cores, strict=True):
        step = np.abs(core).max(axis=tuple(range(core.ndim - 1))) / 127
        assert np.all(np.abs(core - keras.ops.convert_to_numpy(rounded)) <= 0.5001 * step)
        assert np.abs(keras.ops.convert_to_numpy(found)).max() == 127
    assert 0 < np.abs(outputs(model) - size).max() < 0.1
    rounded = model_of(KINDS[kind]())  # the oracle: floats that were rounded
    for core, value in zip(rounded.get_layer("layer").cores, layer.tensors(), strict=True):
        core.assign(value)
    np.testing.assert_allclose(outputs(model), outputs(rounded), atol=1e-5)
    np.testing.assert_allclose(layer.to_dense(), rounded.get_layer("layer").to_dense(), atol=1e-6)

    model.save(tmp_path / "a.keras")
    again = keras.saving.load_model(tmp_path / "a.keras")
    np.testing.assert_allclose(outputs(again), outputs(model), atol=1e-5)
    model.save_weights(tmp_path / "a.weights.h5")
    rounded.load_weights(tmp_path / "a.weights.h5")  # the layer that it was can take them
    np.testing.assert_allclose(outputs(rounded), outputs(model), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_starts_as_the_same_map_and_only_it_is_trained(kind, tmp_path):
    model = model_of(KINDS[kind]())
    layer, before = model.get_layer("layer"), outputs(model)
    cores = [keras.ops.convert_to_numpy(core) for core in layer.cores]

    layer.enable_lora(2, lora_alpha=3)

    np.testing.assert_allclose(outputs(model), before, atol=1e-6)
    assert {weight.name for weight in layer.trainable_weights} - {"bias"} == {"lora_kernel_a", "lora_kernel_b"}
    model.compile("sgd", "mse")
    model.fit(inputs(), np.ones((6, 3), "float32"), epochs=2, verbose=0)
    assert np.abs(outputs(model) - before).max() > 1e-4
    for core, value in zip(layer.cores, cores, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(core), value)

    plain = model_of(keras.layers.Dense(8, layer.activation, use_bias=layer.bias is not None, name="layer"))
    if layer.bias is not None:
        plain.get_layer("layer").bias.assign(keras.ops.reshape(layer.bias, (-1,)))
    plain.get_layer("layer").kernel.assign(layer.to_dense())
    plain.get_layer("head").set_weights(model.get_layer("head").get_weights())
    np.testing.assert_allclose(outputs(model), outputs(plain), atol=1e-5)  # the oracle: the sum as one kernel

    model.save(tmp_path / "a.keras")
    np.testing.assert_allclose(outputs(keras.saving.load_model(tmp_path / "a.keras")), outputs(model), atol=1e-6)


def test_a_compressed_model_of_int8_networks_is_saved_and_loaded(tmp_path):
    model, x = models.made("sequential")
    small = tncompress.replace_dense(model, recipe=models.full_recipe(model), progress=False)
    before = models.outputs_of(small, x)
    small.quantize("int8", filters=lambda layer: isinstance(layer, TNDense))
    assert {type(layer) for layer in small.layers if isinstance(layer, TNDense)} == {TNInt8}
    assert 0 < models.largest_difference(models.outputs_of(small, x), before) < 0.2
    small.save(tmp_path / "a.keras")
    again = tncompress.load(tmp_path / "a.keras")
    assert models.largest_difference(models.outputs_of(again, x), models.outputs_of(small, x)) < 1e-5


@pytest.mark.parametrize("kind", ["sequential", "functional", "encoder"])
def test_compressed_models_with_lora_or_all_int8_are_saved_and_loaded(kind, tmp_path):
    model, x = models.made(kind)
    small = tncompress.replace_dense(model, keep=0.5, progress=False)
    quantized = tncompress.replace_dense(model, keep=0.5, progress=False)
    networks = [layer for _, layer in walk(small) if isinstance(layer, TNDense)]
    for number, layer in enumerate(networks):
        layer.enable_lora(2, lora_alpha=number + 1)
        layer.lora_kernel_b.assign(np.random.default_rng(number).normal(size=layer.lora_kernel_b.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layers that stay in float
        quantized.quantize("int8")
    for number, changed in enumerate((small, quantized)):
        wanted = models.outputs_of(changed, x)
        changed.save(tmp_path / f"{number}.keras")
        again = tncompress.load(tmp_path / f"{number}.keras")
        assert models.largest_difference(models.outputs_of(again, x), wanted) < 1e-5
        assert len(again.trainable_variables) == len(changed.trainable_variables)
        assert sorted({v.dtype for v in again.variables}) == sorted({v.dtype for v in changed.variables})
    assert len(adaptations_of(small)) == len(networks) > 0
    assert any("quantize" in done for done in adaptations_of(quantized).values())


def test_both_reach_the_networks_of_a_block():
    block = TNFeedForward(expand_condense.expand(8, 32, 2, 4), expand_condense.condense(32, 8, 2, 4))
    model = keras.Sequential([keras.Input((3, 8)), block])
    model.quantize("int8")
    assert isinstance(block.expand, TNInt8)
    assert isinstance(block.condense, TNInt8)


def test_what_cannot_be_says_so():
    layer = TNDense(SPECS["low rank"])
    with pytest.raises(ValueError, match="is not built, so it has no cores yet"):
        layer.enable_lora(2)
    layer.build((None, 16))
    with pytest.raises(NotImplementedError, match=r"quantized by mode='int8' without settings, got 'int4'"):
        layer.quantize("int4")
    with pytest.raises(ValueError, match="rank is a whole number, at least 1, got 0"):
        layer.enable_lora(0)
    layer.enable_lora(2)
    assert isinstance(layer, TNLora)
    with pytest.raises(ValueError, match="takes no LoRA, which goes beside trainable cores, once"):
        layer.enable_lora(2)
    with pytest.raises(NotImplementedError, match="stays in float; quantize before adding LoRA, and unfold first"):
        layer.quantize("int8")
    folded = TNFolded(SPECS["low rank"])
    folded.build((None, 16))
    with pytest.raises(NotImplementedError, match="stays in float"):
        folded.quantize("int8")
