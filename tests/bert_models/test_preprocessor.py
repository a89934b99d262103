"""The TensorFlow text side: the same arrays as `tokenizers` makes, in Keras, in tf.data and as a SavedModel."""

import csv
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers

from bert_models.text.pack import kept_lengths
from bert_models.text.tokenize import Tokenizer, load_tokenizer
from bert_models.text.vocabulary import SPECIAL_TOKENS, Vocabulary, from_backend, to_backend

pytest.importorskip("tensorflow_text", reason="pip install 'tncompress[hub]' for the tests of the TensorFlow text side")

ROOT = Path(__file__).parents[2]
# Characters that the two text sides could spell differently, each with an id of its own.
CHARACTERS = (
    "abcdefghijklmnopqrstuvwxyzABINOSÉ0123456789.,!?'\"-_/$+<=>^`|~…—“”ßẞſİıéñøŁƒﬁﬀ½²™①ⅣＦ𝔘ǄĳΣσςάΑ"
    "日本語한글豈々〆ー「。שָאَ🙂👩🇬\u0301\u0327\u0940"
)
TOKENS = [*SPECIAL_TOKENS, *CHARACTERS, *(f"##{c}" for c in CHARACTERS), "the", "##ing", "cat"]
TEXTS = [
    "",
    "   ",
    "The cats sat on the mat, didn't they?",
    "naïve café Ångström garçon",
    "don't—stop… “quotes” ½ ™ ﬁ ² ①",
    "日本語テキスト 한국어 العربية עברית 豈更",
    "emoji 🙂👩‍👩‍👧 and flags 🇬🇧",
    "a" * 100 + " " + "b" * 101,
    "é" * 100 + " " + "e\u0301" * 100 + " " + "é" * 101,  # a hundred letters are more than a hundred bytes
    "tabs\tand\nnew\r\nlines\u2028\u2029\u00a0\u3000\u200b\x00\x01\x7f\ufffd\u00ad",
    "a\x85b\x0bc\x0cd\ue000e",
    "ẞ ß ſ İ ı I Ǆ ĳ 𝔘𝔫𝔦 ＦＵＬＬ ⅣⅫ",  # noqa: RUF001
    "ΟΔΟΣ ΣΑΣ. ΑΣ",
    "3.14159 1,000,000 x_y a/b c++ #tag @name [x] {y} ^ ~ ` $ + < = > |",
    "x" * 50 + " y" * 300,
]
# (lower_case, strip_accents, split_chinese)
RULES = [(True, None, True), (False, None, True), (True, False, False), (False, True, True)]


def both(tokens=TOKENS, rules=RULES[0], seq_length=16):
    """The two text sides of one vocabulary."""
    from bert_models.text.preprocessor import Preprocessor

    vocabulary = Vocabulary(tuple(tokens), *rules)
    tokenizer = Tokenizer(to_backend(vocabulary.tokens, vocabulary.settings))
    return tokenizer, Preprocessor(tokenizer, seq_length=seq_length)


def assert_same(found, expected):
    assert set(found) == set(expected) == {"input_word_ids", "input_mask", "input_type_ids"}
    for name, array in expected.items():
        assert np.asarray(found[name]).dtype == np.asarray(array).dtype == np.int32
        np.testing.assert_array_equal(found[name], array, err_msg=name)


# ---------------------------------------------------------------------------------------- the same as `tokenizers`
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("seq_length", [5, 16, 500])
def test_arrays_equal_those_of_the_tokenizer(rules, seq_length):
    tokenizer, preprocessor = both(rules=rules, seq_length=seq_length)
    assert_same(preprocessor(TEXTS), tokenizer(TEXTS, seq_length=seq_length))
    pairs = TEXTS[::-1]
    assert_same(preprocessor(TEXTS, pairs=pairs), tokenizer(TEXTS, pairs=pairs, seq_length=seq_length))


def test_special_tokens_may_have_any_id():
    tokenizer, preprocessor = both(TOKENS[::-1])
    expected = tokenizer(["the cat"], seq_length=16)
    assert_same(preprocessor(["the cat"]), expected)
    assert expected["input_word_ids"][0, -1] == len(TOKENS) - 1  # [PAD]


def in_old_unicode(character):
    """Whether both libraries' tables can know it: theirs are older than Python's."""
    return unicodedata.ucd_3_2_0.category(character) != "Cn" and character not in RECLASSIFIED


RECLASSIFIED = "\u166d\u1734\u1885\u1886\U000111c9"  # another general category than Unicode 8 gave them
text = st.text(st.sampled_from(CHARACTERS + "  \t\n\x00\u200b") | st.characters(codec="utf-8").filter(in_old_unicode))


@pytest.mark.parametrize("rules", RULES)
@given(strings=st.lists(text, min_size=1, max_size=20))
@settings(max_examples=25, deadline=None)
def test_words_equal_those_of_tokenizers(rules, strings):
    from bert_models.text import text_ops

    vocabulary = Vocabulary(tuple(TOKENS), *rules)
    found = text_ops.words(strings, vocabulary).to_list()
    assert [[word.decode() for word in row] for row in found] == words_of_tokenizers(vocabulary, strings)


def words_of_tokenizers(vocabulary, strings):
    backend = to_backend(vocabulary.tokens, vocabulary.settings)
    spelled = map(backend.normalizer.normalize_str, strings)
    return [[word for word, _ in backend.pre_tokenizer.pre_tokenize_str(string)] for string in spelled]


@pytest.fixture(scope="module")
def sides():
    return both()


@given(rows=st.lists(st.tuples(text, text), min_size=1, max_size=8), seq_length=st.integers(4, 40))
@settings(max_examples=30, deadline=None)
def test_arrays_equal_on_any_text(sides, rows, seq_length):
    tokenizer, preprocessor = sides
    first, second = map(list, zip(*rows, strict=True))
    segments = [preprocessor.tokenize(first), preprocessor.tokenize(second)]
    found = preprocessor.bert_pack_inputs(segments, seq_length)
    assert_same(found, tokenizer(first, pairs=second, seq_length=seq_length))
    assert_same(preprocessor.bert_pack_inputs(segments[:1], seq_length), tokenizer(first, seq_length=seq_length))


@pytest.mark.slow
def test_words_equal_for_all_but_new_characters():
    from bert_models.text import text_ops

    vocabulary = Vocabulary(tuple(TOKENS))
    characters = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    strings = [f"a{c}b" for c in characters]
    found = []
    for start in range(0, len(strings), 1 << 16):
        rows = text_ops.words(strings[start : start + (1 << 16)], vocabulary).to_list()
        found += [[word.decode() for word in row] for row in rows]
    expected = words_of_tokenizers(vocabulary, strings)
    differ = [c for c, ours, theirs in zip(characters, found, expected, strict=True) if ours != theirs]
    assert [c for c in differ if in_old_unicode(c)] == []
    assert len(differ) < 700  # docs/text.md


def real_sentences(limit):
    folder = Path(os.environ.get("TNCOMPRESS_STSB", ROOT.parent / "shared" / "data" / "stsb"))
    if not (folder / "stsb-en-dev.csv").is_file():
        pytest.skip("set TNCOMPRESS_STSB to a folder with the STS benchmark for this test")
    with (folder / "stsb-en-dev.csv").open(encoding="utf-8", newline="") as file:
        first, second, _ = zip(*csv.reader(file), strict=True)
    return list(first[:limit]), list(second[:limit])


@pytest.mark.parametrize("limit", [100, pytest.param(None, marks=pytest.mark.slow)])
def test_real_sentences_with_the_real_vocabulary(minilm_folder, minilm_tokenizer, limit):
    from bert_models.text.preprocessor import Preprocessor

    first, second = real_sentences(limit)
    preprocessor = Preprocessor(minilm_folder, seq_length=32)
    assert_same(preprocessor(first + TEXTS), minilm_tokenizer(first + TEXTS, seq_length=32))
    assert_same(preprocessor(first, pairs=second), minilm_tokenizer(first, pairs=second, seq_length=32))


# What docs/text.md lists: (text, pieces of the TensorFlow side, pieces of `tokenizers`)
DIFFERENCES = {
    "special token in the text": ("a[MASK]b", ["a", "[", "m", "##a", "##s", "##k", "]", "b"], ["a", "[MASK]", "b"]),
    "punctuation newer than Unicode 8": ("a\u2e43b", ["a", "\u2e43", "b"], ["a", "##\u2e43", "##b"]),
    "accent newer than Unicode 8": ("a\u08d3b", ["a", "##b"], ["a", "##\u08d3", "##b"]),
    "capital newer than Unicode 8": ("\u2c2f", ["\u2c2f"], ["\u2c5f"]),
    "reclassified punctuation": ("a\u166db", ["a", "##\u166d", "##b"], ["a", "\u166d", "b"]),
}


@pytest.mark.parametrize(("string", "ours", "theirs"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_what_still_differs(string, ours, theirs):
    more = [*"[]\u2e43\u166d\u2c2f\u2c5f", "##\u2e43", "##\u166d", "##\u08d3"]
    tokens = list(dict.fromkeys([*TOKENS, *more]))
    tokenizer, preprocessor = both(tokens)
    assert [tokens[i] for i in preprocessor.tokenize([string]).flat_values] == ours
    assert tokenizer.backend.encode(string, add_special_tokens=False).tokens == theirs


def test_bytes_that_are_no_text_are_left_out(sides):
    import tensorflow as tf

    _, preprocessor = sides
    assert_same(preprocessor(tf.constant([b"ca\xff\xc3t \xed\xa0\x80a"])), preprocessor(["cat a"]))


@pytest.mark.slow
def test_language_of_the_machine_is_no_matter():
    code = (
        "from bert_models.text import text_ops; from bert_models.text.vocabulary import *;"
        "print(text_ops.words(['TITLE IS'], Vocabulary(SPECIAL_TOKENS)).to_list())"
    )
    assert run_python(code, LC_ALL="tr_TR.UTF-8").splitlines()[-1] == "[[b'title', b'is']]"


# ------------------------------------------------------------------------------------------------ cutting of segments
def popped(first, second, budget):
    """`_truncate_seq_pair` of google-research/bert: drop the last of the longer one, of equal ones the second's."""
    while first + second > budget:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    return [first, second]


def test_rounds_are_what_bert_and_tensorflow_text_do():
    import tensorflow as tf
    import tensorflow_text

    lengths = [(a, b) for a in range(9) for b in range(9)]
    segments = [tf.ragged.range([row[i] for row in lengths]) for i in (0, 1)]
    for budget in range(1, 18):
        kept = [kept_lengths(pair, budget) for pair in lengths]
        assert kept == [popped(*pair, budget) for pair in lengths]
        trimmed = tensorflow_text.RoundRobinTrimmer(budget).trim(segments)
        assert kept == np.stack([segment.row_lengths() for segment in trimmed], axis=1).tolist()


@given(st.lists(st.integers(0, 30), max_size=5), st.integers(0, 60))
def test_rounds_of_any_number_of_segments(lengths, budget):
    kept = [0] * len(lengths)
    while sum(kept) < min(budget, sum(lengths)):
        for i, length in enumerate(lengths):
            kept[i] += kept[i] < length and sum(kept) < budget
    assert kept_lengths(lengths, budget) == kept


def test_tokenizers_longest_first_is_another_rule_where_the_budget_is_odd():
    backend = Backend(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    for budget in range(1, 12):
        backend.enable_truncation(budget, strategy="longest_first")
        for first, second in [(a, b) for a in range(9) for b in range(9)]:
            types = backend.encode("a " * first, "a " * second).type_ids
            differs = [types.count(0), types.count(1)] != kept_lengths([first, second], budget)
            assert differs == (budget % 2 == 1 and budget // 2 < first <= second)


def test_packed_row_by_hand(sides):
    _, preprocessor = sides
    cls, sep, pad = (TOKENS.index(token) for token in ("[CLS]", "[SEP]", "[PAD]"))
    a, b, c, d = map(TOKENS.index, "abcd")
    packed = preprocessor.bert_pack_inputs([preprocessor.tokenize(["a b c d", "a"])] * 2, seq_length=7)
    assert packed["input_word_ids"].numpy().tolist() == [
        [cls, a, b, sep, a, b, sep],
        [cls, a, sep, a, sep, pad, pad],
    ]
    assert packed["input_type_ids"].numpy().tolist() == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0]]
    assert packed["input_mask"].numpy().tolist() == [[1] * 7, [1] * 5 + [0] * 2]
    assert (c, d) != (a, b)


# ------------------------------------------------------------------------------------------------------- Keras, tf.data
def test_in_a_functional_model_that_is_saved(tmp_path):
    import keras
    import tensorflow as tf

    from bert_models.text.preprocessor import Preprocessor

    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n", "utf-8")
    preprocessor = Preprocessor(tmp_path / "vocab.txt", seq_length=9, lower_case=False)
    inputs = [keras.Input((), dtype="string", name=name) for name in ("first", "second")]
    model = keras.Model(inputs, preprocessor(inputs[0], pairs=inputs[1]))
    assert {name: tuple(output.shape) for name, output in model.output.items()} == dict.fromkeys(
        ["input_word_ids", "input_mask", "input_type_ids"], (None, 9)
    )
    model.save(tmp_path / "model.keras")
    (tmp_path / "vocab.txt").unlink()
    pair = [np.array(["The cat", "É"], object), np.array(["a", "I…"], object)]
    expected = preprocessor(pair[0], pairs=pair[1])
    again = keras.saving.load_model(tmp_path / "model.keras")
    for copy in (model, again, keras.models.clone_model(model)):
        assert_same(copy.predict(pair, verbose=0), expected)
    again.export(tmp_path / "served", verbose=False)
    assert_same(tf.saved_model.load(tmp_path / "served").serve([tf.constant(part) for part in pair]), expected)


def test_in_a_dataset(sides):
    import tensorflow as tf

    _, preprocessor = sides
    dataset = tf.data.Dataset.from_tensor_slices((["the cat", "a"], ["b", "c d"])).batch(2)
    expected = preprocessor(["the cat", "a"], pairs=["b", "c d"])
    mapped = dataset.map(preprocessor)
    assert {tuple(spec.shape) for spec in mapped.element_spec.values()} == {(None, 16)}
    assert_same(next(iter(mapped)), expected)
    assert_same(next(iter(dataset.map(lambda first, _: preprocessor(first)))), preprocessor(["the cat", "a"]))


@pytest.mark.slow
def test_on_jax_strings_are_prepared_before_the_model():
    code = f"""
import keras, tensorflow as tf
from bert_models.text.preprocessor import Preprocessor
preprocessor = Preprocessor({(*SPECIAL_TOKENS, "a", "b")!r}, seq_length=4)
print(preprocessor(["a b a"])["input_word_ids"].numpy().tolist())
dataset = tf.data.Dataset.from_tensor_slices(["b"]).batch(1).map(preprocessor)
print(next(dataset.as_numpy_iterator())["input_word_ids"].tolist())
try:
    preprocessor(keras.Input((), dtype="string"))
except ValueError as error:
    print("tensorflow backend, but it runs on jax" in str(error))
"""
    assert run_python(code, KERAS_BACKEND="jax").splitlines()[-3:] == ["[[2, 5, 6, 3]]", "[[2, 6, 3, 0]]", "True"]


# -------------------------------------------------------------------------------------------------------- vocabularies
def test_sources_of_a_vocabulary(tmp_path):
    from bert_models.text.preprocessor import Preprocessor

    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n", "utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false, "tokenize_chinese_chars": false}')
    from_folder = Preprocessor(tmp_path)
    assert (from_folder.lower_case, from_folder.strip_accents, from_folder.split_chinese) == (False, False, False)
    assert Preprocessor(str(tmp_path), lower_case=True).strip_accents
    assert Preprocessor(tmp_path / "vocab.txt").lower_case  # a file alone says nothing
    assert Preprocessor(from_folder.vocab).vocab == from_folder.vocab == TOKENS
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
    for name in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    for source in (tokenizer, tmp_path):
        assert Preprocessor(source).vocabulary == from_folder.vocabulary
    assert from_folder.vocab_size == len(TOKENS)


def other_backend(**changes):
    backend = to_backend([*SPECIAL_TOKENS, "a"], {})
    for name, value in changes.items():
        setattr(backend, name, value)
    return backend


def with_token(token):
    backend = other_backend()
    backend.add_tokens([token])
    return backend


NOT_BERT = {
    "model": (lambda: other_backend(model=models.BPE()), ["model", "'BPE'", "'WordPiece'"]),
    "normalizer": (lambda: other_backend(normalizer=normalizers.Lowercase()), ["normalizer", "'Lowercase'"]),
    "no normalizer": (lambda: other_backend(normalizer=None), ["normalizer", "'NoneType'"]),
    "no cleaning": (lambda: other_backend(normalizer=normalizers.BertNormalizer(clean_text=False)), ["clean_text"]),
    "words": (lambda: other_backend(pre_tokenizer=pre_tokenizers.Whitespace()), ["pre_tokenizer", "'Whitespace'"]),
    "added token": (lambda: with_token("new"), ["added_tokens", "'new'"]),
}


@pytest.mark.parametrize(("make", "words"), NOT_BERT.values(), ids=NOT_BERT)
def test_other_tokenizers_are_refused(make, words):
    with pytest.raises(ValueError, match="not of BERT's kind") as caught:
        from_backend(make())
    assert all(word in str(caught.value) for word in words), caught.value


def test_unused_ids_are_refused():
    vocab = {token: 2 * i for i, token in enumerate(SPECIAL_TOKENS)}
    backend = other_backend(model=models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    backend = Backend.from_str(json.dumps(json.loads(backend.to_str()) | {"added_tokens": []}))
    with pytest.raises(ValueError, match="count up from 0, but 4 are unused, the first is 1"):
        from_backend(backend)


BAD_ARGUMENTS = {
    "no file": ({"vocab": "nowhere.txt"}, FileNotFoundError, ["nowhere.txt", "vocab.txt"]),
    "no special tokens": ({"vocab": ["[PAD]", "a"]}, ValueError, ["lacks [UNK], [CLS], [SEP], [MASK]", "2 lines"]),
    "token twice": ({"vocab": [*SPECIAL_TOKENS, "a", "a"]}, ValueError, ["'a' occurs twice"]),
    "token of two lines": ({"vocab": [*SPECIAL_TOKENS, "a\nb"]}, ValueError, ["number 5", "one line"]),
    "no string": ({"vocab": [*SPECIAL_TOKENS, 7]}, TypeError, ["number 5", "int", "7"]),
    "kind": ({"vocab": 5}, TypeError, ["path, a list of tokens or a tokenizer", "int"]),
    "seq_length": ({"vocab": TOKENS, "seq_length": 2}, ValueError, ["at least 3", "2 special tokens", "got 2"]),
    "seq_length float": ({"vocab": TOKENS, "seq_length": 8.0}, ValueError, ["at least 3", "got 8.0"]),
}


@pytest.mark.parametrize(("arguments", "kind", "words"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_are_refused_in_one_sentence(arguments, kind, words):
    from bert_models.text.preprocessor import Preprocessor

    with pytest.raises(kind) as caught:
        Preprocessor(**arguments)
    assert all(word in str(caught.value) for word in words), caught.value


BAD_TEXT = {
    "a string": (lambda p, tf: p("one"), TypeError, ["list of strings", "[sentence]"]),
    "no string": (lambda p, tf: p(["a", 3]), TypeError, ["number 1", "int"]),
    "none": (lambda p, tf: p([]), ValueError, ["at least one"]),
    "integers": (lambda p, tf: p(tf.constant([1])), TypeError, ["string tensor", "int32"]),
    "scalar": (lambda p, tf: p(tf.constant("a")), TypeError, ["rank 1", "rank 0"]),
    "matrix": (lambda p, tf: p(tf.constant([["a"]])), TypeError, ["rank 1", "rank 2"]),
    "fewer pairs": (lambda p, tf: p(["a", "b"], pairs=["c"]), ValueError, ["2 sentences", "got 1"]),
    "fewer paired tensors": (lambda p, tf: p(tf.constant(["a", "b"]), pairs=["c"]), Exception, ["equally many"]),
    "three segments": (lambda p, tf: p.bert_pack_inputs([p.tokenize(["a"])] * 3), ValueError, ["1 or 2", "got 3"]),
    "no segment": (lambda p, tf: p.bert_pack_inputs([]), ValueError, ["1 or 2", "got 0"]),
    "no list": (lambda p, tf: p.bert_pack_inputs(p.tokenize(["a"])), ValueError, ["list of 1 or 2", "RaggedTensor"]),
    "text to pack": (lambda p, tf: p.bert_pack_inputs([tf.constant(["a"])]), TypeError, ["segment 0", "ragged"]),
    "short row": (lambda p, tf: p.bert_pack_inputs([p.tokenize(["a"])], 2), ValueError, ["at least 3", "got 2"]),
    "short pair": (lambda p, tf: p.bert_pack_inputs([p.tokenize(["a"])] * 2, 3), ValueError, ["at least 4", "got 3"]),
    "short tensor": (
        lambda p, tf: p.bert_pack_inputs([p.tokenize(["a"])], tf.constant(2)),
        Exception,
        ["at least 3"],
    ),
}


@pytest.mark.parametrize(("call", "kind", "words"), BAD_TEXT.values(), ids=BAD_TEXT)
def test_bad_text_is_refused_in_one_sentence(sides, call, kind, words):
    import tensorflow as tf

    with pytest.raises(kind) as caught:
        call(sides[1], tf)
    assert all(word in str(caught.value) for word in words), caught.value
    if kind is not Exception:  # those are TensorFlow's
        assert "\n" not in str(caught.value)


SYMBOLS = {
    "integers": (lambda p, keras: p(keras.Input((), dtype="int32")), "string tensor .* got int32 of rank 1"),
    "matrix": (lambda p, keras: p(keras.Input((2,), dtype="string")), "got string of rank 2"),
    "list": (lambda p, keras: p(keras.Input((), dtype="string"), pairs=["a"]), "pairs must be a keras.Input .* list"),
}


@pytest.mark.parametrize(("call", "words"), SYMBOLS.values(), ids=SYMBOLS)
def test_bad_inputs_of_models_are_refused_in_one_sentence(sides, call, words):
    import keras

    with pytest.raises(TypeError, match=words) as caught:
        call(sides[1], keras)
    assert "\n" not in str(caught.value)


def test_without_tensorflow_text_the_error_says_what_to_install(monkeypatch):
    import bert_models.text
    from bert_models.text.preprocessor import Preprocessor

    both()  # so that there is a module to forget
    monkeypatch.setitem(sys.modules, "tensorflow_text", None)
    monkeypatch.delitem(sys.modules, "bert_models.text.text_ops")
    monkeypatch.delattr(bert_models.text, "text_ops")
    with pytest.raises(ImportError, match=r"pip install 'tncompress\[hub\]'"):
        Preprocessor(TOKENS)


# ---------------------------------------------------------------------------------------------------------- SavedModel
@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A preprocessor and its SavedModel, moved after it was written, and with no vocabulary elsewhere."""
    from bert_models.text.export import export_preprocessor
    from bert_models.text.preprocessor import Preprocessor

    folder = tmp_path_factory.mktemp("exported")
    (folder / "vocab.txt").write_text("\n".join(TOKENS), "utf-8")
    preprocessor = Preprocessor(folder / "vocab.txt", seq_length=12)
    export_preprocessor(preprocessor, folder / "first")
    (folder / "vocab.txt").unlink()
    (folder / "first").rename(folder / "moved")
    assert sorted(path.name for path in folder.iterdir()) == ["moved"]
    return preprocessor, folder / "moved"


def test_exported_object_has_the_interface_of_the_public_one(exported):
    import tensorflow as tf

    preprocessor, folder = exported
    loaded = tf.saved_model.load(folder)
    strings = tf.constant(TEXTS)
    assert_same(loaded(strings), preprocessor(TEXTS))
    assert_same(loaded.signatures["serving_default"](strings), preprocessor(TEXTS))
    ids = loaded.tokenize(strings)
    assert (ids.dtype, ids.shape.rank, ids.ragged_rank) == (tf.int32, 3, 2)
    assert ids.to_list() == preprocessor.tokenize(TEXTS).to_list()
    special = loaded.tokenize.get_special_tokens_dict()
    assert {name: (value.dtype.name, int(value)) for name, value in special.items()} == {
        "start_of_sequence_id": ("int32", 2),
        "end_of_segment_id": ("int32", 3),
        "padding_id": ("int32", 0),
        "mask_id": ("int32", 4),
        "vocab_size": ("int32", len(TOKENS)),
    }
    for segments in ([ids], [ids, ids[::-1]]):
        for parts in (segments, [part.merge_dims(1, 2) for part in segments]):
            for seq_length in (7, 12, np.int32(30), tf.constant(9)):
                expected = preprocessor.bert_pack_inputs(segments, seq_length)
                assert_same(loaded.bert_pack_inputs(parts, seq_length=seq_length), expected)
            assert_same(loaded.bert_pack_inputs(parts), preprocessor.bert_pack_inputs(segments))
    with pytest.raises(Exception, match="at least 4"):
        loaded.bert_pack_inputs([ids, ids], seq_length=3)
    assert next(iter(tf.data.Dataset.from_tensor_slices(strings).batch(4).map(loaded)))["input_mask"].shape == (4, 12)


def test_exported_folder_is_a_vocabulary(exported):
    from bert_models.text.preprocessor import Preprocessor

    preprocessor, folder = exported
    found = Preprocessor(folder)
    assert found.vocabulary == preprocessor.vocabulary
    assert found.seq_length == preprocessor.seq_length == 12
    assert Preprocessor(folder, seq_length=9).seq_length == 9
    assert Preprocessor(TOKENS).seq_length == 128
    (folder / "assets" / "tokenizer_config.json").rename(folder / "aside")  # as in a public one
    try:
        with pytest.raises(ValueError, match="lower_case=True or False"):
            Preprocessor(folder)
        assert not Preprocessor(folder, lower_case=False).lower_case
    finally:
        (folder / "aside").rename(folder / "assets" / "tokenizer_config.json")


def test_exported_folder_is_a_tokenizer(exported):
    preprocessor, folder = exported
    assert_same(load_tokenizer(folder)(TEXTS, seq_length=12), preprocessor(TEXTS))


LEGACY_KERAS = """
import sys
import tensorflow as tf
import tensorflow_hub as hub
import tensorflow_text as text

folder = sys.argv[1]
text_input = tf.keras.layers.Input(shape=(), dtype=tf.string)
preprocessor = hub.KerasLayer(folder)
model = tf.keras.Model(text_input, preprocessor(text_input))
print(model.predict(tf.constant(["the cat"]), verbose=0)["input_word_ids"].tolist())

preprocessor = hub.load(folder)
text_inputs = [tf.keras.layers.Input(shape=(), dtype=tf.string), tf.keras.layers.Input(shape=(), dtype=tf.string)]
tokenize = hub.KerasLayer(preprocessor.tokenize)
tokenized_inputs = [tokenize(segment) for segment in text_inputs]
seq_length = 8
bert_pack_inputs = hub.KerasLayer(preprocessor.bert_pack_inputs, arguments=dict(seq_length=seq_length))
encoder_inputs = bert_pack_inputs(tokenized_inputs)
model = tf.keras.Model(text_inputs, encoder_inputs)
print(model.predict([tf.constant(["the cat"]), tf.constant(["a"])], verbose=0)["input_word_ids"].tolist())
dataset = tf.data.Dataset.from_tensors([["the cat"]]).map(lambda x: preprocessor(x[0]))
print(next(dataset.as_numpy_iterator())["input_word_ids"].tolist())
"""


MODEL_GARDEN = """
import sys
import tensorflow as tf
from official.nlp.modeling.layers.text_layers import BertPackInputs
from official.nlp.tools.export_tfhub_lib import create_preprocessing
from bert_models.text.preprocessor import Preprocessor

vocab, *texts = sys.argv[1:]
theirs = create_preprocessing(vocab_file=vocab, do_lower_case=True, tokenize_with_offsets=False, default_seq_length=9)
ours = Preprocessor(vocab, seq_length=9)

def check(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        tf.debugging.assert_equal(found[name], expected[name])

check(ours(texts), theirs(tf.constant(texts)))
first, second = theirs.tokenize(tf.constant(texts)), theirs.tokenize(tf.constant(texts[::-1]))
for seq_length in range(5, 30):
    for segments in ([first], [first, second]):
        expected = BertPackInputs.bert_pack_inputs(segments, seq_length, 2, 3, 0)
        check(ours.bert_pack_inputs(segments, seq_length), expected)
special = theirs.tokenize.get_special_tokens_dict.__call__()
print({name: int(value) for name, value in special.items()} == ours.vocabulary.special_ids)
"""


@pytest.mark.slow
def test_model_garden_makes_the_same_of_ordinary_text(tmp_path):
    if not find_spec("official"):
        pytest.skip("pip install --no-deps tf-models-official for the comparison with it")
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n", "utf-8")
    texts = ["The cats sat on the mat, didn't they?", "", "naïve café", "cat", "3.14 and 1,000", "日本語 テ"]
    printed = run_python(MODEL_GARDEN, tmp_path / "vocab.txt", *texts, TF_USE_LEGACY_KERAS="1")
    assert printed.splitlines()[-1] == "True"


def run_python(code, *arguments, **environment):
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_usage_of_the_public_one_under_legacy_keras(exported):
    pytest.importorskip("tf_keras")
    _, folder = exported
    printed = run_python(LEGACY_KERAS, folder, TF_USE_LEGACY_KERAS="1").splitlines()
    the, cat, a = (TOKENS.index(token) for token in ("the", "cat", "a"))
    single = [[2, the, cat, 3, *[0] * 8]]
    assert [json.loads(line) for line in printed[-3:]] == [single, [[2, the, cat, 3, a, 3, 0, 0]], single]


def test_export_spares_what_is_there(exported, tmp_path, monkeypatch):
    import tensorflow as tf

    from bert_models.text.export import export_preprocessor

    target = tmp_path / "preprocess"
    shutil.copytree(exported[1], target)
    before = (target / "saved_model.pb").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_preprocessor(TOKENS, target)
    with pytest.raises(FileNotFoundError, match="make it first"):
        export_preprocessor(TOKENS, tmp_path / "no" / "folder")
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="no SavedModel"):
        export_preprocessor(TOKENS, tmp_path / "mine", overwrite=True)

    def fail(*_, **__):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(tf.saved_model, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            export_preprocessor(TOKENS, target, overwrite=True)
    assert (target / "saved_model.pb").read_bytes() == before
    export_preprocessor(TOKENS, target, overwrite=True)  # a vocabulary will do
    assert tf.saved_model.load(target)(["a"])["input_mask"].shape == (1, 128)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "preprocess"]
