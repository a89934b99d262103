"""What is read from files: texts, tables, arrays, tokenizers; and random input for any model."""

import keras
import numpy as np
import pytest
from checkpoint_files import tf1_tensors, write_tf1
from cli import SIZES, TEXTS, WORDS, as_json, run, write_bert, write_texts
from encoders import config_of, masked_lm_of
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from tncompress.cli.bert import tokenizer
from tncompress.cli.data import Source, batch_size, batches_for, read_texts, spread
from tncompress.cli.models import find
from tncompress.cli.random_input import random_inputs

LINES = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(LINES)
def test_texts_are_read_as_they_were_written(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("texts")
    wanted = [line.strip() for line in lines if line.strip()]
    files = {"a.txt": "\n".join(lines), "a.tsv": "id\ttext\n" + "".join(f"1\t{line}\n" for line in lines)}
    files["a.csv"] = "id,text\n" + "".join('1,"{}"\n'.format(line.replace('"', '""')) for line in lines)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("utf-8"))
        columns = () if name == "a.txt" else ("text",)
        if wanted:
            assert read_texts([folder / name], columns) == wanted
        else:
            with pytest.raises(ValueError, match="There is no text"):
                read_texts([folder / name], columns)


@given(st.integers(1, 200), st.integers(1, 200))
def test_what_is_taken_is_spread_evenly(count, most):
    taken = spread(range(count), most)
    assert len(taken) == min(count, most)
    gaps = np.diff([*taken, count])
    assert taken[0] == 0
    assert gaps.max() - gaps.min() <= 1


@given(st.integers(1, 5000))
def test_there_are_batches_to_hold_out(count):
    assert 1 <= batch_size(count) <= 64
    assert count < 16 or count / batch_size(count) >= 16


def write(file, content):
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_columns(tmp_path):
    table = write(tmp_path / "t.csv", 'one,two\n"a, b",c\nd,\n')
    assert read_texts([table], ["one"]) == ["a, b", "d"]
    assert read_texts([table], ["one", "two"]) == ["a, b", "d", "c"]
    assert read_texts([table], ["2"]) == ["two", "c"]
    assert read_texts([write(tmp_path / "t.tsv", 'x\t"a b\n')], ["2"]) == ['"a b']


@pytest.mark.parametrize(("name", "content"), [("t.csv", "text\na cat\n"), ("t.txt", "a cat\n")])
def test_a_mark_of_byte_order_is_no_text(tmp_path, name, content):
    file = write(tmp_path / name, b"\xef\xbb\xbf" + content.encode())
    assert read_texts([file], ["text"] if name == "t.csv" else []) == ["a cat"]


@pytest.mark.parametrize("name", ["", "vocab.txt", "tokenizer.json", "other.json"])
def test_rows_are_as_long_as_the_files_beside_say(tmp_path, name):
    from bert_models.cli.places import open_tokenizer

    folder = write_bert(tmp_path / "bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "other.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 9}')
    for found in (open_tokenizer(str(folder / name)), tokenizer(folder / name, None)):
        assert found.max_length == 9
        assert found(["a cat"])["input_word_ids"].tolist() == [[2, 5, 6, 3]]


@pytest.mark.parametrize(
    ("name", "content", "columns", "message"),
    [
        ("t.csv", "one,two\n", [], "has the columns one, two: say with --column"),
        ("t.csv", "one,two\n", ["three"], "no column 'three'; it has one, two, or numbers"),
        ("t.csv", "one,two\n", ["3"], "no column '3'"),
        ("t.csv", b"one\n\xff\n", ["one"], r"not UTF-8 text \(byte"),
        ("t.csv", "", ["one"], "no column 'one'"),
        ("t.csv", "one\n" + "x" * (1 << 21), ["one"], "line 2, is no table"),
        ("t.txt", "\n \n", [], "There is no text"),
    ],
)
def test_tables_that_are_none(tmp_path, name, content, columns, message):
    with pytest.raises(ValueError, match=message):
        read_texts([write(tmp_path / name, content)], columns)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("x.npy", lambda file: file.write_bytes(b"no array"), "holds no arrays that can be read"),
        ("x.npz", lambda file: file.write_bytes(b"PK\x03\x04"), "holds no arrays that can be read"),
        ("x.npy", lambda file: np.save(file, np.array([{}], object), allow_pickle=True), "holds no arrays"),
        ("x.npy", lambda file: np.save(file, np.array(["a"])), "no arrays of numbers"),
        ("x.npy", lambda file: np.save(file, np.float32(1)), "no arrays of numbers"),
        ("x.npz", lambda file: np.savez(file, a=np.ones(2), b=np.ones(3)), "different lengths: 2, 3"),
        ("x.npy", lambda file: np.save(file, np.ones((0, 3))), "arrays without rows"),
        ("x.npz", lambda file: np.savez(file, a=np.ones((0, 3))), "arrays without rows"),
    ],
)
def test_arrays_that_are_none(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        batches_for(None, [], Source((tmp_path / name,)))


def test_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(40))
    batches = batches_for(None, [], Source((tmp_path / "x.npy",), most=32))
    assert np.concatenate(batches).tolist() == spread(range(40), 32)
    np.savez(tmp_path / "x.npz", a=np.arange(4), b=np.arange(8).reshape(4, 2))
    batches = batches_for(None, [], Source((tmp_path / "x.npz",)))
    assert [batch["b"].tolist() for batch in batches] == [[[0, 1]], [[2, 3]], [[4, 5]], [[6, 7]]]


def test_files_of_two_kinds(tmp_path):
    files = (write(tmp_path / "a.txt", "a"), write(tmp_path / "a.npy", "a"))
    with pytest.raises(ValueError, match="some texts; give files of one kind"):
        Source(files)
    with pytest.raises(ValueError, match="Give one file of arrays, got 2"):
        Source((files[1], write(tmp_path / "b.npz", "b")))


def test_texts_under_the_names_of_the_model(tmp_path):
    folder = write_bert(tmp_path / "bert")
    source = Source((write_texts(tmp_path / "texts.txt", copies=1),), tokenizer=folder / "vocab.txt")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    ids, mask = (
        keras.Input((None,), dtype="int32", name="token_ids"),
        keras.Input((None,), dtype="int32", name="padding_mask"),
    )
    table = layers.Embedding(20, 4)(ids)
    model = keras.Model({"token_ids": ids, "padding_mask": mask}, layers.Dense(2)(table))
    batches = batches_for(model, [], source)
    assert set(batches[0]) == {"token_ids", "padding_mask"}
    assert sum(len(batch["token_ids"]) for batch in batches) == len(TEXTS)
    lengths = sorted(int(row.sum()) for batch in batches for row in batch["padding_mask"])
    assert lengths == sorted(len(text.split()) + 2 for text in TEXTS)


def test_a_tokenizer_of_another_model(tmp_path):
    folder = write_bert(tmp_path / "bert")
    (tmp_path / "vocab.txt").write_text("\n".join([*WORDS, "more", "words"]))
    texts = write_texts(tmp_path / "texts.txt", copies=1)
    result = run("compare", folder, folder, "--text", texts, "--tokenizer", tmp_path / "vocab.txt")
    assert result.exit_code == 2
    assert "the tokenizer has 17 tokens, but the encoder knows only 15" in result.stderr


def test_the_vocabulary_beside_a_keras_file_is_its_own(tmp_path):
    from bert_models import load

    folder = write_bert(tmp_path / "bert")
    load(folder).save(tmp_path / "bert" / "model.keras")
    texts = write_texts(tmp_path / "texts.txt", copies=1)
    found = as_json("compare", folder / "model.keras", folder, "--text", texts)
    assert max(row["largest"] for row in found["outputs"]) == 0


def test_random_input_is_what_models_take():
    config = config_of("dense", **SIZES)
    from bert_models import build_encoder

    encoder = build_encoder(config)
    batch = random_inputs(encoder, 3, 5)
    assert batch["input_word_ids"].max() < config.vocab_size
    assert batch["input_mask"].all()
    assert not batch["input_type_ids"].any()
    assert encoder(batch)["sequence_output"].shape == (3, 5, 32)
    image = keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(2)])
    assert random_inputs(image, 2, 9).shape == (2, 4, 4, 3)
    with pytest.raises(ValueError, match="does not say what shape"):
        random_inputs(keras.Model(), 1, 1)


def test_a_tensorflow_checkpoint_is_a_model(tmp_path):
    mlm = masked_lm_of("dense", **SIZES)
    prefix = write_tf1(tmp_path / "tf1", tf1_tensors(mlm), mlm.encoder.config)
    for name in (prefix, prefix.parent):
        assert find(str(name)).kind == "checkpoint"
        assert as_json("count", name)["params"] == mlm.encoder.count_params()
    found = as_json("compare", prefix, prefix, "--length", "5", "--batch", "2")
    assert found["a"]["params"] == mlm.encoder.count_params()
    assert found["a"]["file_bytes"] > 4 * found["a"]["params"]
