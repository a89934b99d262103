"""`finetune` and `evaluate`: a small encoder that learns small tasks, and what is said when it does not."""

import json
import re
import warnings
from dataclasses import replace

import keras
import numpy as np
import pytest
from backends import ON_TENSORFLOW, passes_on

import tncompress
from bert_models import BertConfig, build_encoder
from bert_models.finetuning.evaluation import evaluate, prepared, scores, trouble
from bert_models.finetuning.finetune import _beginning, finetune
from bert_models.finetuning.heads import model_for, span_loss
from bert_models.finetuning.recipes import RECIPES, Recipe, optimizer_of
from bert_models.finetuning.rows import orders, stream, text_rows
from bert_models.finetuning.spans import Answer
from bert_models.finetuning.squad import Question
from bert_models.finetuning.tasks import TASKS, Example
from bert_models.text.tokenize import Tokenizer
from bert_models.text.vocabulary import to_backend
from tncompress.conversion.surgery import copy_model

WORDS = ["good", "fine", "bad", "poor", "film", "the", "very", "is"]
TOKENIZER = Tokenizer(to_backend(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS], {}), max_length=32)
FAST = Recipe(learning_rate=1e-2, epochs=3, batch_size=16, dropout=0.0)


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(0)
    config = BertConfig(
        vocab_size=TOKENIZER.vocab_size, hidden_size=16, num_heads=2, num_layers=1, max_positions=32, init_stddev=0.2
    )
    return build_encoder(config)


def sentences(count, seed=0):
    """A film is good or bad by one word among others."""
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        label = int(draw.integers(2))
        rest = draw.choice(WORDS[4:], draw.integers(1, 6)).tolist()
        rest.insert(draw.integers(len(rest) + 1), draw.choice(WORDS[2 - 2 * label : 4 - 2 * label]))
        found.append(Example(" ".join(rest), None, label))
    return found


def data(count=160):
    return {"train": sentences(count), "dev": sentences(40, seed=1)}


def pairs(examples, scored=False):
    """The same as pairs; a score instead of a class."""
    return [Example(one.first, "the film", 1.0 + 3 * one.label if scored else one.label) for one in examples]


@pytest.fixture(scope="module")
def tuned(encoder):
    before = encoder.get_weights()
    found = finetune(encoder, "sst2", data(), tokenizer=TOKENIZER, recipe=FAST, seeds=(0, 1), output="mean")
    for a, b in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)  # the given encoder stays as it is
    return found


def test_it_learns_and_says_mean_and_spread(tuned, encoder):
    found = [run.scores["dev"]["accuracy"] for run in tuned.runs]
    assert min(found) > 90
    assert tuned.mean["dev"]["accuracy"] == pytest.approx(np.mean(found))
    assert tuned.spread["dev"]["accuracy"] == pytest.approx(abs(found[0] - found[1]) / np.sqrt(2))
    assert [run.trouble for run in tuned.runs] == ["", ""]
    assert "2 runs, 2 of them converged" in str(tuned)
    assert json.loads(json.dumps(tuned.to_dict()))["recipe"]["learning_rate"] == 1e-2


def test_the_model_is_that_of_the_best_run(tuned):
    found = evaluate(tuned.model, "sst2", data(), tokenizer=TOKENIZER)
    assert found == max((run.scores for run in tuned.runs), key=lambda s: s["dev"]["accuracy"])


def test_a_saved_model_measures_the_same(tuned, tmp_path):
    tuned.model.save(tmp_path / "tuned.keras")
    loaded = keras.saving.load_model(tmp_path / "tuned.keras")
    found = evaluate(loaded, "sst2", data(), tokenizer=TOKENIZER, batch_size=7)
    assert found == evaluate(tuned.model, "sst2", data(), tokenizer=TOKENIZER)


@pytest.mark.slow
def test_the_seed_decides(encoder):
    given = {"tokenizer": TOKENIZER, "recipe": replace(FAST, epochs=1, dropout=0.1), "output": "mean"}
    with _quiet():
        losses = [finetune(encoder, "sst2", data(64), seeds=(seed,), **given).runs[0].losses for seed in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


def test_scores_are_learnt_and_begin_at_their_mean(encoder):
    splits = {name: pairs(examples, scored=True) for name, examples in data().items()}
    tuned = finetune(encoder, "stsb", splits, tokenizer=TOKENIZER, recipe=FAST, keep="best")
    assert tuned.mean["dev"]["pearson"] > 80
    assert 1 <= tuned.runs[0].epoch <= 3


def test_a_run_begins_by_its_seed_and_scores_at_their_mean(encoder):
    """Dropout of a copy would otherwise draw what the original's would, whatever the seed."""
    train = prepared(TASKS["stsb"], TOKENIZER, {"train": pairs(sentences(30), scored=True)})["train"]
    states = []
    for seed in (0, 0, 1):
        model = _beginning(encoder, train, "pooled", 0.1, seed)
        states.append(
            [keras.ops.convert_to_numpy(v) for v in model.non_trainable_variables if v.name == "seed_generator_state"]
        )
    assert len(states[0]) > 1  # several dropout layers, each with its own
    assert len({tuple(state) for state in states[0]}) == len(states[0])
    np.testing.assert_array_equal(states[0], states[1])
    assert (np.array(states[0]) != np.array(states[2])).any(axis=1).all()
    assert keras.ops.convert_to_numpy(model.get_layer("head").bias) == pytest.approx(
        np.mean([e.label for e in train.examples])
    )


def test_a_compressed_encoder_and_the_recipe_of_lambert(encoder):
    small = tncompress.replace_dense(encoder, 0.6, include="feed_forward")
    recipe = replace(RECIPES["lambert"], learning_rate=4e-2, epochs=6, batch_size=16, dropout=0.0)
    splits = {name: pairs(examples) for name, examples in data().items()}
    found = finetune(small, "rte", splits, tokenizer=TOKENIZER, recipe=recipe, output="mean")
    assert found.mean["dev"]["accuracy"] > 80
    assert tncompress.report(small).replaced


def test_mnli_is_measured_on_both_of_its_dev_splits(encoder):
    splits = {name: pairs(sentences(9)) for name in TASKS["mnli"].splits}
    found = evaluate(model_for(TASKS["mnli"], encoder), "mnli", splits, tokenizer=TOKENIZER)
    assert set(found) == {"dev_matched", "dev_mismatched"}
    assert evaluate(
        model_for(TASKS["mnli"], encoder), "mnli", splits, tokenizer=TOKENIZER, splits=["train"]
    ).keys() == {"train"}


def test_answers_are_learnt(encoder):
    """Which word is asked for stands after "is"; some texts have no such word."""
    draw = np.random.default_rng(0)

    def question(number):
        before = " ".join(draw.choice(["the", "film", "very"], draw.integers(1, 9)))
        if number % 4 == 0:
            return Question(str(number), "good", before, ())
        text = f"{before} is {draw.choice(['good', 'bad', 'fine'])} film"
        start = text.index(" is ") + 4
        return Question(str(number), "good", text, ((start, text[start:].split()[0]),))

    made = [question(number) for number in range(250)]
    task = replace(TASKS["squad2"], max_length=14, stride=4, max_question=2)
    splits = {"train": made[:200], "dev": made[200:]}
    found = finetune(encoder, task, splits, tokenizer=TOKENIZER, recipe=replace(FAST, epochs=5))
    assert found.mean["dev"]["best_f1"] > 90
    assert set(found.mean["dev"]) >= {"exact", "f1", "best_exact", "best_f1_threshold"}
    assert evaluate(found.model, task, splits, tokenizer=TOKENIZER) == found.runs[0].scores


# -- what has not converged ------------------------------------------------------------------------


def test_a_run_that_learns_nothing_is_reported(encoder):
    draw = np.random.default_rng(0)
    splits = {
        name: [replace_label(one, int(draw.integers(2))) for one in examples] for name, examples in data(64).items()
    }
    with pytest.warns(UserWarning, match=r"sst2, seed 0: this run has not converged: .* Try other seeds"):
        finetune(encoder, "sst2", splits, tokenizer=TOKENIZER, recipe=replace(FAST, epochs=1, learning_rate=1e-7))


def replace_label(example, label):
    return Example(example.first, example.second, label)


@pytest.mark.parametrize(
    ("name", "labels", "predictions", "message"),
    [
        ("sst2", [0, 1] * 50, [1] * 100, "it predicts '1' for each of the 100 examples"),
        ("mnli", [0, 1, 2] * 100, [0] * 300, "it predicts 'contradiction' for each of the 300 examples"),
        ("sst2", [0, 1] * 50, [0, 0, 1, 1] * 25, r"an accuracy of 50\.0 is not above chance \(60\.0\)"),
        ("sst2", [0, 1] * 50, [1, 0] * 50, "an accuracy of 0.0"),
        ("sst2", [0, 1] * 50, [0, 1] * 40 + [0] * 20, ""),
        ("cola", [1] * 70 + [0] * 30, [1] * 60 + [0] * 20 + [1] * 20, "an accuracy of 70"),  # that of always 1
        ("stsb", [0.0, 5.0] * 50, [2.5] * 100, "it predicts 2.50 for each"),
        ("stsb", [0.0, 5.0] * 50, [1.0, 1.0, 2.0, 2.0] * 25, "a correlation of 0.0 is not above chance"),
        ("stsb", [0.0, 5.0] * 50, [1.0, 2.0] * 50, ""),
    ],
)
def test_chance_is_recognised(name, labels, predictions, message):
    second = None if len(TASKS[name].texts) == 1 else "film"
    split = prepared(TASKS[name], TOKENIZER, {"dev": [Example("film", second, label) for label in labels]})["dev"]
    found = trouble(split, np.array(predictions))
    assert re.match(message, found) if message else found == ""


@pytest.mark.parametrize(
    ("name", "given", "predicted", "message"),
    [
        ("squad1", "good", "bad", "an F1 of 0.0 is not above that of chance"),
        ("squad1", "good", "good", ""),
        ("squad2", "", "good", "an F1 of 100.0 is not above that of never answering"),
    ],
)
def test_chance_of_answers(name, given, predicted, message):
    answers = ((0, given),) if given else ()
    questions = [Question("a", "film", "good film", answers)]
    split = prepared(TASKS[name], Tokenizer(TOKENIZER.backend, 512), {"dev": questions})["dev"]
    assert trouble(split, [Answer(predicted, 1.0)]).startswith(message)
    assert bool(trouble(split, [Answer(predicted, 1.0)])) == bool(message)
    assert scores(split, [Answer(predicted, 1.0)])["exact"] == 100 * (not given or given == predicted)


def test_a_loss_that_is_nan_stops_with_the_step(encoder):
    broken = copy_model(encoder)
    broken.get_layer("pooler").bias.assign(np.full(16, np.nan))
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 1: lower .* The encoder is as it was"):
        finetune(broken, "sst2", data(32), tokenizer=TOKENIZER, recipe=FAST)


# -- parts -----------------------------------------------------------------------------------------


def test_every_epoch_has_every_row_once_and_rows_of_like_length_together():
    rows = text_rows(TASKS["sst2"], TOKENIZER, sentences(100))
    draw = np.random.default_rng(0)
    epochs = [np.concatenate(orders(rows, 8, draw)) for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(100))
    assert epochs[0].tolist() != epochs[1].tolist()
    padded = [max(len(rows.ids[i]) for i in chosen) * len(chosen) for chosen in orders(rows, 8, draw)]
    assert sum(padded) < 1.2 * sum(map(len, rows.ids))
    assert sum(len(chosen) < 8 for chosen in orders(rows, 8, draw)) == 1


def test_a_stream_is_the_rows_padded():
    rows = text_rows(TASKS["sst2"], TOKENIZER, sentences(10))
    inputs, targets = next(iter(stream(rows, 4, seed=0, compiled=False)))
    inputs = {name: np.asarray(value) for name, value in inputs.items()}
    chosen = orders(rows, 4, np.random.default_rng(0))[0]
    for row, i in enumerate(chosen):
        count = len(rows.ids[i])
        assert inputs["input_word_ids"][row, :count].tolist() == rows.ids[i].tolist()
        assert inputs["input_mask"][row].sum() == count
    assert np.asarray(targets).tolist() == rows.targets[chosen].tolist()


def test_where_lengths_are_compiled_there_are_few_of_them():
    rows = text_rows(
        replace(TASKS["sst2"], max_length=20), TOKENIZER, [Example("very " * n, None, 0) for n in (1, 9, 30)]
    )
    shapes = [rows.batch([i], compiled=True)[0]["input_mask"].shape for i in range(3)]
    assert shapes == [(1, 16), (1, 16), (1, 20)]
    assert rows.batch([0, 1])[0]["input_mask"].sum(axis=1).tolist() == [3, 11]


def test_padding_changes_no_span_logits(encoder):
    model = model_for(TASKS["squad1"], encoder)
    short = {
        "input_word_ids": np.array([[2, 5, 3]]),
        "input_mask": np.ones((1, 3), int),
        "input_type_ids": np.zeros((1, 3), int),
    }
    long = {name: np.pad(value, ((0, 0), (0, 4))) for name, value in short.items()}
    a, b = (keras.ops.convert_to_numpy(model(inputs)) for inputs in (short, long))
    np.testing.assert_allclose(a, b[:, :3], atol=1e-5)
    assert (b[:, 3:] == -1e9).all()


def test_the_loss_of_spans_is_the_mean_of_two_cross_entropies():
    draw = np.random.default_rng(0)
    logits, targets = draw.normal(size=(3, 5, 2)), np.array([[0, 0], [1, 4], [2, 3]])
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wanted = [-(logs[i, s, 0] + logs[i, e, 1]) / 2 for i, (s, e) in enumerate(targets)]
    np.testing.assert_allclose(span_loss(targets, logits.astype("float32")), wanted, atol=1e-6)


def test_the_recipe_of_lamberts_card():
    """cards, lambert: "3.0e-5", "weight_decay_rate=0.01", LayerNorm and bias excluded from decay and adaptation."""
    optimizer = optimizer_of(RECIPES["lambert"], 100)
    variables = [keras.Variable(np.ones(2), name=name) for name in ("kernel", "bias", "gamma")]
    optimizer.build(variables)
    assert [optimizer.decays(v) for v in variables] == [optimizer.adapts(v) for v in variables] == [True, False, False]
    assert optimizer.weight_decay == 0.01
    rate = optimizer.get_config()["learning_rate"]["config"]
    assert (rate["peak"], rate["total_steps"], rate["warmup_steps"]) == (3e-5, 100, 10)
    squad = optimizer_of(RECIPES["lambert_squad"], 100).get_config()
    assert (RECIPES["lambert_squad"].optimizer, squad["learning_rate"]["config"]["peak"]) == ("adamw", 3e-5)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"task": "sst"}, ValueError, "there is no task 'sst'; did you mean sst2"),
        ({"recipe": "bort"}, ValueError, "there is no recipe 'bort'"),
        ({"seeds": 3}, ValueError, "seeds must be a list"),
        ({"seeds": ()}, ValueError, "seeds must be a list"),
        ({"keep": "first"}, ValueError, "keep must be last or best"),
        ({"output": "first"}, ValueError, "output must be pooled or mean"),
        ({"data": {"train": sentences(3)}}, ValueError, "has no split 'dev', only train"),
        ({"data": {"dev": sentences(3)}}, ValueError, "has no split 'train', only dev"),
        ({"data": {"train": [], "dev": sentences(3)}}, ValueError, "'train' has no examples"),
        (
            {"data": {"train": [Example("a", None, 2)]}},
            ValueError,
            r"sst2, train example 0: the label .* 0 to 1 .* got 2",
        ),
        ({"data": {"train": [Example("a", "b", 1)]}}, ValueError, "the task has 1 texts"),
        ({"data": "nowhere"}, FileNotFoundError, "sst2 needs train.tsv, dev.tsv in 'nowhere'"),
    ],
)
def test_bad_arguments_are_refused_before_training(encoder, change, kind, message):
    given = {"task": "sst2", "data": data(8), "tokenizer": TOKENIZER, "recipe": FAST, **change}
    with pytest.raises(kind, match=message):
        finetune(encoder, **given)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": True},
        {"learning_rate": 0},
        {"learning_rate": "x"},
        {"warmup": 1.0},
        {"dropout": -0.1},
    ],
)
def test_bad_recipes_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        replace(FAST, **change)


@ON_TENSORFLOW
def test_nothing_of_it_stays_in_memory(encoder):
    """Custom gradients, ours and those that Keras's optimizers use, would keep every step that was ever compiled."""
    import gc

    from tensorflow.python.framework.func_graph import FuncGraph

    def steps():
        gc.collect()
        return sum(isinstance(found, FuncGraph) and found.name == "one_step_on_data" for found in gc.get_objects())

    before = steps()
    finetune(encoder, "sst2", data(32), tokenizer=TOKENIZER, recipe=replace(FAST, epochs=1), output="mean")
    assert steps() == before


def test_an_encoder_of_another_kind_is_refused():
    inputs = {
        name: keras.Input((None,), dtype="int32", name=name)
        for name in ("input_word_ids", "input_mask", "input_type_ids")
    }
    other = keras.Model(inputs, {"states": keras.ops.cast(inputs["input_mask"], "float32")})
    with pytest.raises(ValueError, match=r"must give a dict with 'pooled_output'.* got states"):
        model_for(TASKS["sst2"], other)


@pytest.mark.slow
@ON_TENSORFLOW
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_pass_this_file(backend):
    passes_on(backend, __file__)


def _quiet():
    return warnings.catch_warnings(action="ignore")
