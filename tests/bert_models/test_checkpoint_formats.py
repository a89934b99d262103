"""The same weights from every format give the same outputs."""

import numpy as np
import pytest
from checkpoint_files import garden_tensors, tensors_of, tf1_tensors, write_objects, write_tf1
from encoders import CARDS, batch_of, config_of, encoder_of, masked_lm_of, outputs_of, with_positions

import tncompress
from bert_models.checkpoints.garden_names import attribute_names, functional_names
from bert_models.checkpoints.huggingface_export import export_huggingface
from bert_models.checkpoints.loading import load, load_mlm
from bert_models.checkpoints.model_garden import NOT_READ
from bert_models.checkpoints.names import TF1
from bert_models.hub_export import export

TOLERANCE = 1e-5  # float32, outputs up to 4
BATCH = with_positions(batch_of([7, 4, 1], longest=7))
ENCODER_BATCH = {name: ids for name, ids in BATCH.items() if name != "masked_lm_positions"}


@pytest.fixture(scope="module")
def mlm():
    return masked_lm_of("dense")


@pytest.fixture(scope="module")
def outputs(mlm):
    return outputs_of(mlm, BATCH)


@pytest.fixture(scope="module")
def written(mlm, tmp_path_factory):
    """Format -> what `load` is given."""
    folder = tmp_path_factory.mktemp("formats")
    export_huggingface(mlm, folder / "hugging_face")
    export(mlm.encoder, folder / "hub", mlm=mlm)
    objects = {name: write_objects(folder / name, garden_tensors(mlm, naming)) for name, naming in NAMINGS.items()}
    config = {"config": mlm.encoder.config}
    return {
        "hugging_face": (folder / "hugging_face", {}),
        "hub": (folder / "hub", {}),
        "tf1 prefix": (write_tf1(folder / "tf1", tf1_tensors(mlm), mlm.encoder.config), {}),
        "tf1 folder": (str(folder / "tf1"), {}),
        **{name: (prefix, config) for name, prefix in objects.items()},
    }


NAMINGS = {"layers counted": functional_names, "layers named": attribute_names}
FORMATS = ["hugging_face", "hub", "tf1 prefix", "tf1 folder", *NAMINGS]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_outputs(written, outputs, name):
    path, settings = written[name]
    for ours, theirs in zip(outputs_of(load_mlm(path, **settings), BATCH), outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", FORMATS)
def test_encoder_alone_is_the_same(written, mlm, name):
    path, settings = written[name]
    encoder = load(path, **settings)
    assert encoder.config.activation == "gelu_tanh"
    for ours, theirs in zip(outputs_of(encoder, ENCODER_BATCH), outputs_of(mlm.encoder, ENCODER_BATCH), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_every_format_gives_the_same_outputs_with_real_weights(minilm, minilm_tokenizer, tmp_path):
    sentences = ["The cat sat on the mat.", "Why?", "Tensor networks compress the weights of a language model."]
    batch, config = minilm_tokenizer(sentences), minilm.config
    export_huggingface(minilm, tmp_path / "hugging_face")
    export(minilm, tmp_path / "hub")
    paths = [tmp_path / "hugging_face", tmp_path / "hub"]
    paths += [write_tf1(tmp_path / "tf1", tensors_of(minilm, TF1.encoder), config)]
    paths += [write_objects(tmp_path / "objects", garden_tensors(minilm))]
    expected = outputs_of(minilm, batch)
    for path in paths:
        # A TensorFlow checkpoint has the other GELU, unless one says so.
        found = load(path, config=None if path in paths[:2] else config)
        for ours, theirs in zip(outputs_of(found, batch), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)


# Where the encoder object may be in a checkpoint
OWNERS = ["encoder", "model", "model/encoder_network", "model/layer_with_weights-0"]


@pytest.mark.parametrize("kind", CARDS)
def test_objects_of_every_kind(tmp_path, kind):
    model = masked_lm_of(kind, num_layers=1)
    config = model.encoder.config
    found = load_mlm(write_objects(tmp_path / "pretrainer", garden_tensors(model)), config=config)
    for ours, theirs in zip(outputs_of(found, BATCH), outputs_of(model, BATCH), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for owner in OWNERS:
        tensors = {f"{owner}{path[7:]}": array for path, array in garden_tensors(model.encoder).items()}
        assert_same_weights(load(write_objects(tmp_path / "x", tensors), config=config), model.encoder)


def assert_same_weights(found, expected):
    pairs = zip(found.weights, expected.weights, strict=True)
    assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)


def test_hub_folder_of_a_compressed_encoder(tmp_path):
    encoder = tncompress.replace_dense(encoder_of("dense", num_layers=1), keep=0.6)
    export(encoder, tmp_path / "hub")
    found = load(tmp_path / "hub")
    assert found.config == encoder.config
    for ours, theirs in zip(outputs_of(found, ENCODER_BATCH), outputs_of(encoder, ENCODER_BATCH), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_gelu_is_the_one_of_the_source(written, tmp_path):
    tf1, _ = written["tf1 folder"]
    assert load(tf1).config.activation == "gelu_tanh"  # its file says "gelu"
    export_huggingface(encoder_of("dense", activation="gelu"), tmp_path)
    assert '"hidden_act": "gelu"' in (tmp_path / "config.json").read_text()
    assert load(tmp_path).config.activation == "gelu"


def test_released_objects_have_their_config_beside_them(mlm, tmp_path):
    write_tf1(tmp_path, tf1_tensors(mlm), mlm.encoder.config)
    assert_same_weights(load(write_objects(tmp_path / "bert_model_2.ckpt", garden_tensors(mlm))), mlm.encoder)


def garden_spelling(name):
    """As Model Garden's programs name the head, source: its bert/tf2_encoder_checkpoint_converter.py."""
    if name == "cls/predictions/output_bias":
        return "bert/cls/predictions/output_bias/bias"
    return f"bert/{name}" if name.startswith("cls/predictions/") else name


def test_head_has_two_spellings(mlm, outputs, tmp_path):
    tensors = {garden_spelling(name): array for name, array in tf1_tensors(mlm).items()}
    assert {name for name in tensors if "predictions" in name and "adam" not in name} == {
        "bert/cls/predictions/transform/dense/kernel",
        "bert/cls/predictions/transform/dense/bias",
        "bert/cls/predictions/transform/LayerNorm/gamma",
        "bert/cls/predictions/transform/LayerNorm/beta",
        "bert/cls/predictions/output_bias/bias",
    }
    prefix = write_tf1(tmp_path, tensors, mlm.encoder.config)
    for ours, theirs in zip(outputs_of(load_mlm(prefix), BATCH), outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE, rtol=0)
    assert_same_weights(load(prefix), mlm.encoder)  # a head that was not asked for is no surprise


def test_keras_files_are_read(mlm, tmp_path):
    small = tncompress.replace_dense(encoder_of("dense", num_layers=1), keep=0.6)
    for name, model, read in (("a", mlm.encoder, load), ("b", small, load), ("c", mlm, load_mlm)):
        model.save(tmp_path / f"{name}.keras")
        found = read(tmp_path / f"{name}.keras")
        assert type(found) is type(model)
        assert_same_weights(found, model)


def test_given_config_comes_before_that_of_the_file(written):
    config = config_of("dense", activation="relu", hidden_dropout=0.3)
    for name in FORMATS:
        assert load(written[name][0], config=config).config == config


def test_counters_and_slots_of_optimizers_are_left_out(tmp_path):
    model = encoder_of("dense", num_layers=1)
    others = {
        "optimizer/learning_rate": 0.1,
        "optimizer/_variables/1": np.zeros(3),
        "global_step": 3,
    }
    prefix = write_objects(tmp_path / "x", {**garden_tensors(model), **others})
    load(prefix, config=model.config)
    slot = "encoder/layer_with_weights-5/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE"
    assert NOT_READ.fullmatch(slot)
    assert not NOT_READ.fullmatch(slot.replace("/.OPTIMIZER_SLOT/optimizer/m", ""))
