"""Metrics against independent ones: scipy, counts by hand, SQuAD's official scripts as Model Garden has them."""

import math
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bert_models.finetuning import metrics, squad_metrics
from bert_models.finetuning.squad import Question
from bert_models.finetuning.tasks import TASKS

pairs_of_labels = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40)
pairs_of_classes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40)
score = st.one_of(st.integers(0, 5), st.floats(0, 5, allow_subnormal=False).map(lambda x: round(x, 3)))
pairs_of_scores = st.lists(st.tuples(score, score), min_size=3, max_size=40)


@given(pairs_of_labels)
def test_of_two_classes_equal_counting(pairs):
    """The textbook formulas of the four counts."""
    tp, fp, fn, tn = (pairs.count(kind) for kind in ((1, 1), (1, 0), (0, 1), (0, 0)))
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    wanted = {
        "accuracy": (tp + tn) / len(pairs),
        "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0,
        "matthews": (tp * tn - fp * fn) / math.sqrt(product) if product else 0.0,
    }
    predictions, labels = zip(*pairs, strict=True)
    for name, value in wanted.items():
        assert metrics.METRICS[name](predictions, labels) == pytest.approx(100 * value, abs=1e-9), name


@given(pairs_of_classes)
def test_matthews_of_more_classes_equals_gorodkin(pairs):
    """The formula with sums over the confusion matrix, in integers."""
    table = np.zeros((4, 4), int)
    for prediction, label in pairs:
        table[label, prediction] += 1
    labels, predictions, n = table.sum(axis=1), table.sum(axis=0), table.sum()
    above = np.trace(table) * n - labels @ predictions
    below = (n**2 - predictions @ predictions) * (n**2 - labels @ labels)
    wanted = 100 * above / math.sqrt(below) if below else 0.0
    assert metrics.matthews(*zip(*pairs, strict=True)) == pytest.approx(wanted, abs=1e-9)


@given(pairs_of_scores)
def test_correlations_equal_scipy(pairs):
    x, y = (np.array(values, float) for values in zip(*pairs, strict=True))
    for name, theirs in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        found = metrics.METRICS[name](x, y)
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            assert found == 0
        elif min(np.ptp(x), np.ptp(y)) > 1e-6:
            assert found == pytest.approx(100 * theirs(x, y).statistic, abs=1e-7), name


def test_every_task_has_the_metrics_of_the_leaderboard():
    """GLUE's own list, gluebenchmark.com/tasks."""
    assert {name: task.metrics for name, task in TASKS.items()} == {
        "cola": ("matthews",),
        "sst2": ("accuracy",),
        "mrpc": ("f1", "accuracy"),
        "stsb": ("pearson", "spearman"),
        "qqp": ("f1", "accuracy"),
        "mnli": ("accuracy",),
        "qnli": ("accuracy",),
        "rte": ("accuracy",),
        "wnli": ("accuracy",),
        "squad1": ("exact", "f1"),
        "squad2": ("best_exact", "best_f1"),
    }


# -- SQuAD -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Norman Conquest", "norman conquest"),
        ("  a   b\tc\n", "b c"),
        ("an apple, another; theatre", "apple another theatre"),  # articles are whole words
        ("U.S.", "us"),
        ("don't", "dont"),
        ("a-b", "ab"),  # punctuation goes first, and takes the word's bounds along
        ("“The”", "“ ”"),  # only ASCII punctuation goes, and an article ends at the marks
        ("THE", ""),
        ("$1,000.50", "100050"),
    ],
)
def test_answers_are_normalised(text, wanted):
    assert squad_metrics.normalized(text) == wanted


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "f1"),
    [
        ("Denver Broncos", "the Denver Broncos.", 1, 1),
        ("Denver", "Denver Broncos", 0, 2 / 3),
        ("to to be", "to be or not to be", 0, 2 * 3 / 9),  # words count as often as they occur
        ("Paris", "London", 0, 0),
        ("", "London", 0, 0),
    ],
)
def test_one_answer(prediction, answer, exact, f1):
    assert squad_metrics.exact(prediction, answer) == exact
    assert squad_metrics.f1(prediction, answer) == pytest.approx(f1)


def test_texts_without_words_agree_only_in_the_second_version():
    assert squad_metrics.f1("", "the") == 1
    assert squad_metrics.f1("a", "the", empty_agree=False) == 0


words = st.sampled_from(["the", "cat", "Cat.", "a", "sat", "on", "mat", "!", "1066"])
texts = st.lists(words, max_size=4).map(" ".join)


@st.composite
def question_sets(draw):
    """Questions with their answers, a prediction for each, and different scores of no answer."""
    count = draw(st.integers(1, 12))
    answers = [draw(st.lists(texts.filter(bool), max_size=3)) for _ in range(count)]
    questions = [Question(str(i), "?", "", tuple((0, text) for text in found)) for i, found in enumerate(answers)]
    predictions = {q.id: draw(texts) for q in questions}
    values = draw(st.lists(st.integers(-50, 50), min_size=count, max_size=count, unique=True))
    return questions, predictions, {q.id: value / 7 for q, value in zip(questions, values, strict=True)}


def dataset(questions):
    qas = [{"id": q.id, "answers": [{"text": text} for _, text in q.answers]} for q in questions]
    return [{"paragraphs": [{"qas": qas}]}]


def official(version):
    return pytest.importorskip(f"official.nlp.tools.squad_evaluate_{version}", reason="pip install tf-models-official")


@given(question_sets())
def test_equals_the_official_script_of_version_2(case):
    questions, predictions, differences = case
    theirs = official("v2_0").evaluate(dataset(questions), predictions, differences)
    plain = import_module("official.nlp.tools.squad_evaluate_v2_0").evaluate(dataset(questions), predictions)
    ours = squad_metrics.scores(questions, predictions, differences, unanswerable=True)
    for name in ("exact", "f1"):
        assert ours[name] == pytest.approx(plain[name], abs=1e-9)
        assert ours[f"best_{name}"] == pytest.approx(theirs[f"final_{name}"], abs=1e-9)
        # A text without words counts as an answer there, and yet agrees with "": more may be reached than is said.
        texts = [*predictions.values(), *(text for q in questions for _, text in q.answers)]
        if any(text and not squad_metrics.normalized(text) for text in texts):
            continue
        threshold = ours[f"best_{name}_threshold"]
        kept = {q: text if differences[q] <= threshold else "" for q, text in predictions.items()}
        reached = squad_metrics.scores(questions, kept, unanswerable=True)
        assert reached[name] == pytest.approx(ours[f"best_{name}"], abs=1e-9)


@given(question_sets())
def test_equals_the_official_script_of_version_1(case):
    questions, predictions, _ = case
    questions = [q for q in questions if q.answers]
    if not questions:
        return
    theirs = official("v1_1").evaluate(dataset(questions), predictions)
    ours = squad_metrics.scores(questions, predictions)
    assert ours["exact"] == pytest.approx(100 * theirs["exact_match"])
    assert ours["f1"] == pytest.approx(100 * theirs["final_f1"])


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(-3, 3), st.booleans(), st.booleans()), min_size=1, max_size=10))
def test_the_best_threshold_is_the_best_of_all_that_there_are(rows):
    """With equal scores too: every threshold is tried, one below all among them."""
    points, scores, has_answer, predicted = (np.array(column) for column in zip(*rows, strict=True))
    points = np.where(has_answer | predicted, points * has_answer, 1.0)  # as the agreement with "" is

    def mean(threshold):
        return 100 * np.mean(np.where(scores <= threshold, points, ~has_answer))

    best, threshold = squad_metrics.best_threshold(points, scores.astype(float), has_answer, predicted)
    assert best == pytest.approx(max(mean(t) for t in range(-4, 4)))
    assert mean(threshold) == pytest.approx(best)


def test_questions_without_a_prediction_are_refused():
    questions = [Question("a", "?", "", ((0, "x"),)), Question("b", "?", "", ((0, "x"),))]
    with pytest.raises(ValueError, match=r"1 of 2 questions have no prediction, e\.g\. 'b'"):
        squad_metrics.scores(questions, {"a": "x"})
