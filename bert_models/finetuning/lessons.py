"""What a task's model learns from: the task's labels, or a teacher's answers instead of them or beside them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import keras

from bert_models.finetuning.evaluation import Prepared, choose_compiler, predict
from bert_models.finetuning.heads import check_outputs
from bert_models.finetuning.tasks import SpanTask
from bert_models.training.soft_labels import SoftLabels, check_numbers, frozen


@dataclass(frozen=True, eq=False)
class Lesson:
    """What `fit` is given.

    Args:
        train: the examples, with the targets that are learnt.
        trainee: makes of a compiled model what is fitted in its place and trains it.
    """

    train: Prepared
    trainee: Callable[[keras.Model], keras.Model]


def labels(train: Prepared) -> Lesson:
    """The labels as they are."""
    return Lesson(train, lambda model: model)


def soft_labels(train: Prepared, teacher: keras.Model, temperature: float = 1.0, label_share: float = 0.0) -> Lesson:
    """A teacher's answers to the examples, by `SoftLabels`.

    Of a class it is the probabilities; of an answer, those of each token to be its first and to be its last; of a
    score, which has no probabilities, the teacher's score, and with labels the mean of both, weighted.

    Args:
        teacher: a model of the same task, e.g. `FineTuned.model`; it is set to not trainable.
        temperature, label_share: see `SoftLabels`.

    Raises:
        TypeError: the teacher is no Keras model.
        ValueError: it is of another task, or a number is out of range.
    """
    check_numbers(temperature, label_share)
    choose_compiler(frozen(teacher))
    one = teacher.predict_on_batch(train.rows.batch([0])[0])
    check_outputs(train.task, getattr(one, "shape", None), "the teacher")
    if isinstance(train.task, SpanTask):
        by_token = _over_tokens(teacher)
        return Lesson(train, lambda model: _taught(_over_tokens(model), by_token, temperature, label_share))
    if train.task.labels is None:
        scores = predict(teacher, train)
        targets = (label_share * train.rows.targets + (1 - label_share) * scores).astype("float32")
        return Lesson(replace(train, rows=replace(train.rows, targets=targets)), lambda model: model)
    return Lesson(train, lambda model: _taught(model, teacher, temperature, label_share))


def _taught(student: keras.Model, teacher: keras.Model, temperature: float, label_share: float) -> SoftLabels:
    return SoftLabels(student, teacher, temperature=temperature, label_share=label_share)


def _over_tokens(model: keras.Model) -> keras.Model:
    """[B, S, 2] -> [B, 2, S]: the classes of a span's logits are the tokens of its row. The weights are shared."""
    return keras.Model(model.input, keras.layers.Permute((2, 1))(model.output), name=f"{model.name}_over_tokens")
