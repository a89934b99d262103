"""The layers of a model by path: names that are the same after saving and loading, and in another process."""

import re
from collections.abc import Iterator, Sequence

import keras

from tncompress.layers.dense import TNDense
from tncompress.layers.embedding import TNEmbedding

# Attributes in which Keras and TensorFlow keep the same layers once more.
_BOOKKEEPING = {"_layers", "_tracked", "_modules"}


def locate(model: keras.Model, paths: Sequence[str]) -> dict[str, keras.layers.Layer]:
    """The layers at the given paths.

    Raises:
        ValueError: if a path leads nowhere; names the paths of all layers that can be networks.
    """
    layers = dict(walk(model))
    for path in paths:
        if path not in layers:
            kinds = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Embedding, TNDense, TNEmbedding)
            known = [name for name, layer in layers.items() if isinstance(layer, kinds)]
            raise ValueError(f"The model {model.name!r} has no layer {path!r}; {listed(known)}")
    return {path: layers[path] for path in paths}


def listed(paths: Sequence[str]) -> str:
    """Which layers there are, as the end of a sentence."""
    if not paths:
        return "the model has no dense layers."
    shown = ", ".join(paths[:12]) + (f" and {len(paths) - 12} more" if len(paths) > 12 else "")
    return f"its dense layers are {shown}."


def walk(layer: keras.layers.Layer) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Every layer below (and not including) `layer` with its path; a shared layer once for every path."""
    yield from _walk(layer, (), (), _saves_names(layer))


def _walk(
    layer: keras.layers.Layer, path: tuple[str, ...], above: tuple[keras.layers.Layer, ...], names_are_saved: bool
) -> Iterator[tuple[str, keras.layers.Layer]]:
    above = (*above, layer)
    for name, child in _children(layer, names_are_saved):
        if any(child is one for one in above):  # a sublayer that holds its parent
            continue
        child_path = (*path, name)
        yield "/".join(child_path), child
        yield from _walk(child, child_path, above, names_are_saved and _saves_names(child))


def _saves_names(layer: keras.layers.Layer) -> bool:
    """The config of Functional and Sequential models holds their layers; other classes make theirs anew."""
    cls = getattr(layer, "dense_class", type(layer))
    return cls.__name__ in ("Functional", "Sequential") and cls.__module__.startswith("keras.")


def _children(layer: keras.layers.Layer, names_are_saved: bool) -> list[tuple[str, keras.layers.Layer]]:
    """Direct sublayers by name: a graph's layers have names of their own, others those of their attributes."""
    tracked = list(layer._flatten_layers(include_self=False, recursive=False))
    names = [child.name for child in tracked] if names_are_saved else _stable_names(tracked)
    # Sequential and Functional models; the latter, and subclasses like keras_hub's backbones, hold a graph.
    if isinstance(layer, keras.Sequential) or getattr(layer, "_operations", None):
        return list(zip(names, tracked, strict=True))
    known = {id(child) for child in tracked}
    named = [
        (name, child)
        for attribute, value in _attributes(layer).items()
        if attribute not in _BOOKKEEPING and not attribute.startswith("_self_")
        for name, child in _layers_in(value, attribute)
        if id(child) in known
    ]
    found = {id(child) for _, child in named}
    return named + [(name, child) for name, child in zip(names, tracked, strict=True) if id(child) not in found]


def _stable_names(layers: Sequence[keras.layers.Layer]) -> list[str]:
    """Names that the same constructor gives again: those that Keras makes up, `dense_7`, are counted anew here."""
    names: list[str] = []
    for layer in layers:
        name = made_up = re.sub(r"_\d+$", "", layer.name)
        if made_up not in _own_names(layer):
            names.append(layer.name)
            continue
        count = 0
        while name in names:
            count += 1
            name = f"{made_up}_{count}"
        names.append(name)
    return names


def _own_names(layer: keras.layers.Layer) -> set[str]:
    """What Keras calls layers of this class; ours keep the name of the layer whose place they took."""
    kind = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3_\2\4", type(layer).__name__).lower()
    if isinstance(layer, TNDense):
        return {kind, "dense", "einsum_dense"}
    return {kind, "embedding", "reversible_embedding"} if isinstance(layer, TNEmbedding) else {kind}


def _attributes(layer: keras.layers.Layer) -> dict[str, object]:
    """The layer's attributes; PyTorch keeps those that are layers apart from the others."""
    return {**vars(layer).get("_modules", {}), **vars(layer)}


def _layers_in(value: object, name: str) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Layers in an attribute: itself, or inside lists, tuples and dicts."""
    if isinstance(value, keras.layers.Layer):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _layers_in(item, f"{name}/{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _layers_in(item, f"{name}/{key}")
