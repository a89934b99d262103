"""`fold`: networks that are faster as one dense kernel, multiplied out for inference. `unfold`: the way back."""

from collections.abc import Collection, Mapping

import keras

from tncompress.conversion.replace import compile_like
from tncompress.conversion.surgery import become, copy_model, copy_state
from tncompress.conversion.timing import time_layers
from tncompress.conversion.walking import walk
from tncompress.hardware.device import ITEMSIZE
from tncompress.layers.dense import TNDense
from tncompress.layers.folded import TNFolded, TNFoldedPivoted
from tncompress.layers.pivoted import TNPivoted
from tncompress.progress import progress_bar

_FOLDED: dict[type, type[TNDense]] = {TNDense: TNFolded, TNPivoted: TNFoldedPivoted}
_PLAIN = {folded: plain for plain, folded in _FOLDED.items()}

Times = Mapping[str, float]  # seconds by "folded" and "network"


def fold(
    model: keras.Model, *, tokens: int = 1024, memory: float | None = None, progress: bool | None = None
) -> keras.Model:
    """A copy for inference in which networks that are faster as a dense kernel are one, multiplied out once.

    Which are faster at so many tokens is measured here. The cores stay beside the kernels: they are what is saved,
    and a kernel follows when its cores are assigned new values. They are not trainable: `unfold` before training.

    Args:
        model: with networks, from `replace_dense` or built of them.
        tokens: vectors at once, e.g. 8 texts of 128 tokens.
        memory: bytes that all kernels together may take besides what the model takes now; those that save most time
            for their bytes come first. None: no limit.
        progress: show a bar; None: if it runs long in a terminal.

    Raises:
        ValueError: if the model has no networks, tokens is not positive, or memory is negative.

    >>> from tncompress.forms import tt_matrix
    >>> spec = next(iter(tt_matrix.FORM.candidates(256, 256, 8000)))
    >>> model = keras.Sequential([keras.Input((256,)), TNDense(spec)])
    >>> folded = fold(model, tokens=512)
    >>> x = keras.ops.ones((2, 256))
    >>> float(keras.ops.max(keras.ops.abs(folded(x) - model(x)))) < 1e-4
    True
    """
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise ValueError(f"tokens is the number of vectors at once, at least 1, got {tokens!r}.")
    if memory is not None and not memory >= 0:
        raise ValueError(f"memory is bytes for all kernels together, 0 or more, got {memory!r}.")
    if not _of_types(model, _FOLDED):
        raise ValueError(f"The model {getattr(model, 'name', model)!r} has no networks to fold.")
    copy = copy_model(model)
    found = _of_types(copy, _FOLDED)
    times: dict[tuple, Times] = {}
    gains = []
    for layer in progress_bar(found, "Timing", shown=progress):
        kind = (type(layer), layer.spec, str(layer.dtype_policy), layer.in_shape)
        if kind not in times:
            both = {"network": layer, "folded": _made_of(_FOLDED[type(layer)], layer)}
            times[kind] = time_layers(both, tokens)
        saved = times[kind]["network"] - times[kind]["folded"]
        if saved > 0:
            gains.append((saved, _kernel_bytes(layer), layer))
    left = float("inf") if memory is None else memory
    for _, size, layer in sorted(gains, key=lambda gain: -gain[0] / gain[1]):
        if size <= left:
            become(layer, _made_of(_FOLDED[type(layer)], layer))
            left -= size
    compile_like(copy, model)
    return copy


def unfold(model: keras.Model) -> keras.Model:
    """A copy without the kernels that `fold` made: the networks as they were, trainable again.

    Raises:
        ValueError: if the model has no folded networks.
    """
    if not _of_types(model, _PLAIN):
        raise ValueError(f"The model {getattr(model, 'name', model)!r} has no folded networks; fold made none.")
    # A model that makes its own layers makes networks; one whose config holds its layers, folded ones.
    copy = copy_model(model)
    for layer in _of_types(copy, _PLAIN):
        become(layer, _made_of(_PLAIN[type(layer)], layer))
    compile_like(copy, model)
    return copy


def _of_types(model: keras.Model, types: Collection[type]) -> list[TNDense]:
    """Layers of exactly these types, shared ones once."""
    layers = [layer for _, layer in walk(model)] if isinstance(model, keras.Model) else []
    return list({id(layer): layer for layer in layers if type(layer) in types}.values())


def _made_of(cls: type[TNDense], layer: TNDense) -> TNDense:
    """The same network as a layer of another class."""
    made = cls.from_config(layer.get_config())
    made.build((None, *layer.in_shape))
    made._path = layer.path
    copy_state(layer, made)
    return made


def _kernel_bytes(layer: TNDense) -> int:
    return layer.spec.in_dim * layer.spec.out_dim * ITEMSIZE[layer.variable_dtype]
