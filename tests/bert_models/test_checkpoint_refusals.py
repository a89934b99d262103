"""Checkpoints that are refused, each in one sentence, and what is let through if asked."""

import json
import shutil

import keras
import numpy as np
import pytest
from checkpoint_files import garden_tensors, tf1_tensors, write_objects, write_tf1
from encoders import config_of, masked_lm_of
from keras import ops

from bert_models.checkpoints.huggingface_export import export_huggingface
from bert_models.checkpoints.loading import load, load_mlm
from bert_models.checkpoints.source import named_weights
from bert_models.hub_export import export


@pytest.fixture(scope="module")
def mlm():
    return masked_lm_of("dense")


@pytest.fixture(scope="module")
def tf1_folder(mlm, tmp_path_factory):
    return write_tf1(tmp_path_factory.mktemp("tf1"), tf1_tensors(mlm), mlm.encoder.config).parent


QUERY = "bert/encoder/layer_0/attention/self/query/kernel"


def without(tensors, *names):
    return {name: array for name, array in tensors.items() if name not in names}


BAD_TF1 = {
    "other shape": (lambda t: {**t, QUERY: np.zeros((8, 4), "float32")}, [QUERY, "(8, 4)", "(8, 8)", "bert_config"]),
    "missing": (lambda t: without(t, QUERY), [f"missing {QUERY}; unused none", "allow_missing=True"]),
    "task head": (
        lambda t: {**t, "output_weights": np.zeros((2, 8), "float32")},
        ["unused output_weights", "unused=T"],
    ),
    "whole numbers": (lambda t: {**t, QUERY: np.zeros((8, 8), "int32")}, [QUERY, "int32"]),
    "another model": (
        lambda t: {f"albert/{i}": np.zeros(2, "float32") for i in range(9)},
        ["missing bert/", "albert/0"],
    ),
    "too few": (lambda t: {"x": np.zeros(2, "float32")}, ["holds 1 tensors, too few for the 2 layers"]),
}


@pytest.mark.parametrize(("spoil", "words"), BAD_TF1.values(), ids=BAD_TF1)
def test_bad_tf1_checkpoint_is_refused(mlm, tmp_path, spoil, words):
    prefix = write_tf1(tmp_path, spoil(tf1_tensors(mlm)), mlm.encoder.config)
    check_refusal(lambda: load(prefix), ValueError, words)


def check_refusal(act, kind, words):
    with pytest.raises(kind) as caught:
        act()
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def cut(file, size):
    file.write_bytes(file.read_bytes()[:size])


DATA, INDEX = "bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index"
BAD_FOLDERS = {
    "data cut": (lambda f: cut(f / DATA, 2000), "", ValueError, ["bert_model.ckpt", "truncated", "Fetch it again"]),
    "data gone": (lambda f: (f / DATA).unlink(), "", ValueError, ["truncated", DATA]),
    "index cut": (lambda f: cut(f / INDEX, 60), "", ValueError, ["truncated or damaged"]),
    "no config": (
        lambda f: (f / "bert_config.json").unlink(),
        "",
        FileNotFoundError,
        ["no bert_config.json", "config="],
    ),
    "config damaged": (lambda f: cut(f / "bert_config.json", 9), "", ValueError, ["bert_config.json", "not JSON"]),
    "vocabulary": (
        lambda f: (f / "vocab.txt").write_text("[PAD]\n" * 15),
        "",
        ValueError,
        ["vocab.txt", "15 tokens", "14 rows"],
    ),
    "vocabulary of a hub folder": (
        lambda f: ((f / "assets").mkdir(), (f / "assets" / "vocab.txt").write_text("[PAD]\n" * 15)),
        "",
        ValueError,
        ["assets/vocab.txt", "15 tokens", "14 rows"],
    ),
    "wrong prefix": (
        lambda f: None,
        "model.ckpt",
        FileNotFoundError,
        ["no model.ckpt.index", "holds the checkpoint bert_model.ckpt"],
    ),
    "a file of it": (lambda f: None, INDEX, NotADirectoryError, ["one file of a checkpoint", "'bert_model.ckpt'"]),
    "another file": (lambda f: None, "bert_config.json", NotADirectoryError, ["is a file"]),
    "several": (lambda f: copy(f), "", ValueError, ["several checkpoints", "bert_model.ckpt, later.ckpt"]),
    "no folder": (lambda f: None, "nowhere/model", FileNotFoundError, ["No folder", "no model.index"]),
}


def copy(folder):
    for file in folder.glob("bert_model.ckpt.*"):
        shutil.copy(file, folder / file.name.replace("bert_model", "later"))


@pytest.mark.parametrize(("spoil", "name", "kind", "words"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_bad_folder_is_refused(tf1_folder, tmp_path, spoil, name, kind, words):
    folder = shutil.copytree(tf1_folder, tmp_path / "tf1")
    spoil(folder)
    check_refusal(lambda: load(folder / name if name else folder), kind, words)


def test_unused_and_missing_are_let_through_if_asked(mlm, tmp_path):
    tensors = {**without(tf1_tensors(mlm), QUERY), "output_bias": np.zeros(2, "float32")}
    prefix = write_tf1(tmp_path, tensors, mlm.encoder.config)
    check_refusal(lambda: load(prefix, allow_missing=True), ValueError, ["unused output_bias"])
    check_refusal(lambda: load(prefix, allow_unused=True), ValueError, [f"missing {QUERY}"])
    with pytest.warns(UserWarning, match=rf"missing {QUERY}; unused output_bias") as caught:
        encoder = load(prefix, allow_missing=True, allow_unused=True)
    assert caught[0].filename == __file__
    variables = named_weights(encoder)
    query, key = (ops.convert_to_numpy(variables[f"block_0/attention/{x}/kernel"]) for x in ("query", "key"))
    assert 0 < query.std() < 0.03  # as new: the file's stddev is 0.02, the weights' 0.5
    np.testing.assert_array_equal(key.reshape(8, 8), tensors[QUERY.replace("query", "key")])


def test_head_that_is_not_there_is_missed(tmp_path):
    model = masked_lm_of("dense", num_layers=1)
    export_huggingface(model.encoder, tmp_path / "hf")
    check_refusal(lambda: load_mlm(tmp_path / "hf"), ValueError, ["missing cls.predictions.bias"])
    export(model.encoder, tmp_path / "hub")
    check_refusal(lambda: load_mlm(tmp_path / "hub"), ValueError, ["missing norm/beta"])


def put(name, value):
    return lambda values: {**values, name: value}


BAD_MANIFESTS = {
    "no model": (lambda values: without(values, "model"), ["model"]),
    "no variables": (lambda values: without(values, "variables"), ["variables"]),
    "variables": (put("variables", {}), ["'variables' must be a list, got dict"]),
    "head": (put("mlm", "x"), ["'mlm' must be a list or null, got str"]),
    "config": (put("config", 5), ["'config' must be a dict, got int"]),
    "empty model": (put("model", {}), ["'model'"]),
    "unknown model": (put("model", {"module": "x", "class_name": "Y", "config": {}}), ["no encoder can be built"]),
    "another model": (
        put("model", keras.saving.serialize_keras_object(keras.Sequential())),
        ["its 'model' is no encoder"],
    ),
}


@pytest.fixture(scope="module")
def hub_folder(mlm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "made"
    export(mlm.encoder, folder)
    return folder


@pytest.mark.parametrize(("spoil", "words"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_damaged_manifest_is_refused(hub_folder, tmp_path, spoil, words):
    folder = shutil.copytree(hub_folder, tmp_path / "x")
    file = folder / "assets.extra" / "bert_models.json"
    file.write_text(json.dumps(spoil(json.loads(file.read_text()))))
    check_refusal(lambda: load(folder), ValueError, ["damaged", "bert_models.json", "export the encoder again", *words])


def test_config_of_other_sizes_is_refused_before_anything_is_built(hub_folder, monkeypatch):
    monkeypatch.setattr("bert_models.checkpoints.hub.build_encoder", None)
    other = config_of("dense", hidden_size=12, vocab_size=30)
    words = ["vocab_size=14, not 30 and hidden_size=8, not 12", "leave config= out"]
    check_refusal(lambda: load(hub_folder, config=other), ValueError, words)


def test_keras_files_that_are_something_else_are_refused(mlm, tmp_path):
    files = {name: tmp_path / f"{name}.keras" for name in ("encoder", "mlm", "other", "damaged", "nowhere")}
    mlm.encoder.save(files["encoder"])
    mlm.save(files["mlm"])
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(files["other"])
    files["damaged"].write_text("x")
    for read, name, words in (
        (load, "mlm", ["class MaskedLM, wanted was an Encoder", "tncompress.load"]),
        (load, "other", ["class Sequential", "tncompress.load"]),
        (load_mlm, "encoder", ["class Encoder, wanted was a MaskedLM"]),
        (load, "damaged", ["not a .keras file, or is damaged"]),
    ):
        check_refusal(lambda read=read, name=name: read(files[name]), ValueError, words)
    check_refusal(lambda: load(files["nowhere"]), FileNotFoundError, ["no file", "nowhere.keras"])
    check_refusal(lambda: load(files["encoder"], config="tn_bert"), ValueError, ["its own config", "leave config= out"])


def test_objects_without_a_config_or_an_encoder_are_refused(mlm, tmp_path):
    prefix = write_objects(tmp_path / "objects", garden_tensors(mlm))
    check_refusal(lambda: load(prefix), ValueError, ["does not say which encoder", "give config="])
    check_refusal(lambda: load(prefix, config="tn_bertt"), ValueError, ["nearest is tn_bert"])
    check_refusal(lambda: load(prefix, config={}), TypeError, ["BertConfig or the name of a preset", "dict"])
    check_refusal(lambda: load(prefix, config=config_of("tn_bert")), ValueError, ["missing encoder/block_0/", "/w1"])
    other = write_objects(tmp_path / "x", {"model/dense/kernel": np.zeros((2, 2), "float32")})
    check_refusal(
        lambda: load(other, config=config_of("dense")), ValueError, ["no encoder of Model Garden", "model/dense"]
    )


def test_head_with_a_table_of_its_own_is_refused(mlm, tmp_path):
    from safetensors.numpy import load_file, save_file

    export_huggingface(mlm, tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    table, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    bias = {"cls.predictions.decoder.bias": tensors["cls.predictions.bias"]}
    save_file({**tensors, **bias, decoder: tensors[table].copy()}, file)
    load_mlm(tmp_path)
    save_file({**without(tensors, table, "cls.predictions.bias"), **bias, decoder: tensors[table].copy()}, file)
    load_mlm(tmp_path)  # the copies stand in
    save_file({**tensors, **bias, decoder: tensors[table] + 1}, file)
    check_refusal(lambda: load_mlm(tmp_path), ValueError, [decoder, "differs", "encoder alone"])
    load(tmp_path)
