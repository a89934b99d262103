"""`LAMB` and `AdamW` for Keras 3, on every backend, with exclusions by path that travel with a saved model."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bert_models.training.exclusions import NORMS_AND_BIASES, checked_patterns
from bert_models.training.path_optimizer import PathOptimizer


@keras.saving.register_keras_serializable(package="bert_models")
class LAMB(PathOptimizer):
    """LAMB, by the equations of its paper, with the defaults of Lambert's card.

    With g the gradient, m and v the running means of g and g^2, corrected for their start at 0, a step is

        u = m / (sqrt(v) + epsilon) + weight_decay * w;    w = w - learning_rate * |w| / |u| * u

    where |.| is the norm of one variable. |w| / |u|, the trust ratio, is 1 where |w| is 0. Variables excluded from
    decay have u without its second term, variables excluded from layer adaptation a trust ratio of 1.
    `keras.optimizers.Lamb` subtracts the decay beside the trust ratio instead, and adapts all variables.

    Args:
        learning_rate: number, or a schedule such as `WarmupDecay`; a schedule counts updates, not batches.
        weight_decay: how much of a variable is added to its direction.
        beta_1, beta_2, epsilon: as above. The paper has a `beta_2` of 0.999.
        exclude_from_weight_decay: regular expressions; a variable is excluded if one is found (`re.search`) in its
            path, e.g. "block_0/attention_norm/gamma". The default fits LayerNorms and all biases.
        exclude_from_layer_adaptation: likewise; None: as `exclude_from_weight_decay`. [] adapts all.
        kwargs: as in every Keras optimizer: `global_clipnorm`, `gradient_accumulation_steps`, `use_ema`, `name` ...

    Raises:
        TypeError, ValueError: exclusions that are no list of regular expressions; numbers out of range.

    Warns: when it is built, of patterns that match no variable.

    Source: You et al. 2019, arXiv:1904.00962, algorithm 2 with phi(z) = z; the card of Lambert.

    >>> from bert_models import build
    >>> encoder = build("tn_bert", num_layers=1, hidden_size=128, num_heads=2, vocab_size=9)
    >>> optimizer = LAMB(2.5e-3, exclude_from_layer_adaptation=["bias$"])
    >>> optimizer.build(encoder.trainable_variables)
    >>> core, gamma = (next(v for v in encoder.trainable_variables if v.name == name) for name in ("core_0", "gamma"))
    >>> optimizer.decays(core), optimizer.decays(gamma), optimizer.adapts(gamma)
    (True, False, True)
    """

    def __init__(
        self,
        learning_rate=1e-3,
        weight_decay: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        epsilon: float = 1e-6,
        exclude_from_weight_decay: Sequence[str] = NORMS_AND_BIASES,
        exclude_from_layer_adaptation: Sequence[str] | None = None,
        **kwargs,
    ):
        super().__init__(learning_rate, weight_decay, beta_1, beta_2, epsilon, exclude_from_weight_decay, **kwargs)
        patterns = exclude_from_layer_adaptation
        self._adaptation_patterns = None
        if patterns is not None:
            self._adaptation_patterns = checked_patterns(patterns, "exclude_from_layer_adaptation")

    def build(self, variables):
        """Create both moments of every variable, and find out which variables are excluded from what."""
        if self.built:
            return
        super().build(variables)
        self._not_adapted = self._not_decayed
        if self._adaptation_patterns is not None:
            self._not_adapted = self._excluded(self._adaptation_patterns, "exclude_from_layer_adaptation")

    def adapts(self, variable) -> bool:
        """Whether the optimizer, once built, scales the step of this variable by its trust ratio."""
        return self._get_variable_index(variable) not in self._not_adapted

    def direction(self, gradient, variable):
        """Adam's direction times the trust ratio; with the weight."""
        direction, weight = super().direction(gradient, variable)
        if self.adapts(variable):
            size = _norm(weight)
            direction = ops.where(size > 0, ops.divide_no_nan(size, _norm(direction)), 1) * direction
        return direction, weight

    def get_config(self) -> dict[str, Any]:
        patterns = self._adaptation_patterns
        kept = None if patterns is None else list(patterns)
        return {**super().get_config(), "exclude_from_layer_adaptation": kept}


def _norm(x):
    return ops.sqrt(ops.sum(ops.square(x)))


@keras.saving.register_keras_serializable(package="bert_models")
class AdamW(PathOptimizer):
    """AdamW with exclusions by path, and the defaults of BERT: gradients clipped to a common norm of 1.

    In the words of `LAMB`, whose arguments it shares, a step is w = w - learning_rate * u. The corrections of m and v
    are those of the paper; BERT's first release had none, so its early steps were up to 6.6 times as long.
    `keras.optimizers.AdamW` and TensorFlow Model Garden add `epsilon` to the root of v before it is corrected.

    Args:
        learning_rate, weight_decay, beta_1, beta_2, epsilon, exclude_from_weight_decay, kwargs: as in `LAMB`.
        global_clipnorm: largest norm of all gradients together; larger ones are scaled down to it. None: as they are.

    Source: Loshchilov & Hutter 2017, arXiv:1711.05101, algorithm 2; Devlin et al. 2018, arXiv:1810.04805, appendix A.2.

    >>> AdamW(3e-5).get_config()["exclude_from_weight_decay"]
    ['gamma$', 'beta$', 'bias$']
    """

    def __init__(
        self,
        learning_rate=1e-3,
        weight_decay: float = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        exclude_from_weight_decay: Sequence[str] = NORMS_AND_BIASES,
        global_clipnorm: float | None = 1.0,
        **kwargs,
    ):
        kwargs["global_clipnorm"] = global_clipnorm
        super().__init__(learning_rate, weight_decay, beta_1, beta_2, epsilon, exclude_from_weight_decay, **kwargs)
