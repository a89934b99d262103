"""What goes into an encoder: what is converted, and one clear sentence for everything that is refused."""

import keras
import numpy as np
import pytest
from encoders import batch_of, encoder_of, masked_lm_of, outputs_of, with_positions
from keras import ops

from bert_models import BertConfig
from bert_models.inputs import INPUT_NAMES, check_range, checked_inputs


@pytest.fixture(scope="module")
def encoder():
    return encoder_of("dense")


@pytest.fixture
def batch():
    return batch_of([3, 5], 5)


CONVERTED = {
    "int64": lambda x: x.astype("int64"),
    "uint8": lambda x: x.astype("uint8"),
    "nested lists": lambda x: x.tolist(),
    "tensors": ops.convert_to_tensor,
    "arrays and tensors": lambda x: x if x.max() > 1 else ops.convert_to_tensor(x),
    "some long": lambda x: x.astype("int64") if x.max() > 1 else x,
    "long tensors": lambda x: ops.convert_to_tensor(x, "int64"),
}


@pytest.mark.parametrize("convert", CONVERTED.values(), ids=CONVERTED)
def test_integers_of_any_kind_are_taken(encoder, batch, convert):
    given = {name: convert(array) for name, array in batch.items()}
    checked = checked_inputs(given, INPUT_NAMES, "encoder").values()
    assert {keras.backend.standardize_dtype(x.dtype) for x in checked} == {"int32"}
    for one, other in zip(outputs_of(encoder, given), outputs_of(encoder, batch), strict=True):
        np.testing.assert_array_equal(one, other)


def test_order_of_the_keys_does_not_matter(encoder, batch):
    turned = {name: batch[name] for name in INPUT_NAMES[::-1]}
    for one, other in zip(outputs_of(encoder, turned), outputs_of(encoder, batch), strict=True):
        np.testing.assert_array_equal(one, other)


def test_predict_and_symbolic_inputs_go_the_same_way(encoder, batch):
    inputs = {name: keras.Input((None,), dtype="int64", name=name) for name in INPUT_NAMES}
    model = keras.Model(inputs, encoder(inputs)["pooled_output"])
    longer = {name: array.astype("int64") for name, array in batch.items()}
    pooled = ops.convert_to_numpy(encoder(batch)["pooled_output"])
    np.testing.assert_allclose(model.predict(longer, verbose=0), pooled, atol=1e-6)


def one(name, value):
    """Change one entry of the dict."""
    return lambda x: {**x, name: value(x[name])}


BAD = {
    "a tuple": (lambda x: tuple(x.values()), TypeError, ["dict with input_word_ids", "got tuple"]),
    "an array": (lambda x: x["input_word_ids"], TypeError, ["dict with input_word_ids", "got ndarray"]),
    "text": (lambda x: "A cat.", TypeError, ["dict", "got str"]),
    "no mask": (lambda x: {n: x[n] for n in INPUT_NAMES[::2]}, ValueError, ["missing: input_mask", "not known: none"]),
    "names of others": (
        lambda x: {"input_ids": 1, "attention_mask": 1, "input_type_ids": 1},
        ValueError,
        ["missing: input_word_ids, input_mask", "not known: input_ids, attention_mask"],
    ),
    "a key too many": (lambda x: {**x, 3: 1}, ValueError, ["missing: none", "not known: 3"]),
    "ids beyond int32": (one("input_word_ids", lambda x: x.astype("int64") + 2**32), ValueError, ["fit into int32"]),
    "rows of nothing": (lambda x: {n: a[:, :0] for n, a in x.items()}, ValueError, ["at least one token"]),
    "fractions": (one("input_word_ids", lambda x: x + 0.5), TypeError, ["input_word_ids", "integers", "float64"]),
    "a float mask": (one("input_mask", lambda x: x.astype("float32")), TypeError, ["input_mask", "float32"]),
    "a mask of truths": (one("input_mask", lambda x: x > 0), TypeError, ["input_mask", "integers", "bool"]),
    "words": (one("input_word_ids", lambda x: x.astype(str)), TypeError, ["input_word_ids", "integers", "str"]),
    "nothing": (one("input_type_ids", lambda x: None), TypeError, ["input_type_ids", "integers", "object"]),
    "rows of many lengths": (
        one("input_word_ids", lambda x: [[1], [2, 3]]),
        ValueError,
        ["input_word_ids", "[batch, tokens]", "as long", "pad"],
    ),
    "one row": (one("input_word_ids", lambda x: x[0]), ValueError, ["input_word_ids", "[batch, tokens]", "(5,)"]),
    "three axes": (one("input_mask", lambda x: x[None]), ValueError, ["input_mask", "[batch, tokens]", "(1, 2, 5)"]),
    "a short mask": (one("input_mask", lambda x: x[:, :4]), ValueError, ["input_mask", "(2, 5)", "(2, 4)"]),
    "fewer rows": (one("input_type_ids", lambda x: x[:1]), ValueError, ["input_type_ids", "(2, 5)", "(1, 5)"]),
}


@pytest.mark.parametrize(("change", "kind", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_sentence(encoder, batch, change, kind, words):
    with pytest.raises(kind) as caught:
        encoder(change(batch))
    message = str(caught.value)
    assert all(word in message for word in [*words, "encoder"]), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: batch_of([21], 21), ["21 tokens", "20 positions", "max_length=20"]),
        (one("input_word_ids", lambda x: x + 9), ["input_word_ids", "0 to 13", "tokenizer"]),
        (one("input_word_ids", lambda x: x - 1), ["input_word_ids", "0 to 13", "-1"]),
        (one("input_type_ids", lambda x: x + 1), ["input_type_ids", "0 to 1", "2"]),
    ],
    ids=["too long", "unknown word", "negative word", "unknown segment"],
)
def test_what_is_beyond_the_tables_is_refused(encoder, batch, change, words):
    for model, inputs in ((encoder, change(batch)), (masked_lm_of("dense"), with_positions(change(batch)))):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are looked for below
            model(inputs)
        message = str(caught.value)
        assert all(word in message for word in words), message
        assert "\n" not in message


def test_beyond_the_tables_is_refused_in_a_model_of_its_layers_too(encoder):
    model = keras.Model(encoder.input, encoder.get_layer("block_0").output)
    with pytest.raises(ValueError, match=r"21 tokens .* 20 positions"):
        model(batch_of([21], 21))


def test_too_many_tokens_are_refused_while_a_graph_is_traced_too(encoder):
    inputs = {name: keras.Input((21,), dtype="int32", name=name) for name in INPUT_NAMES}
    with pytest.raises(ValueError, match=r"21 tokens .* 20 positions"):
        encoder(inputs)


def test_masked_lm_speaks_of_its_own_keys(batch):
    model = masked_lm_of("dense")
    with pytest.raises(ValueError, match=r"masked_lm: .* masked_lm_positions; missing: masked_lm_positions"):
        model(batch)
    with pytest.raises(ValueError, match="not known: masked_lm_positions"):
        model.encoder(with_positions(batch))


@pytest.mark.parametrize(("ids", "rows"), [(np.zeros((0, 4), int), 3), (np.array([[0, 2]]), 3), (np.array([9]), None)])
def test_range_that_fits_or_is_not_known_passes(ids, rows):
    check_range(ids, rows, "encoder", "input_word_ids", "")


def test_empty_batch_keeps_its_shape(encoder):
    empty = {name: np.zeros((0, 4), "int32") for name in INPUT_NAMES}
    assert checked_inputs(empty, INPUT_NAMES, "encoder")["input_mask"].shape == (0, 4)


@pytest.mark.parametrize(("hidden", "heads"), [(8, 3), (768, 10), (2, 4)])
def test_heads_that_do_not_divide_are_refused(hidden, heads):
    with pytest.raises(ValueError, match=rf"hidden_size {hidden} .* {heads} heads.*divides"):
        BertConfig(hidden_size=hidden, num_heads=heads)
