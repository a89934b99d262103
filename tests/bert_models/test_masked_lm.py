"""The masked-LM head: its formula, the tied table, saving, and use inside a functional model."""

import keras
import numpy as np
import pytest
from encoders import CARDS, KINDS, batch_of, config_of, masked_lm_of, outputs_of, randomised, with_positions
from keras import ops

import tncompress
from bert_models import BertConfig, MaskedLM, build_encoder
from bert_models.blocks.embeddings import Embeddings
from bert_models.inputs import INPUT_NAMES, POSITIONS_NAME
from tncompress.layers.embedding import TNEmbedding

INPUTS = (*INPUT_NAMES, POSITIONS_NAME)


def logits_of(model, batch):
    return ops.convert_to_numpy(model(batch, training=False)["mlm_logits"])


def table_of(model):
    return model.encoder.get_layer("embeddings").word.embeddings


@pytest.fixture
def batch():
    return with_positions(batch_of([5, 3, 7], 7), count=4)


@pytest.mark.parametrize("activation", ["relu", "gelu_tanh"])
def test_logits_are_the_formula(batch, activation):
    model = masked_lm_of("dense", activation=activation)
    outputs = model(batch, training=False)
    weights = (model.transform.kernel, model.transform.bias, model.norm.gamma, model.norm.beta, table_of(model))
    kernel, bias, gamma, beta, table = (ops.convert_to_numpy(v).astype("float64") for v in weights)
    states = ops.convert_to_numpy(outputs["sequence_output"])
    expected = np.empty((3, 4, 14))
    for row, place in np.ndindex(3, 4):
        x = states[row, batch[POSITIONS_NAME][row, place]] @ kernel + bias
        x = (
            np.maximum(x, 0)
            if activation == "relu"
            else x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2
        )
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-12) * gamma + beta
        expected[row, place] = table @ x + ops.convert_to_numpy(model.output_bias)
    np.testing.assert_allclose(ops.convert_to_numpy(outputs["mlm_logits"]), expected, atol=1e-5)


@pytest.mark.parametrize("kind", CARDS)
def test_the_other_outputs_are_the_encoder_s(kind, batch):
    model = masked_lm_of(kind)
    outputs = model(batch, training=False)
    assert list(outputs) == ["sequence_output", "pooled_output", "encoder_outputs", "mlm_logits"]
    alone = outputs_of(model.encoder, {name: batch[name] for name in INPUT_NAMES})
    rest = keras.tree.flatten({name: x for name, x in outputs.items() if name != "mlm_logits"})
    for one, other in zip(alone, rest, strict=True):
        np.testing.assert_array_equal(one, ops.convert_to_numpy(other))


def test_table_is_tied(batch):
    model = masked_lm_of("dense")
    before = logits_of(model, batch)
    unused = 4  # batch_of draws ids from 5 on
    row = ops.convert_to_numpy(table_of(model))
    row[unused] += 1
    table_of(model).assign(row)
    change = logits_of(model, batch) - before
    assert np.abs(change[..., unused]).min() > 1e-4
    np.testing.assert_array_equal(np.delete(change, unused, axis=-1), 0)
    assert sum(tuple(v.shape) == (14, 8) for v in model.trainable_variables) == 1


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # of the pooler
@pytest.mark.parametrize("kind", ["dense", "gated, Expand/Condense"])
def test_training_on_words_reaches_every_weight_but_the_pooler(kind, batch):
    model = masked_lm_of(kind, hidden_dropout=0.0, attention_dropout=0.0)
    before = {v.path: ops.convert_to_numpy(v) for v in model.trainable_variables}
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUTS}
    words = keras.Model(inputs, model(inputs)["mlm_logits"])  # one output, one loss
    words.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    labels = np.full((3, 4), 4)  # a word that is in no input: only the tied table can learn it
    assert np.isfinite(words.train_on_batch(batch, labels))
    still = {v.path for v in model.trainable_variables if np.array_equal(before[v.path], ops.convert_to_numpy(v))}
    assert {path for path in still if not path.endswith("key/bias")} == {"pooler/kernel", "pooler/bias"}
    moved = ops.convert_to_numpy(table_of(model))[4] - before["embeddings/word/embeddings"][4]
    assert np.abs(moved).min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_keras_file_gives_the_same_numbers(kind, tmp_path, batch):
    model = masked_lm_of(kind)
    model.save(tmp_path / "mlm.keras")
    again = keras.saving.load_model(tmp_path / "mlm.keras", safe_mode=True)
    assert isinstance(again, MaskedLM)
    assert again.encoder.config == model.encoder.config
    for one, other in zip(outputs_of(model, batch), outputs_of(again, batch), strict=True):
        np.testing.assert_array_equal(one, other)
    table_of(again).assign(0 * table_of(again))
    assert np.ptp(logits_of(again, batch), axis=(0, 1)).max() == 0  # still tied: only the bias is left


def test_saved_inside_a_functional_model(tmp_path, batch):
    inputs = {name: keras.Input((None,), dtype="int32", name=name) for name in INPUTS}
    outputs = masked_lm_of("talkheads_ggelu")(inputs)
    model = keras.Model(
        inputs, {"best": ops.argmax(outputs["mlm_logits"], axis=-1), "pooled": outputs["pooled_output"]}
    )
    found = model(batch)
    assert tuple(found["best"].shape) == (3, 4)
    model.save(tmp_path / "best.keras")
    again = keras.saving.load_model(tmp_path / "best.keras", safe_mode=True)(batch)
    for name, value in found.items():
        np.testing.assert_array_equal(value, again[name])


def test_compressed_encoder_inside(batch):
    model = masked_lm_of("dense")
    compressed = MaskedLM(tncompress.replace_dense(model.encoder, keep=0.5, form="low_rank", include="feed_forward"))
    assert compressed.encoder.count_params() < model.encoder.count_params()
    for name in ("transform", "norm"):
        getattr(compressed, name).set_weights(getattr(model, name).get_weights())
    compressed.output_bias.assign(model.output_bias)
    assert_logits_are_of_table(compressed, batch, table_of(compressed))


def assert_logits_are_of_table(model, batch, table):
    """The head's logits, from the encoder's states and a table [V, H]."""
    states = ops.convert_to_numpy(model.encoder({name: batch[name] for name in INPUT_NAMES})["sequence_output"])
    picked = np.take_along_axis(states, batch[POSITIONS_NAME][..., None], axis=1)
    expected = ops.matmul(model.norm(model.transform(picked)), ops.transpose(table)) + model.output_bias
    np.testing.assert_allclose(logits_of(model, batch), ops.convert_to_numpy(expected), atol=1e-5)


def test_compressed_table_is_tied_too(batch, monkeypatch):
    plain = Embeddings._table

    def table(self, rows, name):
        return TNEmbedding(rows, 8, ((4, None), (10, 3)), name=name) if name == "word" else plain(self, rows, name)

    monkeypatch.setattr(Embeddings, "_table", table)
    model = masked_lm_of("dense")
    word = model.encoder.get_layer("embeddings").word
    assert_logits_are_of_table(model, batch, word(np.arange(14)))
    before = logits_of(model, batch)
    word.projections[1].assign(2 * ops.convert_to_numpy(word.projections[1]))
    assert np.abs(logits_of(model, batch) - before).max() > 0.1


def test_replace_dense_keeps_the_model_a_masked_lm(batch):
    model = masked_lm_of("dense")
    compressed = tncompress.replace_dense(model, keep=0.5, include="feed_forward")
    assert isinstance(compressed, MaskedLM)
    assert compressed.count_params() < model.count_params()
    np.testing.assert_array_equal(table_of(compressed), table_of(model))
    before = logits_of(compressed, batch)
    table_of(compressed).assign(2 * table_of(compressed))
    assert np.abs(logits_of(compressed, batch) - before).max() > 0.1


@pytest.mark.parametrize(("policy", "half"), [("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")])
@pytest.mark.parametrize("kind", CARDS)
def test_mixed_precision_gives_logits_in_half(kind, policy, half, batch):
    exact = logits_of(masked_lm_of(kind), batch)
    outputs = masked_lm_of(kind, dtype=policy)(batch, training=False)
    assert keras.backend.standardize_dtype(outputs["mlm_logits"].dtype) == half
    found = ops.convert_to_numpy(ops.cast(outputs["mlm_logits"], "float32"))
    # Some roundings to 8 or 11 bits of logits of about 1.
    allowed = 16 * 2.0 ** (-8 if half == "bfloat16" else -11) * exact.std()
    assert np.sqrt(np.mean((found - exact) ** 2)) < allowed


def test_parameters_beside_the_encoder_s():
    encoder = build_encoder(config_of("dense"))
    assert MaskedLM(encoder).count_params() - encoder.count_params() == 8 * 8 + 3 * 8 + 14  # H^2 + 3 H + V


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda x: {n: x[n] for n in INPUT_NAMES}, ValueError, ["missing: masked_lm_positions"]),
        (lambda x: {**x, POSITIONS_NAME: x[POSITIONS_NAME] / 1}, TypeError, ["masked_lm_positions", "float64"]),
        (lambda x: {**x, POSITIONS_NAME: x[POSITIONS_NAME][0]}, ValueError, ["masked_lm_positions", "(4,)"]),
        pytest.param(
            lambda x: {**x, POSITIONS_NAME: x[POSITIONS_NAME] + 7},
            ValueError,
            ["masked_lm_positions", "0 to 6", "13"],
            marks=pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="seen in eager TensorFlow"),
        ),
        (
            lambda x: {**x, POSITIONS_NAME: x[POSITIONS_NAME][:2]},
            ValueError,
            ["masked_lm_positions", "3 rows", "(2, 4)"],
        ),
    ],
    ids=["missing", "fractions", "one axis", "beyond the tokens", "other batch"],
)
def test_bad_positions_are_refused_in_one_sentence(change, kind, words, batch):
    with pytest.raises(kind) as caught:
        masked_lm_of("dense")(change(batch))
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_model_that_is_no_encoder_is_refused():
    with pytest.raises(TypeError, match=r"encoder.*Sequential"):
        MaskedLM(keras.Sequential([keras.layers.Dense(2)]))


def test_longer_integers_are_converted(batch):
    model = randomised(MaskedLM(build_encoder(BertConfig(vocab_size=14, hidden_size=8, num_heads=2, num_layers=1))))
    longer = {name: array.astype("int64") for name, array in batch.items()}
    np.testing.assert_array_equal(logits_of(model, longer), logits_of(model, batch))
