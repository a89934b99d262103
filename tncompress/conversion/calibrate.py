"""Run sample inputs through a model and gather the moments of what its dense layers see."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tncompress.conversion.batches import batches_of, inputs_of, num_rows, parts_of, rows_in, rows_of
from tncompress.conversion.calibration_passes import Backward, Forward, added, moments_bytes
from tncompress.conversion.gradients import Objective, check_objective
from tncompress.conversion.held_out import held_out
from tncompress.conversion.masks import Mask, check_mask, is_unusable, mask_of
from tncompress.conversion.probe import Probe, joined
from tncompress.conversion.walking import locate
from tncompress.fitting.frequencies import TokenCounts
from tncompress.fitting.moments import Moments, Spread
from tncompress.progress import progress_bar

SAMPLE = slice(2)  # rows of inputs that stay with the moments
PROBED = 64  # batches with held-out rows on which the objective is measured
BLOCK, FEWEST_BLOCKS = 64, 8  # of rows that give gradients: large ones, for few passes, but some all over the data
GRADIENT_ROWS = 512  # give as good gradients as six times as many

Seen = Moments | TokenCounts


class Calibration(dict[str, Seen]):
    """Moments by path, and what else is known from the same inputs. Those of two streams add up: `a + b`.

    Args:
        moments: by path.
        sample: a few of the inputs, by which `replace_dense` finds layers that share hidden units.
        spreads: of the objective's tensors over the rows that gave gradients; None without an objective.
        held_out: by path, some vectors `[n, in_dim]` that layers saw and that are not in the moments.
        probe: inputs on which a change of the objective can be measured; None without an objective.
    """

    def __init__(
        self,
        moments: Mapping[str, Seen],
        sample: Any,
        spreads: Sequence[Spread] | None = None,
        held_out: Mapping[str, np.ndarray] | None = None,
        probe: Probe | None = None,
    ):
        super().__init__(moments)
        self.sample, self.spreads, self.held_out, self.probe = sample, spreads, dict(held_out or {}), probe

    @property
    def energy(self) -> float | None:
        """The sum of ||o - mean||^2 over all vectors o that the objective gave; None without an objective.

        With count gradients, count tr(D^T C D S) / energy is the predicted change of the objective by an error D of a
        kernel, relative to the objective's variance.
        """
        return None if self.spreads is None else sum(spread.energy for spread in self.spreads)

    def without_gradients(self) -> "Calibration":
        """The same without an objective."""
        return Calibration(
            {path: replace(seen, gradients=None) for path, seen in self.items()}, self.sample, None, self.held_out
        )

    def __add__(self, other: "Calibration") -> "Calibration":
        if self.keys() != other.keys():
            difference = ", ".join(sorted(self.keys() ^ other.keys())[:5])
            raise ValueError(f"Calibrations of other layers do not add up: only one of them has {difference}.")
        if (self.spreads is None) != (other.spreads is None):
            raise ValueError("A calibration with an objective and one without do not add up; use without_gradients().")
        return Calibration(
            {path: seen + other[path] for path, seen in self.items()},
            self.sample,
            None if self.spreads is None else added(self.spreads, other.spreads),
            {
                path: np.concatenate([m.held_out[path] for m in (self, other) if path in m.held_out])
                for path in {**self.held_out, **other.held_out}
            },
            self.probe if self.probe and self.probe.batches else other.probe,
        )


def calibrate(
    model: keras.Model,
    paths: Sequence[str],
    data: Any,
    *,
    objective: Objective | None = None,
    gradient_rows: int = GRADIENT_ROWS,
    mask: Mask = None,
    progress: bool | None = None,
) -> Calibration:
    """Moments of the inputs of the layers at `paths`, over all batches, without padding.

    With an objective also those of its gradient at the layers' outputs, from backward passes: a fit then spends its
    parameters on the outputs that move the objective. No labels are needed.

    One row of the data in a hundred (of few rows about ten, at most a tenth) is kept out of the moments, and some of
    what it shows the layers is kept beside them, so that fits can be checked on it.

    Args:
        model: any built Keras model; it stays as it is.
        paths: of layers, as `find_sites` gives them.
        data: an iterable of batches, each what the model takes as input (a `tf.data.Dataset`, a list of dicts of
            arrays ...; of `(x, y)` pairs the x); or all inputs at once as an array or a dict of arrays.
        objective: what shall stay the same. `"outputs"`: all floating-point outputs of the model; another text: the
            output of that name, where outputs are a dict; both without padding. Or a function `objective(outputs, x)`
            of the model's outputs and the batch that gives a tensor (or a list or dict of some), computed with
            `keras.ops`; it is called on a few rows at a time. None: the layers' own outputs, all alike.
        gradient_rows: about how many rows of the data give gradients, in blocks evenly spread over them; all of data
            whose number of batches is not known.
        mask: which positions count: the key of the mask in a dict input, or a function of the batch that gives an
            array `[batch, length]`. None: the Keras mask of the layer's input if it has one, else the first of the
            keys input_mask, attention_mask, padding_mask, mask, with encoder_ and decoder_ before them the mask of a
            side. See docs/fitting.md, "Moments", for other shapes.
        progress: show a bar; None: if it runs long in a terminal.

    Raises:
        ValueError: if there is no batch, the model does not take a batch, a layer sees NaN or infinity, the objective
            does not depend on a layer, is not finite or the same for all inputs, or a mask that was asked for fits
            nothing.

    Example:
        def sentence(outputs, x):  # the mean over tokens
            weights = keras.ops.cast(x["input_mask"], "float32")[..., None]
            return keras.ops.sum(outputs["sequence_output"] * weights, axis=1) / keras.ops.sum(weights, axis=1)

        moments = calibrate(encoder, paths, batches, objective=sentence)
    """
    if gradient_rows < 1:
        raise ValueError(f"gradient_rows must be at least 1, got {gradient_rows}.")
    check_mask(mask)
    layers = locate(model, paths)
    if objective is not None:
        check_objective(objective, layers)
    batches, total = batches_of(data)
    forward = Forward(model, layers, asked=mask is not None)
    backward = None if objective is None else Backward(model, layers, objective, forward)
    start, every, sample, probed, given = 0, 1, None, [], None
    block = max(1, min(BLOCK, gradient_rows // FEWEST_BLOCKS))
    for number, batch in enumerate(progress_bar(batches, "Calibrating", total, progress)):
        x = inputs_of(batch, model)
        rows = range(start, start := start + num_rows(x))
        given = mask_of(x, mask, number)
        if number == 0:
            sample = rows_of(x, SAMPLE)
            forward.total = rows_in(data, total, len(rows), model)
            every = max(1, (forward.total or 0) // gradient_rows)
        if backward is None or not rows:
            forward.run(x, given, rows, number)
            continue
        # Every so many rows of all data, however they are cut into batches, which may be sorted.
        if len(probed) < PROBED:
            probed += [(rows_of(x, apart), rows_of(given, apart)) for apart in held_out(rows, forward.total)]
        for some, numbers in parts_of(rows, every, block):
            part = slice(some.start - rows.start, some.stop - rows.start)
            some_x, some_given = rows_of(x, part), rows_of(given, part)
            if numbers is None:
                forward.run(some_x, some_given, some, number)
            else:
                backward.run(some_x, some_given, some, numbers, number)
    if given is not None and not forward.masked and (mask is not None or is_unusable(given)):
        warnings.warn(
            "The mask of the calibration batches fits none of the chosen layers' inputs, so that all of their vectors "
            "count; where that is wrong, give mask=, a function of the batch that gives an array [batch, length].",
            stacklevel=2,
        )
    seen = forward.seen() if backward is None else backward.added_to(forward.seen())
    _check_reached(seen, paths, by_gradients=objective is not None)
    if objective is None or backward is None:
        return Calibration(seen, sample, None, forward.held_out())
    probe = Probe(objective, joined(probed), backward.spreads)
    found = Calibration(seen, sample, backward.spreads, forward.held_out(), probe)
    if not found.energy:
        raise ValueError(
            "The objective is the same for all calibration inputs, so that nothing tells how much a change of it is; "
            "give more inputs, or ones that differ."
        )
    return found


def _check_reached(seen: Mapping[str, Seen], paths: Sequence[str], *, by_gradients: bool) -> None:
    for path in paths:
        if path not in seen or not seen[path].count:
            raise ValueError(f"No calibration batch reaches the layer {path!r} (or all of it is padding); exclude it.")
        gradients, uses = seen[path].gradients, getattr(seen[path], "uses", None)
        if by_gradients and not (uses or (gradients and (gradients.scatter.any() or gradients.mean.any()))):
            raise ValueError(
                f"The objective does not depend on the layer {path!r}; exclude it, or choose an objective that does."
            )


def groups_of(model: keras.Model, paths: Sequence[str], limit: float, *, with_gradients: bool) -> list[list[str]]:
    """The paths in as few groups, in order, as keep the moments of a group within a limit, if one layer's are.

    Calibrated group by group, a large model takes no more memory for moments than that; every group takes passes of
    its own, forward only as far as its last layer.

    Args:
        model: a built Keras model.
        paths: of layers, in the order in which the model calls them.
        limit: bytes.
        with_gradients: there will be an objective.

    >>> model = keras.Sequential([keras.Input((100,)), *(keras.layers.Dense(100, name=name) for name in "abc")])
    >>> groups_of(model, ["a", "b", "c"], limit=2 * 2 * 100**2, with_gradients=False)
    [['a', 'b'], ['c']]
    """
    groups: list[list[str]] = []
    room = 0.0
    for path, layer in locate(model, paths).items():
        size = moments_bytes(layer, with_gradients=with_gradients)
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(path)
        room -= size
    return groups
