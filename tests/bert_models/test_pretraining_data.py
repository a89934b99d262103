"""Text to records: sentences, rows, masks, files, and the same files whoever writes them."""

import random
from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_models.pretraining import pipeline
from bert_models.pretraining.blocks import blocks, groups_of_files, records
from bert_models.pretraining.draws import uniform
from bert_models.pretraining.examples import Pair, full_sentences, sentence_pairs, to_arrays
from bert_models.pretraining.info import read_info
from bert_models.pretraining.masking import MaskRule, mask_rows
from bert_models.pretraining.pipeline import write_pretraining_data
from bert_models.pretraining.records import crc32c, examples, write_records
from bert_models.pretraining.sentences import LAYOUTS, decoded, documents, split
from bert_models.pretraining.settings import RECIPES, DataSettings
from bert_models.pretraining.wordpieces import WordPieces
from bert_models.text.vocabulary import SPECIAL_TOKENS, Vocabulary

PAD, UNK, CLS, SEP, MASK = range(5)
WORDS = [f"{a}{b}" for a in "abcdefgh" for b in "klmnopqr"]
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS, "##s", "##t", "##u", ".", "[unused0]"))
SUFFIXES = [VOCABULARY.tokens.index(token) for token in ("##s", "##t", "##u")]
PIECES = WordPieces.of(VOCABULARY)
SMALL = DataSettings(max_length=24, duplicates=2, num_shards=3, block_bytes=700, seed=5)


def write_corpus(file, num_documents=12, seed=0):
    source = random.Random(seed)
    words = [word + suffix for word in WORDS for suffix in ("", "", "s", "st", "stu")]
    text = [
        "".join(" ".join(source.choices(words, k=source.randint(1, 12))) + " .\n" for _ in range(source.randint(1, 9)))
        for _ in range(num_documents)
    ]
    file.write_text("\n".join(text))
    return file


def content(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def parsed(folder):
    """All examples of a folder, name -> array [examples, ...], read by TensorFlow."""
    import tensorflow as tf

    found = []
    for text in tf.data.TFRecordDataset(sorted(map(str, folder.glob("*.tfrecord")))).as_numpy_iterator():
        feature = tf.train.Example.FromString(text).features.feature
        found.append({name: list(getattr(v, v.WhichOneof("kind")).value) for name, v in feature.items()})
    return {name: np.array([row[name] for row in found]) for name in found[0]}


# Sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ("Mr. and Mrs. Jones vs. Dr. No. 5 came.", ["Mr. and Mrs. Jones vs. Dr. No. 5 came."]),
        ("J. R. R. Tolkien wrote. It was good.", ["J. R. R. Tolkien wrote.", "It was good."]),
        ("In the U.S. Army. i.e. nobody. Next.", ["In the U.S. Army. i.e. nobody.", "Next."]),
        ("It cost 3.50 at example.org today. Yes.", ["It cost 3.50 at example.org today.", "Yes."]),
        ('He said "Go!" and left. (Why?) So.', ['He said "Go!" and left.', "(Why?)", "So."]),
        ("a lobster . It may grow . H. americanus is .", ["a lobster .", "It may grow .", "H. americanus is ."]),
        ("你好。再见！好", ["你好。", "再见！", "好"]),  # noqa: RUF001
        ("", []),
        (" . ", ["."]),
    ],
)
def test_split(text, expected):
    assert split(text) == expected


@given(st.text(alphabet="aB .!?\"')“。…\n", max_size=60))
def test_split_loses_nothing(text):
    assert "".join("".join(split(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("sentences", [["= A ="], ["One. Two.", "Three."], ["= = B = ="], ["= C ="]]),
        ("prose", [["= A =", "One. Two. Three.", "= = B = =", "= C ="]]),
        ("wikitext", [["= A =", "One. Two.", "Three.", "= = B = ="], ["= C ="]]),
    ],
)
def test_layouts(layout, expected):
    lines = ["\n", " = A = \n", "\n", "One. Two.\n", "Three.\r\n", "\t\n", " = = B = = \n", "\n", "\n", "= C =\n"]
    assert list(documents(lines, LAYOUTS[layout])) == expected


def test_text_that_is_not_utf_8_is_located():
    lines = ["\ufeffsüß\n".encode(), b"abc\xe4"]
    with pytest.raises(ValueError, match=r"corpus.txt is not UTF-8 text: byte 12 \(0xe4\), in line 2, cannot be read"):
        list(decoded(lines, "corpus.txt"))
    assert list(decoded(lines[:1], "corpus.txt")) == ["süß\n"]


# Rows


@st.composite
def corpora(draw):
    """Documents of sentences; every token of the corpus has its own id, from 1."""
    lengths = draw(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=2, max_size=6))
    ids = iter(range(1, 1 + sum(map(sum, lengths))))
    return [[[next(ids) for _ in range(length)] for length in document] for document in lengths]


def is_run(tokens):
    return tokens == list(range(tokens[0], tokens[0] + len(tokens)))


@given(corpora(), st.integers(5, 40), st.sampled_from([0, 0.5, 1]), st.integers(0, 99))
def test_pairs(corpus, budget, short_rate, seed):
    for number, document in enumerate(corpus):
        tokens = [*chain.from_iterable(document)]
        starts = {sentence[0] for sentence in document}
        seen, last = [], 0
        for pair in sentence_pairs(corpus, number, random.Random(seed), budget, short_rate):
            assert pair.first
            assert pair.second
            assert len(pair.first) + len(pair.second) <= budget
            assert is_run(pair.first)
            assert is_run(pair.second)
            assert set(pair.first) <= set(tokens)
            whole = len(pair.first) + len(pair.second) < budget  # nothing was cut
            if whole:
                assert pair.first[0] in starts
            assert pair.first[0] > last  # in the document's order, nothing used twice
            if pair.is_random:
                assert not set(pair.second) & set(tokens)
            else:
                assert set(pair.second) <= set(tokens)
                assert pair.second[0] > pair.first[-1]
                if whole:
                    assert pair.second[0] == pair.first[-1] + 1
            own = pair.first if pair.is_random else pair.first + pair.second
            last = own[-1]
            seen += own
            if whole:
                assert last + 1 in {*starts, tokens[-1] + 1}
        if sum(map(len, document)) + max(map(len, chain(*corpus))) < budget and not short_rate:
            assert seen == tokens  # what a random part displaces comes next


def published_pairs(corpus, number, source, budget, short_rate):
    """The lengths and classes of pairs, by the steps of the original in the plainest form."""
    document = corpus[number]
    target = source.randint(2, budget) if source.random() < short_rate else budget
    made, chunk, i = [], [], 0
    while i < len(document):
        chunk.append(document[i])
        if i == len(document) - 1 or sum(map(len, chunk)) >= target:
            cut = source.randint(1, len(chunk) - 1) if len(chunk) >= 2 else 1
            first = sum(map(len, chunk[:cut]))
            is_random = len(chunk) == 1 or source.random() < 0.5
            if is_random:
                other = source.choice([k for k in range(len(corpus)) if k != number])
                second = 0
                for sentence in corpus[other][source.randint(0, len(corpus[other]) - 1) :]:
                    second += len(sentence)
                    if second >= target - first:
                        break
                i -= len(chunk) - cut
            else:
                second = sum(map(len, chunk[cut:]))
            while first + second > budget:
                first, second = (first - 1, second) if first > second else (first, second - 1)
            made.append((first, second, is_random))
            chunk = []
        i += 1
    return made


def test_pairs_are_distributed_as_in_the_original():
    source, budget, rounds = random.Random(3), 61, 300
    corpus = [[[0] * source.randint(1, 14) for _ in range(source.randint(1, 25))] for _ in range(20)]

    def ours(number):
        pairs = sentence_pairs(corpus, number, source, budget, 0.1)
        return [(len(pair.first), len(pair.second), pair.is_random) for pair in pairs]

    def original(number):
        return published_pairs(corpus, number, source, budget, 0.1)

    # Over the corpus: number of pairs, tokens in first and second parts, random ones, pairs that fill the row.
    def sums(pairs_of):
        pairs = np.array([pair for number in range(len(corpus)) for pair in pairs_of(number)])
        return len(pairs), *pairs.sum(0), (pairs[:, 0] + pairs[:, 1] == budget).sum()

    one, other = (np.array([sums(pairs_of) for _ in range(rounds)]) for pairs_of in (ours, original))
    error = np.sqrt((one.var(0) + other.var(0)) / rounds)
    assert (np.abs(one.mean(0) - other.mean(0)) < 4.5 * error).all()


@given(corpora(), st.integers(3, 40), st.booleans())
def test_full_sentences(corpus, budget, fill):
    rows = list(full_sentences(corpus, separator=0, budget=budget, fill=fill))
    # Nothing is lost or doubled, and documents are parted unless a row ends there.
    assert [t for row in rows for t in row if t] == [t for document in corpus for s in document for t in s]
    ends = {document[-1][-1] for document in corpus}
    starts = {sentence[0] for document in corpus for sentence in document}
    length_of = {sentence[0]: len(sentence) for document in corpus for sentence in document}
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        assert 0 < len(row) <= budget
        assert row[0]
        assert row[-1]
        for left, right in pairwise(row):
            assert (left in ends) == (right == 0)
        if after is None:
            continue
        gap = row[-1] in ends
        if fill:
            assert len(row) == budget or (gap and len(row) == budget - 1)
        elif after[0] in starts:
            assert len(row) + gap + length_of[after[0]] > budget  # padded only where the next one does not fit
        else:
            assert len(row) == budget  # within a sentence that fits in no row


def test_rows_have_their_special_tokens():
    arrays = to_arrays([Pair([7, 8], [9], True), Pair([7], [8], False)], PIECES, 8)
    assert arrays["input_word_ids"].tolist() == [[CLS, 7, 8, SEP, 9, SEP, 0, 0], [CLS, 7, SEP, 8, SEP, 0, 0, 0]]
    assert arrays["input_mask"].tolist() == [[1] * 6 + [0] * 2, [1] * 5 + [0] * 3]
    assert arrays["input_type_ids"].tolist() == [[0] * 4 + [1] * 2 + [0] * 2, [0] * 3 + [1] * 2 + [0] * 3]
    assert arrays["next_sentence_labels"].tolist() == [[1], [0]]


# Masks


def word_starts(ids):
    """Positions of the first piece of each word of a row, and its pieces, one after the other."""
    words = []
    for i, token in enumerate(ids):
        if token in (PAD, CLS, SEP):
            continue
        if token in SUFFIXES and words and words[-1][-1] == i - 1:
            words[-1].append(i)
        else:
            words.append([i])
    return words


def slow_choice(ids, rule, order):
    """Which tokens of a row are predicted, as a loop over its words, as the original has it."""
    words = word_starts(ids) if rule.whole_words else [[i] for i, t in enumerate(ids) if t not in (PAD, CLS, SEP)]
    budget = min(rule.predictions, max(1, round(rule.rate * sum(t != PAD for t in ids))))
    chosen = []
    for word in sorted(words, key=lambda word: order[word[0]]):
        if len(chosen) + len(word) <= budget:
            chosen += word
    return sorted(chosen)


ROWS = st.lists(
    st.lists(st.sampled_from([CLS, SEP, 5, 6, *SUFFIXES]), min_size=12, max_size=12), min_size=1, max_size=5
)


@given(ROWS, st.floats(0.05, 1), st.integers(1, 14), st.booleans(), st.integers(0, 99))
def test_masks_equal_the_slow_choice(rows, rate, predictions, whole_words, seed):
    ids, rule = np.array(rows, "int32"), MaskRule(rate, predictions, whole_words)
    ids[:, 8 + seed % 5 :] = PAD
    draws = np.random.default_rng(seed).random((3, *ids.shape))
    arrays = mask_rows(ids, PIECES, rule, draws)
    for i, row in enumerate(ids):
        chosen = slow_choice(row.tolist(), rule, draws[0, i])
        missing = [0] * (predictions - len(chosen))
        assert arrays["masked_lm_positions"][i].tolist() == chosen + missing
        assert arrays["masked_lm_ids"][i].tolist() == row[chosen].tolist() + missing
        assert arrays["masked_lm_weights"][i].tolist() == [1] * len(chosen) + missing
        elsewhere = np.setdiff1d(np.arange(len(row)), chosen)
        np.testing.assert_array_equal(arrays["input_word_ids"][i, elsewhere], row[elsewhere])


def full_rows(count, length=128, seed=0):
    draw = np.random.default_rng(seed)
    ids = draw.choice([*PIECES.ordinary, *SUFFIXES * 10], (count, length)).astype("int32")
    ids[:, 0], ids[:, -1] = CLS, SEP
    return ids


@pytest.mark.parametrize("whole_words", [False, True])
def test_rates(whole_words):
    ids = full_rows(2000)
    arrays = mask_rows(ids, PIECES, MaskRule(0.15, 20, whole_words), uniform((3, *ids.shape), "rates"))
    used = arrays["masked_lm_weights"].astype(bool)
    # 0.15 * 128 = 19.2; single tokens always fill 19 places, words may leave one or two where none fits.
    assert (used.sum(1) == 19).all() if not whole_words else used.sum(1).mean() > 18.5
    places = arrays["masked_lm_positions"]
    now = np.take_along_axis(arrays["input_word_ids"], places, 1)[used]
    before = arrays["masked_lm_ids"][used]
    np.testing.assert_array_equal(before, np.take_along_axis(ids, places, 1)[used])
    n, by_chance = len(before), (before[:, None] == PIECES.ordinary).any(1).mean() / len(PIECES.ordinary)
    for share, expected in [
        ((now == MASK).mean(), 0.8),
        ((now == before).mean(), 0.1 + 0.1 * by_chance),
        (((now != MASK) & (now != before)).mean(), 0.1 - 0.1 * by_chance),
    ]:
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / n)
    random_ids = now[(now != MASK) & (now != before)]
    assert set(random_ids) == set(PIECES.ordinary.tolist())  # no special, no unused ones
    counts = np.bincount(random_ids, minlength=PIECES.size)[PIECES.ordinary]
    assert counts.max() < 2 * counts.mean()
    if not whole_words:  # each place but the special ones is as likely as another
        at = np.bincount(places[used], minlength=128)[1:-1]
        assert np.abs(at - n / 126).max() < 5 * np.sqrt(n / 126)


def test_whole_words_are_masked_whole():
    ids = full_rows(300)
    arrays = mask_rows(ids, PIECES, MaskRule(whole_words=True), uniform((3, *ids.shape), "words"))
    several = 0
    for row, places, weights in zip(ids, arrays["masked_lm_positions"], arrays["masked_lm_weights"], strict=True):
        chosen = set(places[weights > 0].tolist())
        for word in word_starts(row.tolist()):
            assert chosen.issuperset(word) or not chosen & set(word)
            several += len(word) > 1 and chosen.issuperset(word)
    assert several > 300


# Records


@settings(deadline=None)  # TensorFlow is loaded in the first
@given(
    st.lists(st.lists(st.integers(0, 2**62), min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=3),
)
def test_examples_are_tensorflows(rows, floats):
    import tensorflow as tf

    values = np.array(rows)
    texts = examples({"numbers": values, "reals": np.array([floats] * len(rows), "float32")})
    for row, text in zip(rows, texts, strict=True):
        example = tf.train.Example.FromString(text)
        assert text == example.SerializeToString(deterministic=True)
        feature = example.features.feature
        assert list(feature["numbers"].int64_list.value) == row
        assert list(feature["reals"].float_list.value) == floats


def test_files_are_tensorflows(tmp_path):
    import tensorflow as tf

    texts = [bytes(random.Random(i).choices(range(256), k=4 + i % 700)) for i in range(1100)]
    with (tmp_path / "ours").open("wb") as file:
        size = write_records(file, texts)
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for text in texts:
            writer.write(text)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert (tmp_path / "ours").stat().st_size == size
    with pytest.raises(ValueError, match="4 bytes or more"):
        crc32c([b"abc"])


# Blocks


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 20))
def test_groups_hold_every_file_and_two_at_least(sizes, block_bytes):
    groups = groups_of_files(sizes, block_bytes)
    assert list(chain(*groups)) == [i for i, size in enumerate(sizes) if size]
    assert len(groups) <= 1 or min(map(len, groups)) >= 2


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 20))
def test_blocks_hold_every_document_and_two_at_least(lengths, block_bytes):
    texts = [["x" * length] for length in lengths]
    found = list(blocks(texts, 0, block_bytes))
    assert list(chain.from_iterable(block.documents for block in found)) == texts
    assert len(found) <= 1 or min(len(block.documents) for block in found) >= 2
    assert [block.key for block in found] == [f"0.{i}" for i in range(len(found))]
    assert all(block.num_bytes >= block_bytes for block in found[:-1])


# The whole


KINDS = {
    "pairs": SMALL,
    "full sentences": replace(SMALL, packing="full_sentences", whole_words=True, duplicates=13),
    "dynamic": replace(SMALL, packing="full_sentences", masking="dynamic", duplicates=1, num_shards=40),
}


@pytest.fixture
def corpus(tmp_path):
    return [write_corpus(tmp_path / f"{i}.txt", num_documents=8, seed=i) for i in range(3)]


def test_the_number_of_workers_changes_nothing(tmp_path, corpus):
    for workers in (1, 4):
        write_pretraining_data(corpus, tmp_path / f"by {workers}", VOCABULARY, SMALL, workers=workers)
    one = content(tmp_path / "by 1")
    assert one == content(tmp_path / "by 4")
    assert len(one) == SMALL.num_shards + 1
    write_pretraining_data(corpus, tmp_path / "again", VOCABULARY, replace(SMALL, seed=6))
    assert one != content(tmp_path / "again")


@pytest.mark.parametrize("kind", KINDS)
def test_beam_writes_the_same(tmp_path, corpus, kind):
    pytest.importorskip("apache_beam", reason="pip install 'tncompress[beam]'")
    from apache_beam.options.pipeline_options import PipelineOptions

    from bert_models.pretraining import beam

    write_pretraining_data(corpus, tmp_path / "ours", VOCABULARY, KINDS[kind])
    for workers in (1, 4):
        options = PipelineOptions(
            ["--runner=DirectRunner", "--direct_running_mode=multi_threading", f"--direct_num_workers={workers}"]
        )
        folder = tmp_path / f"beam {workers}"
        beam.write_pretraining_data([str(tmp_path / "*.txt")], str(folder), VOCABULARY, KINDS[kind], options=options)
        assert content(tmp_path / "ours") == content(folder)


def test_beam_refuses(tmp_path, corpus):
    pytest.importorskip("apache_beam", reason="pip install 'tncompress[beam]'")
    from bert_models.pretraining import beam

    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(Exception, match="the corpus is empty"):
        beam.write_pretraining_data([str(tmp_path / "empty.txt")], str(tmp_path / "new"), VOCABULARY, SMALL)
    assert not list((tmp_path / "new").glob("*"))
    with pytest.raises(FileExistsError, match="choose another name"):
        beam.write_pretraining_data([str(corpus[0])], str(tmp_path / "new"), VOCABULARY, SMALL)
    with pytest.raises(FileNotFoundError, match="No file"):
        beam.write_pretraining_data([str(tmp_path / "none*")], str(tmp_path / "other"), VOCABULARY, SMALL)


def test_pairs_in_records(tmp_path, corpus):
    info = write_pretraining_data(corpus, tmp_path / "data", VOCABULARY, SMALL)
    arrays = parsed(tmp_path / "data")
    assert info == read_info(tmp_path / "data")
    assert len(arrays["input_mask"]) == info["counts"]["examples"] == sum(s["records"] for s in info["shards"])
    assert arrays["masked_lm_weights"].sum() == info["counts"]["predictions"]
    assert info["counts"]["documents"] == 24
    shapes = {name: array.shape[1:] for name, array in arrays.items()}
    assert shapes == {
        **dict.fromkeys(["input_word_ids", "input_mask", "input_type_ids"], (24,)),
        **dict.fromkeys(["masked_lm_positions", "masked_lm_ids", "masked_lm_weights"], (4,)),
        "next_sentence_labels": (1,),
    }
    ids = arrays["input_word_ids"]
    assert (ids[:, 0] == CLS).all()
    assert ((ids == SEP).sum(1) == 2).all()
    np.testing.assert_array_equal(arrays["input_mask"], ids != PAD)
    assert 0.4 < arrays["next_sentence_labels"].mean() < 0.8  # half, and all parts of one sentence


def restored(arrays):
    ids = arrays["input_word_ids"].copy()
    for row, places, before, weights in zip(
        ids, *(arrays[f"masked_lm_{name}"] for name in ("positions", "ids", "weights")), strict=True
    ):
        row[places[weights > 0]] = before[weights > 0]
    return ids


def test_a_hundred_duplicates_have_different_masks(tmp_path, corpus):
    kind = replace(RECIPES["lambert"], max_length=64, num_shards=2)
    assert kind.duplicates == 100
    write_pretraining_data(corpus, tmp_path / "data", VOCABULARY, kind)
    arrays = parsed(tmp_path / "data")
    assert "next_sentence_labels" not in arrays
    assert not arrays["input_type_ids"].any()
    masks: dict[bytes, list[bytes]] = {}
    ids = restored(arrays)
    for row, places in zip(ids, arrays["masked_lm_positions"], strict=True):
        masks.setdefault(row.tobytes(), []).append(places.tobytes())
    assert {len(same_text) for same_text in masks.values()} == {100}
    # The last row of a block may be so short that there are few masks to choose from.
    long = [text for text in masks if np.count_nonzero(np.frombuffer(text, ids.dtype)) > 40]
    assert len(long) > 5
    assert {len(set(masks[text])) for text in long} == {100}


def test_examples_of_a_document_are_spread_over_the_shards(tmp_path, corpus):
    import tensorflow as tf

    spread = replace(SMALL, duplicates=10)
    info = write_pretraining_data(corpus, tmp_path / "data", VOCABULARY, spread)
    counts = [shard["records"] for shard in info["shards"]]
    expected = sum(counts) / len(counts)
    assert max(abs(count - expected) for count in counts) < 5 * np.sqrt(expected)
    # Within a shard, too: the place has nothing to do with the order in which examples were made.
    sizes = [file.stat().st_size for file in corpus]
    work = pipeline._tasks(corpus, sizes, DataSettings(**info["settings"]))
    order = {entry[2]: i for i, entry in enumerate(e for task in work for e in records(task, spread, PIECES).entries)}
    for shard in info["shards"]:
        texts = tf.data.TFRecordDataset(str(tmp_path / "data" / shard["name"])).as_numpy_iterator()
        made = [order[text] for text in texts]
        correlation = np.corrcoef(made, np.arange(len(made)))[0, 1]
        assert abs(correlation) < 4 / np.sqrt(len(made))


def test_special_tokens_in_the_text_are_text(tmp_path):
    assert PIECES.encode(["[MASK] [SEP] ak"]) == [[UNK] * 6 + [VOCABULARY.tokens.index("ak")]]


@pytest.mark.parametrize("kind", ["full sentences", "dynamic"])
def test_batches(tmp_path, corpus, kind):
    from bert_models.pretraining.reading import dataset

    folder = tmp_path / "data"
    write_pretraining_data(corpus, folder, VOCABULARY, KINDS[kind])
    total = read_info(folder)["counts"]["examples"]

    def epochs(**options):
        return list(dataset(folder, 8, VOCABULARY, epochs=2, **options).as_numpy_iterator())

    batches = epochs(seed=1)
    assert len(batches) == 2 * total // 8
    assert {name: (array.shape, array.dtype.name) for name, array in batches[0].items()} == {
        **dict.fromkeys(("input_word_ids", "input_mask", "input_type_ids"), ((8, 24), "int32")),
        **dict.fromkeys(("masked_lm_positions", "masked_lm_ids"), ((8, 4), "int32")),
        "masked_lm_weights": ((8, 4), "float32"),
    }
    for batch, again in zip(batches, epochs(seed=1), strict=True):
        for name, array in batch.items():
            np.testing.assert_array_equal(array, again[name])
    other = epochs(seed=2, shuffle_records=20)
    assert any((a["input_word_ids"] != b["input_word_ids"]).any() for a, b in zip(batches, other, strict=True))
    masks: dict[bytes, set[bytes]] = {}
    for batch in batches:
        for row, places in zip(restored(batch), batch["masked_lm_positions"], strict=True):
            masks.setdefault(row.tobytes(), set()).add(places.tobytes())
    # Two epochs: a text has as many masks as there are duplicates, or a new one each time.
    most = max(map(len, masks.values()))
    assert most == 2 if kind == "dynamic" else most > 2


def test_dynamic_masks_are_drawn_for_each_batch():
    import tensorflow as tf

    from bert_models.pretraining.reading import dynamic_masks

    ids, rule = full_rows(4, 32), MaskRule(0.15, 5)
    batches = tf.data.Dataset.from_tensors({"input_word_ids": ids}).repeat(3)
    found = [list(dynamic_masks(batches, PIECES, rule, seed).as_numpy_iterator()) for seed in (1, 1, 2)]
    one, again, other = ([batch["masked_lm_positions"].tolist() for batch in made] for made in found)
    assert one == again
    assert all(a != b for a, b in [(one[0], one[1]), (one[1], one[2]), (one[0], other[0])])
    assert all((restored(batch) == ids).all() for made in found for batch in made)


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "html"}, "layout must be sentences, paragraphs, prose or wikitext, got 'html'"),
        ({"mask_rate": 15}, "mask_rate must be above 0 and at most 1, got 15"),
        ({"max_length": "128"}, "max_length must be an integer from 8, got '128'"),
        ({"duplicates": 0}, "duplicates must be an integer from 1, got 0"),
        ({"fill_rows": True}, "fill_rows needs packing='full_sentences'"),
        ({"packing": "full_sentences", "masking": "dynamic"}, "duplicates=10 of full sentences without masks"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        DataSettings(**changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the corpus is empty"),
        (b"\n \n\t\n", "the corpus is empty"),
        (b"ak.\nal.\n", "the corpus is a single document"),
        (b"ak.\n\nal\xff\n", r"corpus.txt is not UTF-8 text: byte 7 \(0xff\), in line 3"),
    ],
)
def test_a_bad_corpus_leaves_nothing_behind(tmp_path, text, message):
    (tmp_path / "corpus.txt").write_bytes(text)
    for workers in (1, 2) if text[-3:] == b"l\xff\n" else (1,):
        with pytest.raises(ValueError, match=message):
            write_pretraining_data([tmp_path / "corpus.txt"], tmp_path / "data", VOCABULARY, SMALL, workers=workers)
        assert [file.name for file in tmp_path.iterdir()] == ["corpus.txt"]


def test_bad_arguments(tmp_path, corpus):
    write = write_pretraining_data
    for error, message, call in [
        (TypeError, "write \\['corpus'\\]", lambda: write("corpus", tmp_path / "a", VOCABULARY)),
        (ValueError, "one text file or more", lambda: write([], tmp_path / "a", VOCABULARY)),
        (FileNotFoundError, "No file 'none'", lambda: write(["none"], tmp_path / "a", VOCABULARY)),
        (FileNotFoundError, "does not exist; make it", lambda: write(corpus, tmp_path / "a" / "b", VOCABULARY)),
        (FileExistsError, "choose another name", lambda: write(corpus, tmp_path, VOCABULARY)),
        (ValueError, "workers must be", lambda: write(corpus, tmp_path / "a", VOCABULARY, workers=0)),
        (TypeError, "tokenizer must be", lambda: write(corpus, tmp_path / "a", "uncased")),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_damaged_data_is_refused(tmp_path, corpus):
    from bert_models.pretraining.reading import dataset

    folder = tmp_path / "data"
    info = write_pretraining_data(corpus, folder, VOCABULARY, KINDS["dynamic"])
    with pytest.raises(ValueError, match="lower batch_size"):
        dataset(folder, 10_000, VOCABULARY)
    with pytest.raises(ValueError, match="no masks in it"):
        dataset(folder, 4)
    with pytest.raises(ValueError, match="another vocabulary of 74 tokens"):
        dataset(folder, 4, Vocabulary((*SPECIAL_TOKENS, "word")))
    shard = folder / next(s["name"] for s in info["shards"] if s["records"])
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(ValueError, match=rf"{shard.name} has .* bytes, but .* were written: it was cut or changed"):
        read_info(folder)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        read_info(folder)
    (folder / "pretraining_data.json").unlink()
    with pytest.raises(FileNotFoundError, match="is no finished pretraining data"):
        read_info(folder)


def test_progress_ends_with_all(tmp_path, corpus):
    seen = []
    write_pretraining_data(corpus, tmp_path / "data", VOCABULARY, SMALL, progress=lambda *done: seen.append(done))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == pytest.approx(seen[-1][1], rel=0.02)
