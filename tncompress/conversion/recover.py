"""`recover`: win back what compression lost, by minutes of distillation without labels."""

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from numbers import Real
from typing import Any

import keras
import numpy as np

from tncompress.conversion.batch_checks import read_batches
from tncompress.conversion.course import Pace
from tncompress.conversion.distillation import Batch, Distillation, computing_in
from tncompress.conversion.gradients import Objective, check_objective, selection
from tncompress.conversion.masks import Mask, check_mask
from tncompress.conversion.replace import compile_like
from tncompress.conversion.sites import check_model
from tncompress.conversion.stages import HELD_OUT, Batches, check, never_worse, parts_of, train
from tncompress.conversion.surgery import copy_model
from tncompress.conversion.walking import walk

Patterns = str | Sequence[str]
Models = Mapping[str, keras.Model]  # student and teacher, by these names


def recover(
    student: keras.Model,
    teacher: keras.Model,
    data: Any,
    *,
    objective: Objective | None = None,
    layers: Sequence[str] = (),
    outputs: bool = True,
    stages: Sequence[str] = (),
    mask: Mask = None,
    validation: Any = 0.1,
    include: Patterns | None = None,
    exclude: Patterns | None = "embedding",
    learning_rate: float = 5e-4,
    epochs: float = 1.0,
    minutes: float | None = None,
    dtype: str | None = None,
    clock: Callable[[], float] = time.monotonic,
    seed: int = 0,
    progress: bool | None = None,
) -> keras.Model:
    """A new model: the student, trained for a short while to give what the teacher gives. No labels are needed.

    It matches all floating-point outputs of the models, and what else is asked for, each in units of the variance of
    the teacher's. The weights that did best on held-out data are kept, so the result is never worse there than what was
    given. Both models stay as they are.

    Args:
        student: e.g. what `replace_dense` made; of any kind that it takes.
        teacher: a model that takes the same inputs and gives outputs of the same structure and shapes.
        data: an iterable of batches of what the models take as input, a `tf.data.Dataset`, or all inputs at once as an
            array or a dict of arrays; kept in memory. A hundred batches and more are worth the while.
        objective: what matters besides the outputs, e.g. a sentence embedding: a function of a model's outputs and
            inputs that gives a tensor, computed with `keras.ops`, or the name of an output, see `tncompress.calibrate`.
            Of vectors `[batch, features]` the direction and the cosines between the rows of a batch are matched, of
            other tensors the values.
        layers: paths of layers in both models whose outputs are matched too, where a model does not give them itself.
        outputs: match the models' outputs; False: nothing but `layers` and the objective.
        stages: paths of layers in both models, e.g. all blocks in order. Each first learns by itself to give what the
            teacher's gives, on what reaches it in the student; they have half of `epochs` and `minutes`, in equal
            parts, and the whole model has the other half. Empty: the whole model at once.
        mask: which positions count, see `tncompress.calibrate`; padding is no part of the loss.
        validation: the fraction of the batches that is held out (at most 4 of them), or data of their own.
        include: train only variables whose path contains this regular expression, or one of several: the path of the
            layer and the variable's name, as in "block_0/attention/query/kernel". None: all that are trainable.
        exclude: not these, likewise. Embedding tables stay by default: short training sees few of their rows.
        learning_rate: of Adam, at its highest: a short warm-up, then a linear decay to 0.
        epochs: how often to see the data; may be a fraction.
        minutes: train for no longer; None: only `epochs` count.
        dtype: what both models compute in meanwhile, e.g. "mixed_bfloat16": faster where the processor has it, and the
            variables stay what they are. None: as the models do.
        clock: gives the seconds that `minutes` are measured with, e.g. `time.process_time`: processor time.
        seed: of the order of the batches, and of which are held out.
        progress: show a bar and the held-out losses; None: if it runs long in a terminal.

    Returns:
        A model of the student's class, with its compression record. `model.history.history` is the curve: lists of
        step, loss (of the steps since the entry before), val_loss (held out) and seconds; the first entries are of the
        student as it was given; with stages, that the stages left it. A warning says if training won nothing or met a
        loss that is not finite.

    Raises:
        ValueError: before any training, if an argument is wrong, the models do not match or do not take one of the
            batches, or there are too few data.

    >>> teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    >>> student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    >>> x = np.random.default_rng(0).normal(size=(640, 8)).astype("float32")
    >>> curve = recover(student, teacher, x, learning_rate=0.1, epochs=5).history.history["val_loss"]
    >>> curve[0] > 0.5, curve[-1] < 1e-3
    (True, True)
    """
    models = {"student": student, "teacher": teacher}
    for role, model in models.items():
        check_model(model, role)
    _check_numbers(learning_rate, epochs, minutes, clock)
    check_mask(mask)
    for name, paths in (("layers", layers), ("stages", stages)):
        if not isinstance(paths, Collection):
            raise TypeError(f"{name} is a list of paths of layers, got {paths!r}.")
    _check_matched(layers, outputs, objective)
    policy, draw = _policy(dtype), _generator(seed)
    started = clock()
    copy = copy_model(student)
    chosen = _chosen(copy, include, exclude)
    parts = parts_of(copy, teacher, stages, chosen)
    batches = Batches(*_split(models, data, mask, validation, draw), draw)
    pace = Pace(learning_rate, epochs, minutes, clock, progress)
    with computing_in(policy, copy, teacher):
        whole = Distillation(copy, teacher, _function(objective), layers, outputs)
        if parts:
            each = pace.part(0.5 / len(parts))
            taught = [(Distillation(copy, teacher, None, [path], outputs=False), own) for path, own in parts.items()]
            check(taught, batches)
            never_worse(whole, chosen, batches, lambda: [train(*part, batches, each, clock()) for part in taught])
            pace, started = pace.part(0.5), clock()
        course = train(whole, chosen, batches, pace, started)
    copy.history = keras.callbacks.History()
    copy.history.history = course.curve
    compile_like(copy, student)
    return copy


# -- data ------------------------------------------------------------------------------------------


def _split(
    models: Models, data: Any, mask: Mask, validation: Any, draw: np.random.Generator
) -> tuple[list[Batch], list[Batch]]:
    """Batches to train on, and batches that are held out, drawn over all of the data: these may be in some order."""
    is_share = isinstance(validation, Real)
    if is_share and not 0 < validation < 1:
        raise ValueError(
            f"validation is data, or the fraction of batches to hold out, above 0 and below 1, got {validation!r}."
        )
    batches = read_batches(models, data, mask, "training")
    if not is_share:
        return batches, read_batches(models, validation, mask, "validation")
    if len(batches) < 2:
        raise ValueError(
            "The data are one batch, too few to hold any out; give more and smaller batches, or validation= data."
        )
    order = [batches[i] for i in draw.permutation(len(batches))]
    count = min(HELD_OUT, max(1, int(validation * len(batches))))
    return order[count:], order[:count]


# -- arguments -------------------------------------------------------------------------------------


def _check_numbers(learning_rate: float, epochs: float, minutes: float | None, clock: Callable[[], float]) -> None:
    if not callable(clock):
        raise TypeError(f"clock is a function that gives seconds, such as time.process_time, got {clock!r}.")
    for name, value in (("learning_rate", learning_rate), ("epochs", epochs), ("minutes", minutes)):
        if value is not None and not (isinstance(value, Real) and 0 < value < float("inf")):
            raise ValueError(f"{name} is a number above 0, got {value!r}.")


def _check_matched(layers: Sequence[str], outputs: bool, objective: Objective | None) -> None:
    if isinstance(layers, str):
        raise ValueError(f"layers is a list of paths of layers, got the text {layers!r}; write [{layers!r}].")
    if objective is not None:
        check_objective(objective, {})
    elif not (outputs or layers):
        raise ValueError("With outputs=False there is nothing to match; name layers= or an objective.")


def _function(objective: Objective | None) -> Callable[[Any, Any], Any] | None:
    if objective is None or callable(objective):
        return objective
    select = selection(objective, None, "a batch")
    return lambda outputs, inputs: [tensor for tensor, _ in select(outputs, inputs)]


def _generator(seed: int) -> np.random.Generator:
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError):
        raise ValueError(f"seed is a whole number, 0 or more, got {seed!r}.") from None


def _policy(dtype: str | None) -> keras.DTypePolicy | None:
    if dtype is None:
        return None
    try:
        policy = keras.dtype_policies.get(dtype)
    except Exception:  # Keras raises several, for other types than text too
        policy = None
    if type(policy) is not keras.DTypePolicy:  # those of integers would quantise the models
        raise ValueError(f"dtype is a policy of floating-point numbers such as 'mixed_bfloat16', got {dtype!r}.")
    return policy


def _chosen(model: keras.Model, include: Patterns | None, exclude: Patterns | None) -> set[int]:
    """Ids of the trainable variables that are trained."""
    paths = _paths_of_variables(model)
    trained = {id(variable) for variable in model.trainable_variables}
    included = _matching(paths, include, "include") if include is not None else trained
    is_default = exclude == recover.__kwdefaults__["exclude"]
    excluded = _matching(paths, exclude, "exclude", not is_default) if exclude is not None else set()
    chosen = (trained & included) - excluded
    if not chosen:
        raise ValueError("No variable is left to train; choose others with include= and exclude=, or set trainable.")
    return chosen


def _paths_of_variables(model: keras.Model) -> dict[int, str]:
    """By id of the variable: the path of the layer that owns it, and its own name."""
    paths = {}
    for path, layer in (("", model), *walk(model)):  # parents come first, so that the owner has the last word
        paths.update({id(variable): f"{path}/{variable.name}".lstrip("/") for variable in layer.variables})
    return paths


def _matching(paths: dict[int, str], patterns: Patterns, argument: str, must_match: bool = True) -> set[int]:
    if not isinstance(patterns, Collection):
        raise TypeError(f"{argument} is a regular expression, or several of them, got {patterns!r}.")
    found: set[int] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            hits = {key for key, path in paths.items() if re.search(pattern, path)}
        except (re.error, TypeError) as error:
            raise ValueError(f"{argument}={pattern!r} is not a regular expression: {error}.") from None
        if not hits and must_match:
            listed = ", ".join(islice(paths.values(), 12))
            raise ValueError(f"{argument}={pattern!r} matches no variable; the model has {listed} ...")
        found |= hits
    return found
