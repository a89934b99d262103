"""What `LAMB` and `AdamW` share: Adam's direction, and exclusions by path that travel with a saved model."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from bert_models.training.exclusions import checked_patterns, excluded, same_places, useless


class PathOptimizer(keras.optimizers.Optimizer):
    """A step along Adam's direction, and exclusions by the paths of variables; subclasses may change the direction.

    Keras's own `exclude_from_weight_decay` looks at the last part of a path only, and is lost when a model is saved.
    """

    def __init__(self, learning_rate, weight_decay, beta_1, beta_2, epsilon, exclude_from_weight_decay, **kwargs):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay or 0.0, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        for name in ("beta_1", "beta_2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}.")
        for name in ("epsilon", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}.")
        self._decay_patterns = checked_patterns(exclude_from_weight_decay, "exclude_from_weight_decay")
        self._paths: tuple[str, ...] = ()

    def build(self, variables):
        """Create both moments of every variable, and find out which variables are excluded."""
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])
        # By index, since on TensorFlow the update sees bare tf.Variables, which have no path.
        paths = [getattr(variable, "path", variable.name) for variable in variables]
        # In a loaded model paths may lack the model's name; patterns mean the paths that they were written for.
        self._paths = self._paths if same_places(self._paths, paths) else tuple(paths)
        self._not_decayed = self._excluded(self._decay_patterns, "exclude_from_weight_decay")

    def _excluded(self, patterns: Sequence[str], argument: str) -> frozenset[int]:
        """Indices of the variables excluded; patterns that match none are reported."""
        if unknown := useless(self._paths, patterns):
            ends = sorted({path.rsplit("/", 1)[-1] for path in self._paths})
            warnings.warn(
                f"{self.name}: found in none of the {len(self._paths)} variables' paths: "
                f"{', '.join(map(repr, unknown))}, given as {argument}; the paths end in {', '.join(ends)}. Look at "
                "[v.path for v in model.trainable_variables], or leave the argument out to exclude norms and biases.",
                stacklevel=4,
            )
        return excluded(self._paths, patterns)

    def decays(self, variable) -> bool:
        """Whether the optimizer, once built, decays this variable."""
        return self.weight_decay > 0 and self._get_variable_index(variable) not in self._not_decayed

    def apply(self, grads, trainable_variables=None):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # The gradient of an embedding table comes as slices, one for every time that a token occurs. Norms and
            # squares need their sum.
            grads = [tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]
        super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        """One step of one variable."""
        direction, _ = self.direction(gradient, variable)
        self.assign_sub(variable, ops.cast(ops.cast(learning_rate, direction.dtype) * direction, variable.dtype))

    def direction(self, gradient, variable):
        """m / (sqrt(v) + epsilon) with both moments corrected, plus decay times weight; with the weight."""
        index = self._get_variable_index(variable)
        # In half precision the squares that a norm sums up would overflow.
        dtype = keras.backend.result_type(keras.backend.standardize_dtype(variable.dtype), "float32")
        gradient, weight = ops.cast(gradient, dtype), ops.cast(variable, dtype)
        m, v = self._momentums[index], self._velocities[index]
        new_m = self.beta_1 * ops.cast(m, dtype) + (1 - self.beta_1) * gradient
        new_v = self.beta_2 * ops.cast(v, dtype) + (1 - self.beta_2) * ops.square(gradient)
        self.assign(m, new_m)
        self.assign(v, new_v)
        step = ops.cast(self.iterations + 1, dtype)
        corrected_v = new_v / _correction(self.beta_2, step)
        direction = new_m / _correction(self.beta_1, step) / (ops.sqrt(corrected_v) + self.epsilon)
        return (direction + self.weight_decay * weight if self.decays(variable) else direction), weight

    def _clip_gradients(self, grads):
        # Keras clips on each of TensorFlow's replicas by itself, before their gradients are summed. The norm is of the
        # sum, or results would depend on how many there are.
        if self.global_clipnorm and keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            replicas = tf.distribute.get_replica_context()
            if replicas is not None and replicas.num_replicas_in_sync > 1:
                size = tf.linalg.global_norm(replicas.all_reduce(tf.distribute.ReduceOp.SUM, grads))
                return [g * (self.global_clipnorm / tf.maximum(size, self.global_clipnorm)) for g in grads]
        return super()._clip_gradients(grads)

    def _all_reduce_sum_gradients(self, grads_and_vars):
        # One replica has nothing to sum up. TensorFlow's sum has a custom gradient, by which it would keep the graph of
        # every step that was ever compiled, with all the model's variables and the optimizer's.
        import tensorflow as tf

        replicas = tf.distribute.get_replica_context()
        if replicas is not None and replicas.num_replicas_in_sync == 1:
            return grads_and_vars
        return super()._all_reduce_sum_gradients(grads_and_vars)

    def _apply_weight_decay(self, variables):
        """Nothing: decay is part of the direction, as the equations have it."""

    def _get_current_learning_rate(self):
        # Keras asks a schedule about the number of batches. With accumulation they are more than the updates, and
        # warm-up would be over too early: accumulating must not differ from larger batches.
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Refused: what it sets would be lost with a saved model. Exclusions are arguments of the optimizer."""
        kind = type(self).__name__
        raise ValueError(
            f"{self.name}: exclusions are set when the optimizer is made; write {kind}(exclude_from_weight_decay=[...])"
            " with regular expressions over the variables' paths."
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "exclude_from_weight_decay": list(self._decay_patterns),
            "paths": list(self._paths),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The optimizer of a config; that of a built one holds the paths of its variables."""
        arguments = {name: value for name, value in config.items() if name != "paths"}
        optimizer = super().from_config(arguments, custom_objects)
        optimizer._paths = tuple(config.get("paths", ()))
        return optimizer


def _correction(beta: float, step):
    """1 - beta^step. By expm1: as a float32, 1 - 0.999 is off in the fifth digit."""
    return -ops.expm1(step * (math.log(beta) if beta else -math.inf))
