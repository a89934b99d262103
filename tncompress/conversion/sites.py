"""Where the dense layers of a model are: one `Site` for each, with the reason if it has to stay as it is."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import keras

from tncompress.layers.dense import TNDense
from tncompress.network.spec import Spec


@dataclass(frozen=True)
class Site:
    """A place in a model where a dense map sits.

    Args:
        path: names on the way from the model to the layer, e.g. `"block_3/feed_forward/intermediate"`: layer names
            within Functional and Sequential models, attribute names elsewhere. The same after saving and loading.
        kind: class of the layer.
        in_dim, out_dim: features.
        use_bias: the layer has a bias.
        reason: why the layer cannot or shall not be replaced; None if it can.
        aliases: other paths that lead to the same, shared layer.
        spec: of a layer that is a network already.
    """

    path: str
    kind: str
    in_dim: int
    out_dim: int
    use_bias: bool
    reason: str | None = None
    aliases: tuple[str, ...] = ()
    spec: Spec | None = None

    @property
    def num_params(self) -> int:
        """Parameters of the kernel, or of the cores."""
        return self.spec.num_params if self.spec else self.in_dim * self.out_dim


# Attributes in which Keras and TensorFlow keep the same layers once more.
_BOOKKEEPING = {"_layers", "_tracked", "_modules"}

Filter = str | Sequence[str] | Callable[[Site], bool]


def find_sites(model: keras.Model, include: Filter | None = None, exclude: Filter | None = None) -> list[Site]:
    """All dense layers of a built model, in order, each with the reason if it is not to be replaced.

    Args:
        model: any built Keras model.
        include: only these: a regular expression found in the path, several of them, or a function of the `Site`.
        exclude: not these, likewise.

    Raises:
        ValueError: if the model is not built, a regular expression is not valid, or a filter matches no layer.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"A Keras model was expected, got {type(model).__name__}.")
    if not model.built:
        raise ValueError(f"The model {model.name!r} is not built: call it once, or build it with its input shape.")
    found: dict[int, Site] = {}
    for path, layer in walk(model):
        if id(layer) in found:
            site = found[id(layer)]
            found[id(layer)] = replace(site, aliases=(*site.aliases, path))
        elif isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense, TNDense)):
            found[id(layer)] = _site(path, layer)
    sites = [_unless_used_elsewhere(site, model) for site in found.values()]
    wanted = _matching(sites, include, "include") if include is not None else {site.path for site in sites}
    unwanted = _matching(sites, exclude, "exclude") if exclude is not None else set()
    return [
        site
        if site.reason
        else replace(site, reason="not in include")
        if site.path not in wanted
        else replace(site, reason="in exclude")
        if site.path in unwanted
        else site
        for site in sites
    ]


def locate(model: keras.Model, paths: Sequence[str]) -> dict[str, keras.layers.Layer]:
    """The layers at the given paths.

    Raises:
        ValueError: if a path leads nowhere; names the paths of all dense layers.
    """
    layers = dict(walk(model))
    for path in paths:
        if path not in layers:
            raise ValueError(f"The model {model.name!r} has no layer {path!r}; {_listed(find_sites(model))}")
    return {path: layers[path] for path in paths}


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
    """What Keras calls layers of this class; a network keeps the name of the Dense whose place it took."""
    kind = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)([A-Z][a-z])", r"\1\3_\2\4", type(layer).__name__).lower()
    return {kind, "dense"} if isinstance(layer, TNDense) else {kind}


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


def _unless_used_elsewhere(site: Site, model: keras.Model) -> Site:
    """The site; with a reason if another layer computes with its kernel too, as weight normalisation does."""
    if site.reason:
        return site
    layers = dict(walk(model))
    dense = layers[site.path]
    for path, layer in (("", model), *layers.items()):
        if layer is not dense and any(value is dense._kernel for value in vars(layer).values()):
            return replace(site, reason=f"{path or model.name!r} uses its kernel too")
    return site


def _site(path: str, layer: keras.layers.Layer) -> Site:
    kind = type(layer).__name__
    if isinstance(layer, TNDense):
        spec = layer.spec
        return Site(path, kind, spec.in_dim, spec.out_dim, layer.use_bias, "a network already", spec=spec)
    if not layer.built:
        return Site(path, kind, 0, 0, False, "not built: the model never calls it")
    if isinstance(layer, keras.layers.EinsumDense):
        in_dim, out_dim = _einsum_dims(layer)
        reason = "EinsumDense: only Dense layers are replaced so far"
        return Site(path, kind, in_dim, out_dim, layer.bias is not None, reason)
    in_dim, out_dim = getattr(layer.input_spec, "axes", {}).get(-1, 0), layer.units
    reason = None
    if type(layer) is not keras.layers.Dense:
        reason = f"{kind} is a subclass of Dense and may compute something else"
    elif layer.quantization_mode:
        reason = f"quantized to {layer.quantization_mode}: replace first, quantize afterwards"
    elif layer.lora_enabled:
        reason = "has LoRA weights: merge them first"
    return Site(path, kind, in_dim, out_dim, layer.use_bias, reason)


def _einsum_dims(layer: keras.layers.EinsumDense) -> tuple[int, int]:
    """Features that the kernel sums over, and features that it makes."""
    operands, result = layer.equation.replace(" ", "").split("->")
    sizes = dict(zip(operands.split(",")[1], layer.kernel.shape, strict=True))
    made = math.prod(size for letter, size in sizes.items() if letter in result)
    return math.prod(sizes.values()) // made, made


def _matching(sites: list[Site], chosen: Filter, argument: str) -> set[str]:
    if callable(chosen):
        matching = {site.path for site in sites if chosen(site)}
        if not matching:
            raise ValueError(f"The function given as {argument} accepts no layer; {_listed(sites)}")
        return matching
    patterns = [chosen] if isinstance(chosen, str) else chosen
    if not isinstance(patterns, (list, tuple, set, frozenset)) or not patterns:
        raise ValueError(f"{argument} is a regular expression, several, or a function of a Site, got {chosen!r}.")
    matching = set()
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(f"{argument}={pattern!r} is not a regular expression: {error}.") from None
        hits = {site.path for site in sites if any(expression.search(p) for p in (site.path, *site.aliases))}
        if not hits:
            raise ValueError(f"{argument}={pattern!r} matches no layer; {_listed(sites)}")
        matching |= hits
    return matching


def _listed(sites: list[Site]) -> str:
    if not sites:
        return "the model has no dense layers."
    paths = [site.path for site in sites]
    shown = ", ".join(paths[:12]) + (f" and {len(paths) - 12} more" if len(paths) > 12 else "")
    return f"its dense layers are {shown}."
