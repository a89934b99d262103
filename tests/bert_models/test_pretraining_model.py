"""The pretraining model's losses and metrics against numpy, and learning from soft labels."""

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bert_models.config import BertConfig
from bert_models.encoder import build_encoder
from bert_models.heads import MaskedLM
from bert_models.kinds import ExpandCondense
from bert_models.pretraining.model import PretrainingModel
from bert_models.training.optimizers import LAMB, AdamW
from bert_models.training.soft_labels import SoftLabels, soft_cross_entropy

TINY = {"vocab_size": 11, "hidden_size": 8, "num_heads": 2, "num_layers": 1, "max_positions": 8, "init_stddev": 0.5}
TINY |= {"hidden_dropout": 0.0, "attention_dropout": 0.0}


def mlm(dtype=None, seed=0, **fields):
    keras.utils.set_random_seed(seed)
    return MaskedLM(build_encoder(BertConfig(**{**TINY, **fields}), dtype=dtype))


def batch(rows=4, seed=0):
    draw = np.random.default_rng(seed)
    found = {"input_word_ids": draw.integers(1, 11, (rows, 8)), "input_mask": np.ones((rows, 8))}
    found |= {"input_type_ids": draw.integers(0, 2, (rows, 8)), "masked_lm_positions": draw.integers(0, 8, (rows, 3))}
    found |= {"masked_lm_ids": draw.integers(1, 11, (rows, 3)), "next_sentence_labels": draw.integers(0, 2, (rows, 1))}
    found = {name: values.astype("int32") for name, values in found.items()}
    return found | {"masked_lm_weights": (draw.random((rows, 3)) < 0.7).astype("float32")}


def log_softmax(logits):
    logits = logits.astype("float64")
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def expected(logits, ids, weights):
    """Weighted means of the cross-entropy and of what is right, one prediction after the other."""
    total = right = 0.0
    for place in np.ndindex(ids.shape):
        total -= weights[place] * log_softmax(logits[place])[ids[place]]
        right += weights[place] * (logits[place].argmax() == ids[place])
    return total / weights.sum(), right / weights.sum()


@pytest.mark.parametrize("label_share", [None, 0.0, 0.3])
@pytest.mark.parametrize("next_sentence", [True, False])
def test_losses_and_metrics_equal_numpy(next_sentence, label_share):
    teacher = None if label_share is None else mlm(seed=5)
    share = {} if label_share is None else {"label_share": label_share, "temperature": 2.0}
    model = PretrainingModel(mlm(), next_sentence=next_sentence, teacher=teacher, **share)
    model.compile(AdamW(0.0))
    x = batch()
    found = model.evaluate(keras.tree.map_structure(np.asarray, x), batch_size=4, return_dict=True, verbose=0)
    outputs = {name: np.asarray(value) for name, value in model(x).items()}
    loss, accuracy = expected(outputs["mlm_logits"], x["masked_lm_ids"], x["masked_lm_weights"])
    assert found["masked_loss"] == pytest.approx(loss, rel=1e-5)
    assert found["masked_accuracy"] == pytest.approx(accuracy, rel=1e-5)
    if teacher is not None:
        inputs = {name: x[name] for name in x if name.startswith("input") or name.endswith("positions")}
        wanted = np.exp(log_softmax(np.asarray(teacher(inputs)["mlm_logits"]) / 2))
        soft = -4 * (wanted * log_softmax(outputs["mlm_logits"] / 2)).sum(-1)
        soft = (soft * x["masked_lm_weights"]).sum() / x["masked_lm_weights"].sum()
        assert found["soft_loss"] == pytest.approx(soft, rel=1e-5)
        loss = label_share * loss + (1 - label_share) * soft
    if next_sentence:
        labels = x["next_sentence_labels"][:, 0]
        pairs, right = expected(outputs["next_sentence_logits"], labels, np.ones(4))
        assert found["next_sentence_accuracy"] == pytest.approx(right)
        loss += pairs
    assert found["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "optimizer"), [("mixed_bfloat16", LAMB), ("mixed_float16", AdamW)])
def test_mixed_precision_steps_as_float32(dtype, optimizer):
    losses = {}
    for policy in ("float32", dtype):
        model = PretrainingModel(mlm(policy, hidden_size=128, feed_forward=ExpandCondense(), init_stddev=0.02))
        model.compile(optimizer(1e-3))
        losses[policy] = [float(model.train_on_batch(batch(), return_dict=True)["masked_loss"]) for _ in range(4)]
        assert {v.dtype for v in model.trainable_variables} == {"float32"}
    assert losses[dtype] == pytest.approx(losses["float32"], rel=0.02)  # a bfloat16 has 8 bits
    assert losses[dtype][-1] < losses[dtype][0]


def test_teacher_does_not_change_and_student_comes_nearer():
    teacher = mlm(seed=5)
    before = [np.array(v) for v in teacher.variables]
    model = PretrainingModel(mlm(), next_sentence=False, teacher=teacher, label_share=0.0)
    model.compile(AdamW(1e-2))
    losses = [float(model.train_on_batch(batch(), return_dict=True)["soft_loss"]) for _ in range(30)]
    assert losses[-1] < losses[0]
    for a, b in zip(before, teacher.variables, strict=True):
        np.testing.assert_array_equal(a, np.array(b))
    assert {id(v) for v in model.trainable_variables} == {id(v) for v in model.mlm.trainable_variables}


@settings(max_examples=25, deadline=None)
@example(670, 2, 0.3046875)  # the student is as sure as the teacher: the loss is nearly 0
@given(st.integers(0, 1000), st.integers(2, 6), st.floats(0.3, 5))
def test_soft_cross_entropy_is_least_at_the_teacher_and_scales_with_temperature(seed, classes, temperature):
    draw = np.random.default_rng(seed)
    student, teacher = draw.normal(size=(2, 3, classes)).astype("float32")
    at_teacher = np.asarray(soft_cross_entropy(teacher, teacher, temperature))
    found = np.asarray(soft_cross_entropy(student, teacher, temperature))
    student, teacher = np.float64(student) / temperature, np.float64(teacher) / temperature
    wanted = -(temperature**2) * (np.exp(log_softmax(teacher)) * log_softmax(student)).sum(-1)
    # A logarithm near 0 is the difference of logits: it is off by what float32 rounds off those.
    rounded_off = 8 * np.finfo("float32").eps * temperature**2 * max(np.abs(student).max(), np.abs(teacher).max(), 1)
    np.testing.assert_allclose(found, wanted, 1e-5, rounded_off)
    assert (found >= at_teacher - rounded_off - 1e-5 * at_teacher).all()


def test_soft_labels_with_labels_equals_numpy():
    def dense(seed):
        keras.utils.set_random_seed(seed)
        return keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])

    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(6, 5)).astype("float32"), draw.integers(0, 3, 6)
    student, teacher = dense(0), dense(1)
    model = SoftLabels(student, teacher, temperature=1.5, label_share=0.25)
    model.compile(AdamW(0.0))
    wanted = np.exp(log_softmax(np.asarray(teacher(x)) / 1.5))
    logits = np.asarray(student(x))
    soft = -(1.5**2) * (wanted * log_softmax(logits / 1.5)).sum(-1).mean()
    hard, _ = expected(logits, y, np.ones(6))
    assert float(model.evaluate(x, y, verbose=0)) == pytest.approx(0.75 * soft + 0.25 * hard, rel=1e-5)
    with pytest.raises(ValueError, match=r"label_share=0.25 needs batches of \(inputs, labels\)"):
        model.evaluate(x, verbose=0)
    other = SoftLabels(student, keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)]))
    other.compile(AdamW(0.0))
    with pytest.raises(ValueError, match=r"teacher's logits have the shape \(.*, 4\), the student's \(.*, 3\)"):
        other.evaluate(x, verbose=0)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"teacher": "mlm"}, TypeError, "the teacher must be a MaskedLM, got str"),
        ({"temperature": 0}, ValueError, "temperature must be above 0, got 0"),
        ({"label_share": 2}, ValueError, "label_share must be from 0 to 1, got 2"),
    ],
)
def test_refused(given, error, message):
    with pytest.raises(error, match=message):
        PretrainingModel(mlm(), **given)


def test_refuses_a_teacher_with_other_words():
    with pytest.raises(ValueError, match="the teacher has 12 words, the student 11"):
        PretrainingModel(mlm(), teacher=mlm(vocab_size=12))
