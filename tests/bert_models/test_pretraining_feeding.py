"""What training reads: the same from any batch on, by whatever processes, and whatever TensorFlow's own seed is."""

import json
import shutil
from itertools import islice

import numpy as np
import pytest
import tensorflow as tf
from corrupting import corrupted
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import error_of

from bert_models.pretraining.damage import told_in_words
from bert_models.pretraining.feeding import Source, batches
from bert_models.pretraining.info import INFO_NAME, make_info, read_info, to_text
from bert_models.pretraining.pipeline import write_pretraining_data
from bert_models.pretraining.reading import dataset, visits
from bert_models.pretraining.records import examples, write_records
from bert_models.pretraining.settings import DataSettings
from bert_models.pretraining.wordpieces import WordPieces
from bert_models.text.vocabulary import SPECIAL_TOKENS, Vocabulary

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *(a + b for a in "abcd" for b in "klmn"), "."))
SMALL = {"max_length": 12, "num_shards": 5}
KINDS = {
    "pairs": DataSettings(duplicates=2, **SMALL),
    "dynamic": DataSettings("full_sentences", duplicates=1, masking="dynamic", **SMALL),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    words = VOCABULARY.tokens[5:-1]
    text = "\n\n".join("\n".join(" ".join(draw.choice(words, 5)) + " ." for _ in range(4)) for _ in range(8))
    (place / "corpus.txt").write_text(text)
    found = {}
    for kind, made in KINDS.items():
        info = write_pretraining_data([place / "corpus.txt"], place / kind, VOCABULARY, made)
        found[kind] = Source(place / kind, sum(shard["records"] for shard in info["shards"]), "")
    return found


def taken(found, count):
    return list(found.take(count).as_numpy_iterator())


def assert_same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for name, array in a.items():
            np.testing.assert_array_equal(array, b[name])


def expanded(shards, found):
    """(shard, number in it) of every record that is read."""
    sizes = {shard["name"]: shard["records"] for shard in shards}
    for name, passed in found:
        yield from ((name, number) for number in range(passed, sizes[name]))


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(any),
    st.integers(0, 60),
    st.integers(0, 3),
    st.booleans(),
)
def test_reading_from_a_record_on_is_reading_all_before_it_too(sizes, first, seed, once):
    shards = [{"name": str(number), "records": size} for number, size in enumerate(sizes)]
    epochs = 3 if once else None
    slow = islice(expanded(shards, visits(shards, seed, epochs)), first, first + 50)
    found = list(visits(shards, seed, epochs, first)) if once else visits(shards, seed, epochs, first)
    assert list(islice(expanded(shards, found), 50)) == list(slow)


def test_every_epoch_has_every_shard_once_in_another_order():
    shards = [{"name": str(number), "records": 1} for number in range(20)]
    orders = [[name for name, _ in islice(visits(shards, 0, None, 20 * epoch), 20)] for epoch in range(3)]
    assert all(sorted(order, key=int) == [shard["name"] for shard in shards] for order in orders)
    assert len(set(map(tuple, orders))) == 3


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(start=st.integers(0, 60), seed=st.integers(0, 2), size=st.sampled_from([1, 4, 6]))
def test_resumed_reading_gives_the_batches_of_uninterrupted_reading(sources, kind, start, seed, size):
    slow = taken(batches(sources[kind], VOCABULARY, size, seed).skip(start), 3)
    assert_same(taken(batches(sources[kind], VOCABULARY, size, seed, start=start), 3), slow)


@pytest.mark.parametrize("kind", KINDS)
def test_processes_read_their_rows_of_the_same_batches(sources, kind):
    whole = taken(batches(sources[kind], VOCABULARY, 6, 1, start=2), 4)
    parts = [taken(batches(sources[kind], VOCABULARY, 6, 1, start=2, rows=slice(at, at + 2)), 4) for at in (0, 2, 4)]
    joined = [
        {name: np.concatenate([part[name] for part in row]) for name in row[0]} for row in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


def test_once_is_one_epoch(sources):
    source = sources["pairs"]
    found = batches(source, VOCABULARY, 4, 0, once=True)
    assert int(found.cardinality()) == len(list(found)) == source.examples // 4


def test_batches_are_those_of_dataset(sources):
    one = taken(batches(sources["dynamic"], VOCABULARY, 4, 3), 20)
    assert_same(one, taken(dataset(sources["dynamic"].folder, 4, VOCABULARY, seed=3, epochs=None), 20))


@pytest.mark.parametrize("shuffle_records", [0, 10])
def test_dataset_depends_on_its_own_seed_only(sources, shuffle_records):
    found = []
    for of_tensorflow, seed in ((1, 0), (2, 0), (2, 7)):
        tf.random.set_seed(of_tensorflow)
        made = dataset(sources["pairs"].folder, 2, seed=seed, epochs=2, shuffle_records=shuffle_records)
        found.append(list(made.as_numpy_iterator()))
    assert_same(found[0], found[1])
    assert any((a["input_word_ids"] != b["input_word_ids"]).any() for a, b in zip(found[0], found[2], strict=True))


def test_shuffled_records_are_all_there(sources):
    def rows(shuffle_records):
        made = dataset(sources["pairs"].folder, 1, shuffle_records=shuffle_records)
        return [b"".join(array.tobytes() for array in batch.values()) for batch in made.as_numpy_iterator()]

    plain, shuffled = rows(0), rows(10)
    assert plain != shuffled
    assert sorted(plain) == sorted(shuffled)
    assert len(plain) == read_info(sources["pairs"].folder)["counts"]["examples"]


# -- damaged data ----------------------------------------------------------------------------------


@pytest.fixture
def copied(sources, tmp_path):
    shutil.copytree(sources["pairs"].folder, tmp_path / "data")
    return tmp_path / "data"


def first_shard(folder):
    return folder / next(shard["name"] for shard in read_info(folder)["shards"] if shard["records"])


def read_all(folder):
    with told_in_words(folder):
        return list(dataset(folder, 1).as_numpy_iterator())


def test_a_hundred_damaged_shards_are_refused_by_name(copied):
    file = first_shard(copied)
    content, found = file.read_bytes(), dataset(copied, 1)
    damaged = [data for data in corrupted(content, 200) if len(data) == len(content)][:100]
    for data in damaged:
        file.write_bytes(data)
        with pytest.raises(tf.errors.DataLossError):
            list(found)
    assert len(damaged) == 100
    for data in (*damaged[:5], content[:-1], b""):
        file.write_bytes(data)
        assert file.name in (said := str(error_of(lambda: read_all(copied))))
        assert "{{" not in said


def test_a_hundred_damaged_records_of_the_data_are_refused_or_read_exactly(copied):
    file, wanted = copied / INFO_NAME, read_info(copied)
    for data in corrupted(file.read_bytes(), 100):
        file.write_bytes(data)
        if error := error_of(lambda: read_info(copied)):
            assert str(copied) in str(error)
        else:
            assert read_info(copied) == wanted


def test_data_of_earlier_versions_has_no_checksum(copied):
    info = read_info(copied)
    del info["sha256"]
    (copied / INFO_NAME).write_text(to_text(info))
    assert read_info(copied) == info


OTHER = {
    "settings of others": ({"settings": {"rows": 3}}, "settings must be those of DataSettings, got"),
    "a word for a truth": ({"settings": {"whole_words": "no"}}, "must be true or false"),
    "rows without end": ({"settings": {"max_length": 10**400}}, "must be below 2,147,483,648"),
    "rows of gigabytes": ({"settings": {"max_length": 1 << 30}}, "too few for .* records of at least"),
    "predictions of gigabytes": ({"settings": {"max_predictions": 1 << 30}}, "too few for .* records of at least"),
    "masks of gigabytes": ({"settings": {"masking": "dynamic", "max_predictions": 1 << 30}}, "too few for"),
    "no vocabulary": ({"vocabulary": None}, "vocabulary has a size and a digest, got None"),
    "a vocabulary of a word": ({"vocabulary": {"size": "9", "digest": "x"}}, "vocabulary has a size and a digest"),
    "no counts": ({"counts": 3}, "counts must be numbers by name, got 3"),
    "a new key": ({"more": 1}, "its keys must be counts, format"),
    "records without end": ({"shards": [{"name": "a", "records": 10**400, "bytes": 1}]}, "a shard is a file"),
}


@pytest.mark.parametrize(("change", "words"), OTHER.values(), ids=OTHER)
def test_other_values_beside_the_shards_are_refused(copied, change, words):
    info = read_info(copied)
    info["settings"].update(change.get("settings", {}))
    info |= {name: value for name, value in change.items() if name != "settings"}
    del info["sha256"]
    (copied / INFO_NAME).write_text(json.dumps(info))
    with pytest.raises(ValueError, match=words):
        read_info(copied)
    error_of(lambda: read_info(copied))


def test_a_shard_listed_twice_and_changed_settings_are_refused(copied):
    info = read_info(copied)
    (copied / INFO_NAME).write_text(to_text({**info, "shards": [*info["shards"], info["shards"][0]]}))
    with pytest.raises(ValueError, match="a shard is listed twice"):
        read_info(copied)
    (copied / INFO_NAME).write_text(to_text({**info, "settings": {**info["settings"], "seed": 7}}))
    with pytest.raises(ValueError, match="its checksum is another one than when it was written"):
        read_info(copied)


def test_records_of_other_data_are_refused_by_name(copied):
    """With checksums that are right."""
    file, info = first_shard(copied), read_info(copied)
    longer = {"input_word_ids": np.ones((3, 400), int)}
    with file.open("wb") as stream:
        write_records(stream, examples(longer))
    shards = [
        {**shard, "records": 3, "bytes": file.stat().st_size} if shard["name"] == file.name else shard
        for shard in info["shards"]
    ]

    made = make_info(KINDS["pairs"], WordPieces.of(VOCABULARY), info["counts"], shards)
    (copied / INFO_NAME).write_text(to_text(made))
    said = str(error_of(lambda: read_all(copied)))
    assert f"damaged shard ({file.name}: " in said
    assert "{{" not in said


def test_errors_of_the_model_stay_as_they_are(copied):
    with pytest.raises(tf.errors.InvalidArgumentError), told_in_words(copied):
        tf.debugging.assert_equal(1, 2)
    with pytest.raises(tf.errors.DataLossError), told_in_words(copied):
        raise tf.errors.DataLossError(None, None, "of other data")
