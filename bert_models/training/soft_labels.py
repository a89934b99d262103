"""Learning from a teacher's soft labels: the loss, and a model that trains any student on it with plain `fit`."""

from typing import Any

import keras
from keras import ops


def soft_cross_entropy(logits: Any, teacher_logits: Any, temperature: float = 1.0) -> Any:
    """Cross-entropy of the student's probabilities under the teacher's, of each prediction.

    With p the teacher's and q the student's probabilities, both of logits divided by the temperature T, it is
    - T^2 sum p log q. The factor T^2 keeps the size of the gradients when T changes. It is smallest where q = p, though
    not 0 there: it is then the entropy of p.

    Args:
        logits, teacher_logits: [..., classes], of any floating-point type.
        temperature: above 1, classes that the teacher holds for unlikely count more.

    Returns:
        float32 [...].

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.

    >>> even = soft_cross_entropy(ops.array([[0.0, 0.0]]), ops.array([[3.0, -2.0]]))
    >>> round(float(even[0]), 4)  # log 2, whatever the teacher says
    0.6931
    """
    wanted = ops.softmax(ops.cast(teacher_logits, "float32") / temperature)
    found = ops.log_softmax(ops.cast(logits, "float32") / temperature)
    return -(temperature**2) * ops.sum(wanted * found, axis=-1)


def frozen(teacher: keras.Model) -> keras.Model:
    """The teacher, no longer trainable.

    Raises:
        TypeError: it is no Keras model.
    """
    if not isinstance(teacher, keras.Model):
        raise TypeError(f"the teacher must be a Keras model, got {type(teacher).__name__}.")
    teacher.trainable = False
    return teacher


class SoftLabels(keras.Model):
    """A student that learns to give a teacher's probabilities, without labels or beside them.

    The middle step of pretrain, distil, fine-tune: the teacher is fine-tuned on a task, and the student sees the
    task's texts, or others like them. `compile` it with an optimizer and `fit` it on batches of inputs, or of inputs
    and labels. Afterwards the student is trained; it was not copied.

    Args:
        student: its outputs are logits, [..., classes], or a dict that has them as `key`.
        teacher: likewise. It takes the same inputs, runs without dropout, and is set to not trainable.
        key: name of the logits in the outputs; None: the outputs are the logits.
        temperature: see `soft_cross_entropy`.
        label_share: weight of the cross-entropy with the labels, integers [...], from 0 to 1; the teacher has the rest.

    Raises:
        TypeError: the teacher is no Keras model.
        ValueError: a number out of range; when training begins, logits of other shapes, or labels that are wanted and
            lacking.

    Source: Turc et al. 2019, arXiv:1908.08962, section 3; the cards of the small BERTs.

    >>> import numpy as np
    >>> student, teacher = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]) for _ in range(2))
    >>> distilled = SoftLabels(student, teacher)
    >>> distilled.compile(keras.optimizers.Adam(0.1))
    >>> losses = distilled.fit(np.eye(2), epochs=50, verbose=0).history["loss"]
    >>> losses[-1] < losses[0]
    True
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        *,
        key: str | None = None,
        temperature: float = 1.0,
        label_share: float = 0.0,
        name: str = "soft_labels",
    ):
        check_numbers(temperature, label_share)
        super().__init__(name=name, dtype=student.dtype_policy, autocast=False)
        self.student, self.teacher = student, frozen(teacher)
        self._key, self._temperature, self._label_share = key, temperature, label_share
        self.built = True

    def call(self, inputs, training=None):
        return self._logits(self.student(inputs, training=training), "student")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        wanted = self._logits(self.teacher(x, training=False), "teacher")
        if tuple(wanted.shape[1:]) != tuple(y_pred.shape[1:]):
            raise ValueError(
                f"the teacher's logits have the shape {tuple(wanted.shape)}, the student's {tuple(y_pred.shape)}; both "
                "need the same classes."
            )
        loss = (1 - self._label_share) * soft_cross_entropy(y_pred, wanted, self._temperature)
        if self._label_share:
            if y is None:
                raise ValueError(f"label_share={self._label_share} needs batches of (inputs, labels); got inputs only.")
            logits = ops.cast(y_pred, "float32")
            loss += self._label_share * ops.sparse_categorical_crossentropy(y, logits, from_logits=True)
        return ops.mean(loss) + sum(self.losses)

    def _logits(self, outputs, whose: str):
        if self._key is None:
            return outputs
        if self._key not in outputs:
            raise ValueError(f"the {whose} gives {', '.join(outputs)}, but no {self._key!r}.")
        return outputs[self._key]


def check_numbers(temperature: float, label_share: float) -> None:
    """Refuse numbers that make no sense.

    Raises:
        ValueError: the temperature is not above 0, or the share not from 0 to 1.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; 1 leaves the logits as they are.")
    if not 0 <= label_share <= 1:
        raise ValueError(f"label_share must be from 0 to 1, got {label_share}.")
