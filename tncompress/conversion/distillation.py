"""A model that learns to give what another one gives: what `recover` trains, through plain `keras.Model.fit`.

Every tensor that is matched is measured in the same unit: the mean squared difference from the teacher's, divided by
the variance of the teacher's. 0 is a copy, 1 is as good as the teacher's mean; so tensors of all kinds add up sensibly.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.structures import as_floats
from tncompress.conversion.surgery import first_line
from tncompress.conversion.walking import locate, walk
from tncompress.conversion.watching import changed_calls

Objective = Callable[[Any, Any], Any]
Batch = tuple[Any, np.ndarray | None]  # what the model takes, and which positions count: [batch, length]


@dataclass(frozen=True)
class Target:
    """One tensor that the student is to match.

    Args:
        variance: of the teacher's values about their mean, over the positions that count.
        weight: in the loss.
        masked: its first two axes are those of the mask.
    """

    variance: float
    weight: float
    masked: bool


# What the tensors of one kind weigh together.
WEIGHTS = {"output": 1.0, "layer": 1.0, "objective": 2.0, "similarity": 1.0}
CONSTANT = 1e-6  # a variance below this part of the mean square is rounding


class Distillation(keras.Model):
    """Student and teacher; the loss is how far the student's tensors are from the teacher's. No labels.

    Both run as in inference: no dropout, and batch normalisation with its stored statistics.

    Args:
        student: trained, in place.
        teacher: computes the targets; see `frozen`.
        objective: a function of outputs and inputs; None: only the models' own outputs are matched.
        layers: paths of layers whose outputs are matched too.
        outputs: match the models' outputs; else the layers and the objective alone.
    """

    def __init__(
        self,
        student: keras.Model,
        teacher: keras.Model,
        objective: Objective | None,
        layers: Sequence[str] = (),
        outputs: bool = True,
    ):
        super().__init__(name="distillation", autocast=False)
        self.student, self.teacher = student, teacher
        self._objective, self._outputs = objective, outputs
        self._hidden = [(model, locate(model, list(layers))) for model in (student, teacher)] if layers else []
        self._targets: dict[str, Target] = {}
        self.built = True

    def tensors(self, model: keras.Model, inputs: Any) -> dict[str, Any]:
        """What is matched, by name: floating-point outputs, hidden layers, the objective."""
        seen: dict[str, Any] = {}
        hidden = next((layers for owner, layers in self._hidden if owner is model), {})
        with _watched_outputs(hidden, lambda path, value: seen.update(_named(f"layer {path}", value))):
            outputs = keras.tree.map_structure(_float32, model(inputs, training=False))
        found = {**(_named("output", outputs) if self._outputs else {}), **seen}
        if self._objective is not None:
            found.update(_of_objective(self._objective(outputs, inputs)))
        return found

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Compare the two models' tensors and take the teacher's variances, on a few batches.

        Raises:
            ValueError: if a model does not take the batches, or what they give differs or is not finite.
        """
        variances: dict[str, list[float]] = {}
        masked: dict[str, bool] = {}
        for number, (inputs, mask) in enumerate(batches):
            wanted = self._checked(self.teacher, inputs)
            if number == 0:  # one shows whether they match
                _check_alike(self._checked(self.student, inputs), wanted)
            for name, value in wanted.items():
                has_axes = _has_axes_of(value, mask)
                masked[name] = masked.get(name, True) and has_axes  # of one batch it may be chance
                variances.setdefault(name, []).append(_variance(value, mask if has_axes else None))
        groups = Counter(map(_group, variances))
        self._targets = {
            name: Target(float(np.mean(found)) or 1.0, WEIGHTS[_group(name)] / groups[_group(name)], masked[name])
            for name, found in variances.items()
        }

    def _checked(self, model: keras.Model, inputs: Any) -> dict[str, Any]:
        role = "student" if model is self.student else "teacher"
        try:
            found = self.tensors(model, inputs)
        except Exception as error:
            raise ValueError(
                f"The {role} {model.name!r} or the objective fails on a batch ({first_line(error)})."
            ) from None
        if not found:
            raise ValueError(f"The {role} {model.name!r} has no floating-point output, so there is nothing to match.")
        for name, value in found.items():
            if not bool(ops.all(ops.isfinite(value))):
                raise ValueError(f"The {role} {model.name!r} gives NaN or infinity in {name}; nothing can be learnt.")
        return found

    def call(self, inputs: Any) -> dict[str, Any]:
        return self.tensors(self.student, inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The weighted sum over all tensors; y is the mask of positions that count."""
        wanted = self.tensors(self.teacher, x)
        total = 0.0
        for name, target in self._targets.items():
            error = _squared_error(y_pred[name], ops.stop_gradient(wanted[name]), y if target.masked else None)
            total = total + error * (target.weight / target.variance)
        return total


@contextlib.contextmanager
def frozen(teacher: keras.Model, variables: Iterable[Any]) -> Iterator[None]:
    """Within the context, the teacher's variables and these are not trainable."""
    before = [(variable, variable.trainable) for variable in (*teacher.variables, *variables)]
    for variable, _ in before:
        variable.trainable = False
    try:
        yield
    finally:
        for variable, trainable in before:
            variable.trainable = trainable


@contextlib.contextmanager
def computing_in(policy: keras.DTypePolicy | None, *models: keras.Model) -> Iterator[None]:
    """Within the context, the layers of the models compute as the policy says; None: as before.

    The variables keep their dtypes. Layers that are quantised, or have policies of their own for their parts, stay as
    they are.
    """
    every = [layer for model in models for _, layer in (("", model), *walk(model))] if policy is not None else []
    layers = [layer for layer in every if type(layer.dtype_policy) is keras.DTypePolicy]
    before = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = policy
        yield
    finally:
        for layer, own in zip(layers, before, strict=True):
            layer.dtype_policy = own


@contextlib.contextmanager
def _watched_outputs(layers: Mapping[str, keras.layers.Layer], see: Callable[[str, Any], None]) -> Iterator[None]:
    """Within the context, every call of a layer gives its output to `see(path, output)` as well."""

    def watching(path: str, call: Callable) -> Callable:
        def watched_call(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            see(path, outputs)
            return outputs

        return watched_call

    with changed_calls(layers, watching):
        yield


# -- tensors ---------------------------------------------------------------------------------------


def _named(prefix: str, structure: Any) -> dict[str, Any]:
    """The floating-point tensors of a structure, by where they stand in it."""
    found = {}
    for path, value in keras.tree.flatten_with_path(structure):
        if hasattr(value, "dtype") and keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
            found["/".join([prefix, *map(str, path)])] = value
    return found


def _float32(value: Any) -> Any:
    """An objective may multiply outputs with float32, which TensorFlow refuses for those of half the precision."""
    is_half = hasattr(value, "dtype") and keras.backend.standardize_dtype(value.dtype) in ("bfloat16", "float16")
    return ops.cast(value, "float32") if is_half else value


def _group(name: str) -> str:
    """Of which kind a tensor is: a key of WEIGHTS."""
    return name.replace(" ", "/").split("/")[0]


def _of_objective(value: Any) -> dict[str, Any]:
    """The objective's tensors; of vectors [batch, features] the direction, and all cosines of two rows of the batch."""
    named = _named("objective", value)
    if not named:
        raise ValueError("the objective gives no floating-point tensor; return what matters about the outputs")
    for name, tensor in list(named.items()):
        if len(tensor.shape) == 2 and tensor.shape[1] != 1:
            unit = ops.normalize(ops.cast(tensor, "float32"), axis=-1)
            named[name] = unit
            named[f"similarity of {name}"] = ops.matmul(unit, ops.transpose(unit))
    return named


def _check_alike(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if found.keys() != wanted.keys():
        names = ", ".join(sorted(found.keys() ^ wanted.keys())[:5])
        raise ValueError(f"Student and teacher have other outputs; only one of them has {names}.")
    for name, value in found.items():
        ours, theirs = tuple(value.shape), tuple(wanted[name].shape)
        if ours != theirs:
            raise ValueError(
                f"The student gives {name} of shape {ours}, the teacher of shape {theirs}; they have to be equal."
            )


def _squared_error(found: Any, wanted: Any, mask: Any) -> Any:
    """Mean of (found - wanted)^2 in float32, over the positions of the mask [batch, length] if there is one."""
    squared = ops.square(ops.cast(found, "float32") - ops.cast(wanted, "float32"))
    if mask is None:
        return ops.mean(squared)
    trailing = tuple(range(2, len(squared.shape)))
    squared = ops.mean(squared, axis=trailing) if trailing else squared  # [batch, length]
    counts = ops.cast(mask, "float32")
    total = ops.sum(ops.where(ops.cast(mask, "bool"), squared, ops.zeros_like(squared)))
    return total / ops.maximum(ops.sum(counts), 1.0)


def _variance(value: Any, mask: np.ndarray | None) -> float:
    """Variance of a batch's values about the mean of each feature (last axis), over the positions that count."""
    rows = as_floats(value).astype("float64")
    rows = rows if mask is None else rows[mask]
    rows = rows.reshape(-1, rows.shape[-1]) if rows.ndim > 1 else rows.reshape(-1, 1)
    if not rows.size:  # all of it is padding
        return 0.0
    # Where nothing varies, as in a batch of one row, the size of the values has to do.
    return max(float(rows.var(0).mean()), CONSTANT * float(np.mean(rows**2)))


def _has_axes_of(value: Any, mask: np.ndarray | None) -> bool:
    return mask is not None and tuple(value.shape[:2]) == mask.shape
