"""Text to arrays: shapes, truncation, pairs, and the same ids as transformers on odd strings."""

import json
import os

import numpy as np
import pytest

import bert_models

ODD = [
    "",
    "   ",
    "naïve café Ångström",
    "don't—stop… “quotes” ½ ™ ﬁ",
    "日本語テキスト 한국어 العربية עברית",
    "emoji 🙂👩‍👩‍👧 and flags 🇬🇧",
    "a" * 101,
    "tabs\tand\nnew\r\nlines\u2028\u00a0\u200b\x00\x7f\ufffd",
    "[CLS] literal [MASK] tokens [SEP]",
    "ẞ ß ſ İ ı Ǆ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ＦＵＬＬ",  # noqa: RUF001
    "3.14159 1,000,000 x_y a/b c++ #tag @name",
]


@pytest.fixture
def tokenizer(small_folder):
    return bert_models.load_tokenizer(small_folder)


def test_arrays_are_padded_to_the_longest_row(tokenizer):
    batch = tokenizer(["The cats sat.", "cat"])
    assert {array.dtype.name for array in batch.values()} == {"int32"}
    assert batch["input_word_ids"].tolist() == [[2, 5, 6, 9, 7, 13, 3], [2, 6, 3, 0, 0, 0, 0]]
    assert batch["input_mask"].tolist() == [[1] * 7, [1, 1, 1, 0, 0, 0, 0]]
    assert batch["input_type_ids"].tolist() == [[0] * 7] * 2


def test_pairs_have_two_segments(tokenizer):
    batch = tokenizer(["the cat", "mat"], pairs=["sat", "unable ."])
    assert batch["input_word_ids"].tolist() == [[2, 5, 6, 3, 7, 3, 0], [2, 10, 3, 11, 12, 13, 3]]
    assert batch["input_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]]


def test_long_pairs_share_the_row_in_turn(tokenizer):
    # [CLS] 2 [SEP] 3, the cat sat on: 5 6 7 8
    for first, second, length, expected in [
        ("the cat sat on", "on sat cat", 8, [2, 5, 6, 7, 3, 8, 7, 3]),  # the odd token goes to the first
        ("on sat cat", "the cat sat on", 8, [2, 8, 7, 6, 3, 5, 6, 3]),
        ("the cat sat on", "mat", 7, [2, 5, 6, 7, 3, 10, 3]),
        ("mat", "the cat sat on", 7, [2, 10, 3, 5, 6, 7, 3]),
        ("the cat", "", 4, [2, 5, 3, 3]),
    ]:
        batch = tokenizer([first], pairs=[second], max_length=length)
        assert batch["input_word_ids"].tolist() == [expected]
        assert batch["input_type_ids"][0].sum() == len(expected) - expected.index(3) - 1


@pytest.mark.parametrize("pairs", [None, ["mat", "on"]])
def test_seq_length_is_the_length_of_all_rows(tokenizer, pairs):
    sentences = ["the cat", "the cat sat on the mat"]
    for length in (5, 20):
        fixed, cut = (
            tokenizer(sentences, pairs=pairs, seq_length=length),
            tokenizer(sentences, pairs=pairs, max_length=length),
        )
        for name, array in fixed.items():
            assert array.shape == (2, length)
            assert array.dtype == "int32"
            width = cut[name].shape[1]
            np.testing.assert_array_equal(array[:, :width], cut[name])
            assert not array[:, width:].any()


def test_rows_are_cut_to_max_length_and_not_for_ever(tokenizer):
    assert tokenizer(["the cat sat"], max_length=4)["input_word_ids"].tolist() == [[2, 5, 6, 3]]
    assert tokenizer(["the cat sat"])["input_word_ids"].tolist() == [[2, 5, 6, 7, 3]]
    assert tokenizer(["cat " * 50])["input_word_ids"].shape == (1, 20)  # positions in config.json


def test_tokenizer_file_and_vocabulary_agree(tokenizer, small_folder):
    backend = tokenizer.backend
    backend.enable_truncation(20, direction="left")  # stored in the file, and not to be used
    backend.enable_padding(length=15)
    backend.save(str(small_folder / "tokenizer.json"))
    (small_folder / "vocab.txt").unlink()
    again = bert_models.load_tokenizer(small_folder)
    assert again(["unable cats"])["input_word_ids"].tolist() == [[2, 11, 12, 6, 9, 3]]
    assert again(["the " + "cat " * 50])["input_word_ids"][0, :3].tolist() == [2, 5, 6]


def test_vocabulary_in_the_assets_of_a_saved_model(tokenizer, small_folder):
    folder = small_folder / "saved"
    (folder / "assets").mkdir(parents=True)
    (small_folder / "vocab.txt").rename(folder / "assets" / "vocab.txt")
    with pytest.raises(ValueError, match=r"does not say whether it is cased.*do_lower_case"):
        bert_models.load_tokenizer(folder)
    for lower_case, expected in (("true", [2, 5, 5, 3]), ("false", [2, 1, 5, 3])):
        (folder / "assets" / "tokenizer_config.json").write_text(f'{{"do_lower_case": {lower_case}}}')
        assert bert_models.load_tokenizer(folder)(["The the"])["input_word_ids"].tolist() == [expected]


def test_lower_case_is_what_the_file_says(small_folder):
    (small_folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    cased = bert_models.load_tokenizer(small_folder)
    assert cased(["The the"])["input_word_ids"].tolist() == [[2, 1, 5, 3]]


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"sentences": "one"}, TypeError, ["list of strings", "one str", "[sentence]"]),
        ({"sentences": ["a", 3]}, TypeError, ["number 1", "int", "3"]),
        ({"sentences": [None]}, TypeError, ["number 0", "NoneType"]),
        ({"sentences": 5}, TypeError, ["list of strings", "int"]),
        ({"sentences": (s for s in "ab")}, TypeError, ["list of strings", "generator"]),
        ({"sentences": []}, ValueError, ["at least one"]),
        ({"sentences": ["a"], "pairs": ["b", "c"]}, ValueError, ["1 sentences", "2"]),
        ({"sentences": ["a"], "pairs": "b"}, TypeError, ["pairs", "list of strings"]),
        ({"sentences": ["a"], "max_length": 21}, ValueError, ["3 to 20", "21"]),
        ({"sentences": ["a"], "max_length": 2}, ValueError, ["3 to 20", "2"]),
        ({"sentences": ["a"], "pairs": ["b"], "max_length": 3}, ValueError, ["4 to 20", "3"]),
        ({"sentences": ["a"], "max_length": "9"}, ValueError, ["3 to 20", "'9'"]),
        ({"sentences": ["a"], "seq_length": 2}, ValueError, ["seq_length", "3 to 20", "2"]),
        ({"sentences": ["a"], "seq_length": 21}, ValueError, ["seq_length", "3 to 20", "21"]),
        ({"sentences": ["a"], "seq_length": 9, "max_length": 8}, ValueError, ["not both", "8", "9"]),
    ],
)
def test_bad_text_is_refused_in_one_sentence(tokenizer, arguments, kind, words):
    with pytest.raises(kind) as caught:
        tokenizer(**arguments)
    assert all(word in str(caught.value) for word in words), caught.value


BAD_FILES = {
    "no file": ("vocab.txt", None, FileNotFoundError, ["tokenizer.json or vocab.txt"]),
    "larger vocabulary": (
        "vocab.txt",
        "[PAD] [UNK] [CLS] [SEP] [MASK] a b c d e f g h i j",
        ValueError,
        ["15 tokens", "14 rows", "vocab_size"],
    ),
    "no BERT vocabulary": ("vocab.txt", "a b", ValueError, ["lacks [PAD]", "2 lines"]),
    "damaged tokenizer": ("tokenizer.json", "{", ValueError, ["tokenizer.json", "read"]),
    "damaged settings": (
        "tokenizer_config.json",
        "{",
        ValueError,
        ["tokenizer_config.json", "JSON"],
    ),
    "settings are a list": ("tokenizer_config.json", "[]", ValueError, ["JSON object", "list"]),
}


@pytest.mark.parametrize(("name", "text", "kind", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file_is_refused_in_one_sentence(small_folder, name, text, kind, words):
    if text is None:
        (small_folder / name).unlink()
    else:
        (small_folder / name).write_text(text.replace(" ", "\n"))
    with pytest.raises(kind) as caught:
        bert_models.load_tokenizer(small_folder)
    assert all(word in str(caught.value) for word in words), caught.value


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        bert_models.load_tokenizer(tmp_path / "nowhere")


def test_smaller_vocabulary_is_a_warning(small_folder):
    values = json.loads((small_folder / "config.json").read_text())
    (small_folder / "config.json").write_text(json.dumps({**values, "vocab_size": 16}))
    with pytest.warns(UserWarning, match="14 tokens .* 16 rows"):
        bert_models.load_tokenizer(small_folder)


def test_minilm_limits(minilm_tokenizer):
    assert (minilm_tokenizer.max_length, minilm_tokenizer.vocab_size) == (512, 30522)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["tokenizer.json", "vocab.txt"])
def test_ids_equal_transformers_on_odd_strings(minilm_folder, tmp_path, source):
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers = pytest.importorskip("transformers")
    for name in (source, "config.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((minilm_folder / name).read_bytes())
    ours = bert_models.load_tokenizer(tmp_path)
    theirs = transformers.BertTokenizerFast.from_pretrained(minilm_folder)
    for pairs in (None, ODD[::-1]):
        # 17 leaves a pair an even number of tokens; where it is odd, transformers gives the last one to the second text
        # if both are long, BERT and we to the first: tests/bert_models/test_preprocessor.py.
        for length in (512, 17):
            expected = theirs(ODD, pairs, padding=True, truncation=True, max_length=length)
            found = ours(ODD, pairs=pairs, max_length=length)
            np.testing.assert_array_equal(found["input_word_ids"], expected["input_ids"])
            np.testing.assert_array_equal(found["input_mask"], expected["attention_mask"])
            np.testing.assert_array_equal(found["input_type_ids"], expected["token_type_ids"])
