"""`finetune(teacher=...)`: what is minimised, against sums in numpy, and that students learn by it."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from backends import ON_TENSORFLOW, passes_on

from bert_models import BertConfig, build_encoder
from bert_models.finetuning.evaluation import evaluate, predict, prepared
from bert_models.finetuning.finetune import _beginning, finetune
from bert_models.finetuning.heads import encoder_in, has_head, model_for
from bert_models.finetuning.lessons import soft_labels
from bert_models.finetuning.recipes import Recipe
from bert_models.finetuning.squad import Question
from bert_models.finetuning.tasks import TASKS, Example
from bert_models.heads import MaskedLM
from bert_models.text.tokenize import Tokenizer
from bert_models.text.vocabulary import to_backend

WORDS = ["good", "fine", "bad", "poor", "film", "the", "very", "is"]
TOKENIZER = Tokenizer(to_backend(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS], {}), max_length=32)
SPANS = replace(TASKS["squad1"], max_length=24, stride=8, max_question=6)
FAST = Recipe(learning_rate=1e-2, epochs=10, batch_size=16, dropout=0.0)


def encoder(seed=0, layers=1, init_stddev=0.5):
    keras.utils.set_random_seed(seed)
    sizes = {"hidden_size": 16, "num_heads": 2, "num_layers": layers, "max_positions": 32}
    config = BertConfig(vocab_size=TOKENIZER.vocab_size, init_stddev=init_stddev, hidden_dropout=0.0, **sizes)
    return build_encoder(replace(config, attention_dropout=0.0))


def reviews(count, seed=0):
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        label = int(draw.integers(2))
        words = [*draw.choice(WORDS[4:], draw.integers(1, 6)), draw.choice(WORDS[2 - 2 * label : 4 - 2 * label])]
        found.append(Example(" ".join(draw.permutation(words)), None, label))
    return found


EXAMPLES = {
    "sst2": reviews(12),
    "stsb": [Example(one.first, "the film", 1.0 + i % 4) for i, one in enumerate(reviews(12))],
    "squad1": [Question(str(i), "is the film", f"the film is {w}", ((12, w),)) for i, w in enumerate(WORDS[:4])],
}


def pieces(name):
    """Prepared examples, and a student and a teacher with other weights."""
    task = SPANS if name == "squad1" else TASKS[name]
    train = prepared(task, TOKENIZER, {"train": EXAMPLES[name]})["train"]
    return train, *(model_for(task, encoder(seed), dropout=0.0, seed=seed) for seed in (1, 2))


def loss_of_one_batch(lesson, student):
    """As `fit` computes it."""
    trainee = lesson.trainee(student)
    trainee.compile("sgd")
    inputs, targets = lesson.train.rows.batch(range(len(lesson.train.rows)))
    return float(trainee.train_on_batch(inputs, targets))


def softmax(logits):
    raised = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # of a pooler that a head for answers does not read
@pytest.mark.parametrize("name", ["sst2", "squad1"])
@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.0), (2.0, 0.3)])
def test_the_loss_is_the_cross_entropy_with_the_teacher(name, temperature, share):
    train, student, teacher = pieces(name)
    inputs, targets = train.rows.batch(range(len(train.rows)))
    found, wanted = (np.asarray(model.predict_on_batch(inputs), "float64") for model in (student, teacher))
    if name == "squad1":  # a row's tokens are the classes
        found, wanted = found.transpose(0, 2, 1), wanted.transpose(0, 2, 1)
    hot = np.eye(found.shape[-1])[targets]
    soft = -(temperature**2) * (softmax(wanted / temperature) * np.log(softmax(found / temperature) + 1e-300)).sum(-1)
    hard = -(hot * np.log(softmax(found) + 1e-300)).sum(-1)
    expected = ((1 - share) * soft + share * hard).mean()
    lesson = soft_labels(train, teacher, temperature, share)
    assert loss_of_one_batch(lesson, student) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_of_a_score_the_teacher_gives_the_target(share):
    train, _, teacher = pieces("stsb")
    lesson = soft_labels(train, teacher, label_share=share)
    wanted = share * train.rows.targets + (1 - share) * predict(teacher, train)
    np.testing.assert_allclose(lesson.train.rows.targets, wanted, rtol=1e-6)
    assert lesson.train.rows.targets.dtype == train.rows.targets.dtype
    assert lesson.trainee(teacher) is teacher  # plain squared error


def test_the_head_of_the_same_task_is_kept_and_an_encoder_gets_a_new_one():
    train, student, _ = pieces("stsb")
    inputs = train.rows.batch(range(4))[0]
    kept = _beginning(student, train, "pooled", 0.0, seed=9)
    np.testing.assert_array_equal(kept.predict_on_batch(inputs), student.predict_on_batch(inputs))
    assert kept is not student
    made = _beginning(encoder_in(student), train, "pooled", 0.0, seed=9)
    assert not np.allclose(made.predict_on_batch(inputs), student.predict_on_batch(inputs))


def test_encoders_are_found():
    own = encoder()
    assert encoder_in(own) is own
    assert encoder_in(MaskedLM(own)) is own
    assert encoder_in(model_for(TASKS["mnli"], own)) is own
    assert encoder_in(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])) is None
    assert has_head(model_for(TASKS["mnli"], own), TASKS["mnli"])
    assert not has_head(model_for(TASKS["mnli"], own), TASKS["rte"])
    assert not has_head(own, TASKS["mnli"])


@pytest.mark.parametrize(("before", "asked", "after"), [(0.1, 0.5, 0.5), (0.1, 0.0, 0.0), (0.0, 0.5, 0.0)])
def test_a_kept_head_has_the_dropout_of_the_recipe(before, asked, after):
    """Where it had some before; without, nothing in it draws numbers."""
    given = model_for(TASKS["mnli"], encoder(), dropout=before)
    train = SimpleNamespace(task=TASKS["mnli"])
    begun = _beginning(given, train, "pooled", asked, seed=1)
    assert begun.get_layer("head_dropout").rate == after
    assert given.get_layer("head_dropout").rate == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sst2", "squad1"])
def test_a_student_comes_to_answer_as_its_teacher(name):
    task = SPANS if name == "squad1" else TASKS[name]
    train = EXAMPLES["squad1"] * 20 if name == "squad1" else reviews(160)
    data = {"train": train, "dev": train[:40]}
    given = {"tokenizer": TOKENIZER, "recipe": FAST, "output": "mean"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        teacher = finetune(encoder(layers=2, init_stddev=0.2), task, data, **given).model
        # Labels that say the opposite are not looked at.
        wrong = data if name == "squad1" else {**data, "train": [replace(one, label=1 - one.label) for one in train]}
        student = finetune(encoder(seed=1, init_stddev=0.2), task, wrong, teacher=teacher, keep="best", **given).model
    for model in (teacher, student):
        assert min(evaluate(model, task, data, tokenizer=TOKENIZER)["dev"].values()) > 90


@pytest.mark.slow
@ON_TENSORFLOW
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_pass_this_file(backend):
    passes_on(backend, __file__, "-m", "slow or not slow")
