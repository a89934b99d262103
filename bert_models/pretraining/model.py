"""`PretrainingModel`: an encoder with masked-LM and next-sentence heads, trained by plain `fit`."""

from typing import Any

import keras
from keras import ops

from bert_models.heads import MaskedLM
from bert_models.inputs import INPUT_NAMES, POSITIONS_NAME
from bert_models.pretraining.records import LABELS
from bert_models.training.soft_labels import check_numbers, frozen, soft_cross_entropy


class PretrainingModel(keras.Model):
    """Predicts masked tokens and, if wanted, whether the second part of a pair is another document's.

    Compile it with an optimizer and fit it on what `reading.dataset` gives: a batch holds its own labels. The loss is
    the mean cross-entropy over the batch's masked tokens, plus that of the next-sentence labels.

    With a teacher, a masked-LM model with the same vocabulary, the first term is the mean of the cross-entropies with
    the teacher's probabilities and with the tokens themselves, weighted by `label_share`.

    Args:
        mlm: an encoder with its masked-LM head. It is used, not copied: training this model trains it.
        next_sentence: predict `next_sentence_labels` too, from the pooled output. Without it nothing trains the pooler.
        teacher: a trained `MaskedLM`; it runs without dropout and is set to not trainable.
        temperature, label_share: see `SoftLabels`.

    Attributes:
        mlm, teacher: as given.
        next_sentence: the Dense layer of the two logits, or None.

    While it trains, `loss`, `masked_loss` and `masked_accuracy` are told, over all masked tokens since the last line,
    and `next_sentence_loss`, `next_sentence_accuracy`, `soft_loss` where there are such.

    Raises:
        TypeError: `mlm` or the teacher is no `MaskedLM`.
        ValueError: the teacher has another vocabulary; a number is out of range.

    Source: Devlin et al. 2018, arXiv:1810.04805, section 3.1 and appendix A.2; with a teacher: Hinton et al. 2015,
    arXiv:1503.02531.

    >>> from bert_models import BertConfig, build_encoder
    >>> encoder = build_encoder(BertConfig(vocab_size=9, hidden_size=4, num_heads=2, num_layers=1))
    >>> model = PretrainingModel(MaskedLM(encoder), next_sentence=False)
    >>> model.compile(keras.optimizers.Adam())
    >>> batch = {name: ops.ones((2, 5), "int32") for name in INPUT_NAMES}
    >>> places = {f"masked_lm_{name}": ops.ones((2, 2), "int32") for name in ("positions", "ids")}
    >>> sorted(model.train_on_batch({**batch, **places, "masked_lm_weights": ops.ones((2, 2))}, return_dict=True))
    ['loss', 'masked_accuracy', 'masked_loss']
    """

    def __init__(
        self,
        mlm: MaskedLM,
        *,
        next_sentence: bool = True,
        teacher: MaskedLM | None = None,
        temperature: float = 1.0,
        label_share: float = 0.5,
        name: str = "pretraining",
    ):
        _check_mlm(mlm, "mlm")
        check_numbers(temperature, label_share)
        # The policy decides whether `compile` scales losses, as float16 needs it.
        super().__init__(name=name, dtype=mlm.transform.dtype_policy, autocast=False)
        self.mlm, config = mlm, mlm.encoder.config
        self.next_sentence = None
        if next_sentence:
            init = keras.initializers.TruncatedNormal(stddev=config.init_stddev)
            policy = mlm.transform.dtype_policy
            self.next_sentence = keras.layers.Dense(2, kernel_initializer=init, dtype=policy, name="next_sentence")
            self.next_sentence.build((None, config.hidden_size))
        self.teacher = None
        if teacher is not None:
            _check_mlm(teacher, "the teacher")
            if teacher.encoder.config.vocab_size != config.vocab_size:
                raise ValueError(
                    f"the teacher has {teacher.encoder.config.vocab_size} words, the student {config.vocab_size}; soft "
                    "labels need the same vocabulary."
                )
            self.teacher = frozen(teacher)
        self._temperature, self._label_share = temperature, label_share
        names = ["masked_loss", "masked_accuracy"]
        names += ["next_sentence_loss", "next_sentence_accuracy"] if next_sentence else []
        names += ["soft_loss"] if teacher is not None else []
        self._means = {name: keras.metrics.Mean(name) for name in names}
        self.built = True

    def call(self, inputs, training=None):
        outputs = self.mlm(_mlm_inputs(inputs), training=training)
        found = {"mlm_logits": outputs["mlm_logits"]}  # [B, P, V]
        if self.next_sentence is not None:
            found["next_sentence_logits"] = self.next_sentence(outputs["pooled_output"])  # [B, 2]
        return found

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        weights = x["masked_lm_weights"]  # [B, P]
        loss = self._told("masked", x["masked_lm_ids"], y_pred["mlm_logits"], weights)
        if self.teacher is not None:
            wanted = self.teacher(_mlm_inputs(x), training=False)["mlm_logits"]
            soft = soft_cross_entropy(y_pred["mlm_logits"], wanted, self._temperature)  # [B, P]
            self._means["soft_loss"].update_state(soft, weights)
            loss = self._label_share * loss + (1 - self._label_share) * _mean(soft, weights)
        if self.next_sentence is not None:
            labels = ops.squeeze(x[LABELS], -1)  # [B]
            logits = y_pred["next_sentence_logits"]
            loss = loss + self._told("next_sentence", labels, logits, ops.ones_like(labels, "float32"))
        return loss + sum(self.losses) / _replicas()

    def _told(self, task: str, labels: Any, logits: Any, weights: Any) -> Any:
        """The task's mean cross-entropy; its metrics are updated."""
        logits = ops.cast(logits, "float32")  # sums over a vocabulary are not for half precision
        losses = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        right = ops.cast(ops.equal(ops.argmax(logits, -1), ops.cast(labels, "int32")), "float32")
        self._means[f"{task}_loss"].update_state(losses, weights)
        self._means[f"{task}_accuracy"].update_state(right, weights)
        return _mean(losses, weights)


def _mlm_inputs(batch):
    return {name: batch[name] for name in (*INPUT_NAMES, POSITIONS_NAME)}


def _mean(values, weights):
    """The mean over the batch; on each of TensorFlow's replicas its part of it, as Keras adds up their gradients."""
    total = ops.sum(weights)
    if _replicas() > 1:
        import tensorflow as tf

        total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, total)
    # A batch without masked tokens cannot be written; zero weights in all of it would divide by zero.
    return ops.sum(values * weights) / ops.maximum(total, 1e-5)


def _replicas() -> int:
    """Replicas of a TensorFlow strategy that compute this batch together. On other backends the batch is whole."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def _check_mlm(value: Any, name: str) -> None:
    if not isinstance(value, MaskedLM):
        raise TypeError(f"{name} must be a MaskedLM, got {type(value).__name__}; MaskedLM(encoder) makes one.")
