"""Checkpoints, tokenizers and data of other people's: refused in one sentence, or read exactly."""

import json
import struct

import numpy as np
import pytest
from checkpoint_files import tf1_tensors, write_objects, write_tf1
from corrupting import corrupted
from encoders import masked_lm_of
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from refusals import error_of, jsons
from safetensors.numpy import load_file

from bert_models.checkpoints.config_json import bert_config, read_config, tf1_config
from bert_models.checkpoints.huggingface_export import export_huggingface
from bert_models.checkpoints.loading import load
from bert_models.checkpoints.source import named_weights
from bert_models.checkpoints.tf_checkpoint import TFCheckpoint
from bert_models.finetuning.reading import read_examples
from bert_models.finetuning.squad import read_questions
from bert_models.finetuning.tasks import task_of
from bert_models.hub_export import export
from bert_models.pretraining.info import read_info
from bert_models.text.tokenize import load_tokenizer
from bert_models.text.vocabulary import Vocabulary, from_backend, read_tokens, to_backend

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s", "b", "c", "d", "e", "f", "g")
TEXTS = ["a cat", "cats and é", "g"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place")


# -- texts of any content --------------------------------------------------------------------------

TABLE_SEEDS = ("gj04\t1\t\tOur friends.\r\nx\t0\t*\tThem.\n", "sentence1\tsentence2\tscore\na\tb\t5.000\n")
files = st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
tables = files | st.builds(
    lambda seed, at, text: (seed[:at] + text + seed[at:]).encode("utf-8", "surrogatepass"),
    st.sampled_from(TABLE_SEEDS),
    st.integers(0, 60),
    st.text(max_size=5),
)


@given(tables)
def test_any_table_is_read_or_refused(place, data):
    (place / "dev.tsv").write_bytes(data)
    for task in ("cola", "stsb"):
        error_of(lambda task=task: read_examples(task_of(task), place / "dev.tsv"))


@given(files | st.lists(st.sampled_from(TOKENS), max_size=30).map(lambda rows: "\n".join(rows).encode()))
def test_any_vocabulary_is_read_or_refused(place, data):
    (place / "vocab.txt").write_bytes(data)
    error_of(lambda: Vocabulary(read_tokens(place / "vocab.txt")))


QA = {"id": "1", "question": "What?", "answers": [{"answer_start": 2, "text": "cat"}]}
QUESTIONS = {"data": [{"paragraphs": [{"context": "A cat sat.", "qas": [QA]}]}]}
INFO = {"format": 1, "settings": {}, "shards": [{"name": "x", "records": 1, "bytes": 0}]}
CONFIG = {"model_type": "bert", "hidden_size": 8, "num_attention_heads": 2, "vocab_size": len(TOKENS)}
READERS = {
    "questions": (QUESTIONS, "dev.json", lambda folder: read_questions(folder / "dev.json")),
    "config": (CONFIG, "config.json", lambda folder: read_config(folder / "config.json", bert_config)),
    "tf1 config": (CONFIG, "config.json", lambda folder: read_config(folder / "config.json", tf1_config)),
    "settings": ({"model_max_length": 9, "do_lower_case": True}, "tokenizer_config.json", load_tokenizer),
    "sizes": (CONFIG, "config.json", load_tokenizer),
    "pretraining data": (INFO, "pretraining_data.json", read_info),
}


def places_in(value):
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places_in(one)


@pytest.mark.parametrize(("seed", "name", "read"), READERS.values(), ids=READERS)
@given(value=jsons, number=st.integers(0, 20))
def test_any_json_is_read_or_refused(place, seed, name, read, value, number):
    folder = place / name.replace(".", "_")
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(TOKENS))
    whole = json.loads(json.dumps(seed))
    owner, key = list(places_in(whole))[number % len(list(places_in(whole)))]
    owner[key] = value
    for content in (whole, value):
        (folder / name).write_text(json.dumps(content))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *args, **kwargs: None)
            error_of(lambda: read(folder))
    (folder / name).unlink()


EVIL_TEXTS = {
    "nested": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "long number": b'{"hidden_size": ' + b"9" * 5000 + b"}",
    "no text": bytes(range(256)),
    "zeros": bytes(1 << 20),
    "large value": json.dumps({**CONFIG, "hidden_act": "x" * 1_000_000}).encode(),
    "half a character": json.dumps({"data": [{"paragraphs": [{"context": "\ud800", "qas": []}]}]}).encode(),
}


@pytest.mark.parametrize("content", EVIL_TEXTS.values(), ids=EVIL_TEXTS)
@pytest.mark.parametrize(("seed", "name", "read"), READERS.values(), ids=READERS)
def test_evil_json_is_refused(seed, name, read, content, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS))
    (tmp_path / name).write_bytes(content)
    is_object = content in (
        EVIL_TEXTS["large value"],
        EVIL_TEXTS["half a character"],
    )  # some readers want nothing of it
    assert error_of(lambda: read(tmp_path)) or (is_object and seed is not QUESTIONS)


def test_json_files_of_any_size_are_not_read(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS))
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of zeros that takes no room
    assert "at most" in str(error_of(lambda: read_config(tmp_path / "config.json", bert_config)))
    assert "at most" in str(error_of(lambda: load_tokenizer(tmp_path)))


def test_a_vocabulary_with_a_late_repetition_is_refused_at_once():
    tokens = (*TOKENS, *map(str, range(200_000)), "199999")
    assert "'199999' occurs twice" in str(error_of(lambda: Vocabulary(tokens)))


def test_ids_far_apart_are_refused_at_once():
    backend = to_backend(TOKENS, {})
    values = json.loads(backend.to_str())
    values["model"]["vocab"]["far"] = 4_000_000_000
    found = type(backend).from_str(json.dumps(values))
    assert "unused, the first is 14" in str(error_of(lambda: from_backend(found)))


# -- weights ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mlm():
    return masked_lm_of("dense", num_layers=1)


def arrays_of(encoder) -> dict[str, np.ndarray]:
    return {name: ops.convert_to_numpy(value) for name, value in named_weights(encoder).items()}


def assert_same_weights(encoder, other) -> None:
    theirs = arrays_of(other)
    for name, ours in arrays_of(encoder).items():
        np.testing.assert_array_equal(ours, theirs[name], err_msg=name)


def test_a_hundred_damaged_tensorflow_checkpoints_are_refused_or_load_exactly(mlm, tmp_path):
    prefix = write_tf1(tmp_path, tf1_tensors(mlm), mlm.encoder.config)
    whole = load(prefix)
    for ending in (".index", ".data-00000-of-00001"):
        file = prefix.with_name(prefix.name + ending)
        content = file.read_bytes()
        for data in corrupted(content, 50):
            file.write_bytes(data)
            if error := error_of(lambda: load(prefix)):
                assert str(prefix) in str(error)
            else:
                assert_same_weights(load(prefix), whole)
        file.write_bytes(content)


def test_a_hundred_damaged_safetensors_are_refused_or_load_what_is_in_them(mlm, tmp_path):
    """The format has no checksum: what is changed in the numbers is there as it is in the file."""
    export_huggingface(mlm.encoder, tmp_path)
    file = tmp_path / "model.safetensors"
    content, whole = file.read_bytes(), load(tmp_path)
    (header,) = struct.unpack("<Q", content[:8])
    for data in corrupted(content[: 8 + header], 50):
        file.write_bytes(data + content[8 + header :])
        if error_of(lambda: load(tmp_path)) is None:
            assert_same_weights(load(tmp_path), whole)
    numbers = 0
    for data in corrupted(content[8 + header :], 50):
        file.write_bytes(content[: 8 + header] + data)
        if error_of(lambda: load(tmp_path)) is None:
            numbers += 1
            assert all(array.shape for array in load_file(file).values())
    assert 0 < numbers < 50  # cuts are refused


def test_a_hundred_damaged_tokenizers_are_refused_or_work(tmp_path):
    to_backend(TOKENS, {}).save(str(tmp_path / "tokenizer.json"))
    content = (tmp_path / "tokenizer.json").read_bytes()
    for data in corrupted(content, 100):
        (tmp_path / "tokenizer.json").write_bytes(data)
        error_of(lambda: load_tokenizer(tmp_path)(TEXTS))


def test_more_numbers_than_the_data_files_hold_are_refused_before_they_are_read(mlm, tmp_path, monkeypatch):
    prefix = write_tf1(tmp_path, tf1_tensors(mlm), mlm.encoder.config)
    monkeypatch.setattr(TFCheckpoint, "size", 100)
    assert "need at least" in str(error_of(lambda: load(prefix)))


def test_objects_that_are_not_there_are_refused(tmp_path, monkeypatch):
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    prefix = write_objects(tmp_path / "objects", {"encoder/kernel": np.zeros(2, "float32")})
    read = TrackableObjectGraph.FromString

    def changed(data):
        graph = read(data)
        graph.nodes[0].children[0].node_id = 77
        return graph

    monkeypatch.setattr(TrackableObjectGraph, "FromString", changed)
    assert "names others" in str(error_of(lambda: TFCheckpoint(prefix)))


EVIL_MANIFESTS = {
    "code": ({"class_name": "__lambda__", "config": {"code": "4wAAAA=="}}, "Python code"),
    "terabytes": (
        {
            "module": "keras.layers",
            "class_name": "Dense",
            "config": {"units": 10**7},
            "build_config": {"input_shape": [None, 10**6]},
        },
        "more weights than the file can hold",
    ),
}


@pytest.mark.parametrize(("model", "words"), EVIL_MANIFESTS.values(), ids=EVIL_MANIFESTS)
def test_evil_manifests_are_refused(mlm, model, words, tmp_path):
    export(mlm.encoder, tmp_path / "made")
    file = tmp_path / "made" / "assets.extra" / "bert_models.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model": model}))
    assert words in str(error_of(lambda: load(tmp_path / "made")))
