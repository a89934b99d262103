"""Forward passes that are looked into, that end once enough was seen, and that do not compute the same things twice.

What happens in a pass are events: a layer is called, or makes its output. What was made before the first event that a
pass is to see need not be made again by the next pass over the same batch, as long as the weights that made it stay: it
is kept, and answered.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tncompress.conversion.batches import run_batch
from tncompress.conversion.watching import Enough, changed_calls, input_axes, preactivated

Layers = Mapping[str, keras.layers.Layer]


@dataclass(frozen=True)
class Event:
    """A moment in the forward pass.

    Args:
        kind: `"input"`: the layer is called, with this as its first argument, `[..., in_dim]` if it is dense;
            `"output"`: it has made this, before its activation.
        path: of the layer.
        number: of the layer's calls in this pass, from 0.
    """

    kind: str
    path: str
    number: int = 0


@dataclass(frozen=True, eq=False)
class Made:
    """What a call made, and how often which layers were called for it."""

    result: Any
    calls: Counter[str]

    def emptied(self) -> "Made":
        """Only the shapes of it, to be answered as zeros."""
        return Made(keras.tree.map_structure(_shape_of, self.result), self.calls)

    def again(self) -> Any:
        """The result, or zeros in its place."""
        return keras.tree.map_structure(_zeros_of, self.result)


def _shape_of(value: Any) -> Any:
    if isinstance(value, keras.KerasTensor) or not ops.is_tensor(value):
        return value
    return keras.KerasTensor(tuple(value.shape), keras.backend.standardize_dtype(value.dtype))


def _zeros_of(value: Any) -> Any:
    return ops.zeros(value.shape, value.dtype) if isinstance(value, keras.KerasTensor) else value


Kept = dict[tuple[str, int], Made]  # by path and number of the call


def observed(
    model: keras.Model,
    layers: Layers,
    batch: Any,
    wanted: Collection[Event] | None = None,
    *,
    nudges: Mapping[str, Any] | None = None,
    kept: Kept | None = None,
    number: int = 0,
) -> dict[Event, Any]:
    """The tensors at some events of a forward pass, in their order; the pass ends when all have been seen.

    Args:
        model: called with the batch; it stays as it is.
        layers: by path, each once.
        batch: what the model takes as input.
        wanted: events; None: the inputs of all calls of `layers`, and the outputs of those in `nudges`.
        nudges: by path, what is added to the layer's outputs before they are looked at.
        kept: what earlier passes over this batch made, with the weights that made it; brought up to date in place.
            None: everything is computed.
        number: of the batch, for messages.

    Raises:
        ValueError: if the model does not take the batch, or something wanted does not happen.
    """
    seen: dict[Event, Any] = {}
    calls: Counter[str] = Counter()
    nudges = nudges or {}

    def see(event: Event, value: Any) -> None:
        if wanted is None or event in wanted:
            seen[event] = value
        if wanted is not None and len(seen) == len(wanted):
            raise Enough

    def enter(path: str, given: Any) -> None:
        if wanted is None or Event("input", path, calls[path]) in wanted:
            axes = input_axes(layers[path])
            see(
                Event("input", path, calls[path]),
                given if axes == 1 else ops.reshape(given, (*given.shape[:-axes], -1)),
            )

    def leave(path: str, y: Any) -> Any:
        if path in nudges:
            y = ops.add(y, ops.cast(nudges[path], y.dtype))
        see(Event("output", path, calls[path] - 1), y)
        return y

    made = {path: layers[path] for path in (*nudges, *(e.path for e in wanted or () if e.kind == "output"))}
    with _answered(layers, calls, enter, kept, lambda: not seen), preactivated(made, leave):
        try:
            run_batch(model, batch, number)
        except Enough:
            return seen
    if wanted is not None:
        missing = next(event for event in wanted if event not in seen)
        raise ValueError(f"With batch {number} the model calls {missing.path!r} less often than with the first one.")
    return seen


def needed(model: keras.Model, layers: Layers, batch: Any, kept: Kept) -> set[tuple[str, int]]:
    """Which of the kept results what is still to be computed depends on, as one batch shows it."""

    def entered(changed: Kept) -> dict[Event, Any]:
        seen = observed(model, layers, batch, kept={**kept, **changed})
        return {event: value for event, value in seen.items() if (event.path, event.number) not in kept}

    usual = entered({})
    return {
        key
        for key, made in kept.items()
        if not all(map(_is_same, usual.values(), entered({key: made.emptied()}).values()))
    }


def _is_same(a: Any, b: Any) -> bool:
    if not ops.is_tensor(a):
        return True
    return np.array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b), equal_nan=False)


@contextmanager
def _answered(
    layers: Layers,
    calls: Counter[str],
    enter: Callable[[str, Any], None],
    kept: Kept | None,
    is_early: Callable[[], bool],
) -> Iterator[None]:
    """Within the context calls are counted and told to `enter`, and those whose results are kept are not computed.

    New results are kept while `is_early()`, in the place of those of the calls within that call.
    """

    def answering(path: str, call: Callable) -> Callable:
        def answered_call(*args, **kwargs):
            enter(path, next(iter((*args, *kwargs.values())), None))
            key, before = (path, calls[path]), Counter(calls)
            if kept is not None and key in kept:
                calls.update(kept[key].calls)
                return kept[key].again()
            calls[path] += 1
            others = set(kept or ())
            result = call(*args, **kwargs)
            if kept is not None and is_early():
                for inner in kept.keys() - others:
                    del kept[inner]
                kept[key] = Made(result, calls - before)
            return result

        return answered_call

    with changed_calls(layers, answering):
        yield
