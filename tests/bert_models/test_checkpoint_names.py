"""The name tables: against lists made elsewhere, against our own variables, and there and back."""

import json
from pathlib import Path

import numpy as np
import pytest
from bert_configs import bert_configs
from checkpoint_files import garden_config, tensors_of
from encoders import CARDS, config_of, encoder_of
from hypothesis import given, settings
from keras import ops
from oracles_model_garden import our_path

from bert_models import MaskedLM, build_encoder
from bert_models.blocks.feed_forward import gelu_tanh
from bert_models.checkpoints.config_json import bert_config, hugging_face_values
from bert_models.checkpoints.garden_names import attribute_names, functional_names, garden_names, layers_of
from bert_models.checkpoints.names import HUGGING_FACE, TF1, check_plain, weights
from bert_models.checkpoints.source import named_weights

GARDEN_KEYS = json.loads((Path(__file__).parent / "golden" / "model_garden_keys.json").read_text())

# From the listing of Google's uncased_L-12_H-768_A-12, with other sizes
TF1_NAMES = """
bert/embeddings/word_embeddings 14 8
bert/embeddings/position_embeddings 20 8
bert/embeddings/token_type_embeddings 2 8
bert/embeddings/LayerNorm/gamma 8
bert/embeddings/LayerNorm/beta 8
bert/encoder/layer_0/attention/self/query/kernel 8 8
bert/encoder/layer_0/attention/self/query/bias 8
bert/encoder/layer_0/attention/self/key/kernel 8 8
bert/encoder/layer_0/attention/self/key/bias 8
bert/encoder/layer_0/attention/self/value/kernel 8 8
bert/encoder/layer_0/attention/self/value/bias 8
bert/encoder/layer_0/attention/output/dense/kernel 8 8
bert/encoder/layer_0/attention/output/dense/bias 8
bert/encoder/layer_0/attention/output/LayerNorm/gamma 8
bert/encoder/layer_0/attention/output/LayerNorm/beta 8
bert/encoder/layer_0/intermediate/dense/kernel 8 32
bert/encoder/layer_0/intermediate/dense/bias 32
bert/encoder/layer_0/output/dense/kernel 32 8
bert/encoder/layer_0/output/dense/bias 8
bert/encoder/layer_0/output/LayerNorm/gamma 8
bert/encoder/layer_0/output/LayerNorm/beta 8
bert/pooler/dense/kernel 8 8
bert/pooler/dense/bias 8
cls/predictions/transform/dense/kernel 8 8
cls/predictions/transform/dense/bias 8
cls/predictions/transform/LayerNorm/gamma 8
cls/predictions/transform/LayerNorm/beta 8
cls/predictions/output_bias 14
"""


def test_tf1_names_are_those_of_the_release():
    lines = [line.split() for line in TF1_NAMES.split("\n") if line]
    expected = {name: tuple(map(int, shape)) for name, *shape in lines}
    table = weights((*TF1.encoder, *TF1.head), config_of("dense", num_layers=1))
    assert {weight.name: weight.shape for weight in table} == expected


@pytest.mark.parametrize("kind", GARDEN_KEYS)
def test_model_garden_names_are_those_that_it_writes(kind):
    config = garden_config(kind if kind in CARDS else "dense")
    layers = (attribute_names if kind == "BertEncoderV2" else functional_names)(layers_of(config))
    found = {}
    for weight in weights(garden_names(config).encoder, config):
        owner, layer, *rest = weight.name.split("/")
        found["/".join([owner, layers[layer], *rest])] = [weight.path, list(weight.shape)]
    assert found == {key: [our_path(f"{name}:0"), shape] for key, (name, shape) in GARDEN_KEYS[kind].items()}


def test_kernels_stand_as_in_the_formats():
    encoder = encoder_of("dense", num_layers=1)
    ours = {name: ops.convert_to_numpy(variable) for name, variable in named_weights(encoder).items()}
    torch, tf1 = tensors_of(encoder, HUGGING_FACE.encoder), tensors_of(encoder, TF1.encoder)
    layer = {"query": "attention/self/query", "attention_output": "attention/output/dense"}
    for name, theirs in layer.items():  # [in, out]; theirs know no heads
        kernel = ours[f"block_0/attention/{name}/kernel"].reshape(8, 8)
        np.testing.assert_array_equal(tf1[f"bert/encoder/layer_0/{theirs}/kernel"], kernel)
        np.testing.assert_array_equal(torch[f"encoder.layer.0.{theirs.replace('/', '.')}.weight"], kernel.T)
    wide = ours["block_0/feed_forward/intermediate/kernel"]
    np.testing.assert_array_equal(tf1["bert/encoder/layer_0/intermediate/dense/kernel"], wide)
    np.testing.assert_array_equal(torch["encoder.layer.0.intermediate.dense.weight"], wide.T)


def test_cores_stand_as_in_model_garden():
    """Its layer, in its own order: h = gelu(w1 x, blocks apart, times w2, plus b); y = h w3, times w4."""
    encoder = encoder_of("tn_bert", num_layers=1)
    w = {
        name.rsplit("/", 1)[-1]: array
        for name, array in tensors_of(encoder, garden_names(encoder.config).encoder).items()
    }
    x = np.random.default_rng(0).normal(size=(3, 8)).astype("float32")
    h = np.einsum("Qa,ta->tQ", w["w1"], x).reshape(3, 2, 4)  # [T, C, D]
    h = ops.convert_to_numpy(gelu_tanh(np.einsum("tcd,de->tce", h, w["w2"]) + w["b"][:, 0]))  # [T, C, E]
    y = np.einsum("tcd,cdo->to", h @ w["w3"], w["w4"])  # [T, H]
    ours = encoder.get_layer("block_0").feed_forward(x)
    np.testing.assert_allclose(ops.convert_to_numpy(ours), y, rtol=1e-5, atol=1e-5)


def names_of(config):
    yield HUGGING_FACE
    yield TF1
    yield garden_names(config)


@pytest.mark.parametrize("kind", CARDS)
def test_every_variable_is_listed_once_with_as_many_numbers(kind):
    config = config_of(kind, num_layers=3)
    variables = {name: v.shape for name, v in named_weights(MaskedLM(build_encoder(config))).items()}
    for names in list(names_of(config))[0 if kind == "dense" else 2 :]:
        table = weights((*names.encoder, *names.head), config)
        assert sorted(weight.path for weight in table) == sorted(variables)
        assert all(np.prod(weight.shape) == np.prod(variables[weight.path]) for weight in table)


@settings(max_examples=50, deadline=None)
@given(config=bert_configs())
def test_there_and_back_is_the_same(config):
    try:
        tables = [garden_names(config)]
    except ValueError:  # Model Garden has no such encoder
        return
    if config.feed_forward.to_dict()["kind"] == "dense" and not config.gated:
        tables += [HUGGING_FACE, TF1]
    for names in tables:
        for weight in weights((*names.encoder, *names.head), config):
            array = np.arange(np.prod(weight.shape), dtype="float32").reshape(weight.shape)
            there = weight.to_variable(array, array.T.shape if weight.transposed else array.shape)
            np.testing.assert_array_equal(weight.to_file(there), array)


@settings(max_examples=50, deadline=None)
@given(config=bert_configs())
def test_config_json_says_all_of_a_plain_config(config):
    try:
        check_plain(config, "")
    except ValueError:
        return
    assert bert_config(json.loads(json.dumps(hugging_face_values(config, "BertModel")))) == config


@pytest.mark.parametrize("kind", ["talking heads of three sizes", "gated, low rank", "networks"])
def test_model_garden_has_not_every_encoder(kind):
    with pytest.raises(ValueError, match="Model Garden has no encoder with attention="):
        garden_names(config_of(kind))
