"""Where the dense layers of a model are: one `Site` for each, with the reason if it has to stay as it is."""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from tncompress.conversion.dense_maps import dense_map
from tncompress.conversion.walking import listed, walk
from tncompress.layers.dense import TNDense
from tncompress.layers.embedding import TNEmbedding

SMALLEST_TABLE = 1000  # tokens; tables of positions and segments are smaller, and all of their rows are used
NOT_ASKED = "a table of embeddings: embeddings=True, with calibration, takes these too"

_DENSE = (keras.layers.Dense, keras.layers.EinsumDense, TNDense)
_TABLES = (keras.layers.Embedding, TNEmbedding)
# Package and class of the tables that only look up rows, and multiply with them in reverse.
_KNOWN_TABLES = {("keras", "Embedding"), ("keras", "ReversibleEmbedding"), ("keras_hub", "ReversibleEmbedding")}


@dataclass(frozen=True)
class Site:
    """A place in a model where a dense map or a table of embeddings sits.

    Args:
        path: names on the way from the model to the layer, e.g. `"block_3/feed_forward/intermediate"`: layer names
            within Functional and Sequential models, attribute names elsewhere. The same after saving and loading.
        kind: class of the layer.
        in_dim, out_dim: features; of a table its tokens and their features.
        use_bias: the layer has a bias.
        reason: why the layer cannot or shall not be replaced; None if it can.
        aliases: other paths that lead to the same, shared layer.
        params: of a kernel that is no matrix, or of a network's cores; None: in_dim x out_dim.
        is_table: of embeddings. (A table that is called in reverse for logits stays tied to them.)
    """

    path: str
    kind: str
    in_dim: int
    out_dim: int
    use_bias: bool
    reason: str | None = None
    aliases: tuple[str, ...] = ()
    params: int | None = None
    is_table: bool = False

    @property
    def num_params(self) -> int:
        """Parameters of the kernel, the cores or the table."""
        return self.in_dim * self.out_dim if self.params is None else self.params


Filter = str | Sequence[str] | Callable[[Site], bool]


def find_sites(
    model: keras.Model,
    include: Filter | None = None,
    exclude: Filter | None = None,
    *,
    embeddings: bool = False,
    smallest_table: int = SMALLEST_TABLE,
) -> list[Site]:
    """All dense layers and tables of embeddings of a built model, in order, with the reason for those that stay.

    Args:
        model: any built Keras model.
        include: only these: a regular expression found in the path, several of them, or a function of the `Site`.
        exclude: not these, likewise.
        embeddings: tables of embeddings may be replaced too.
        smallest_table: those with fewer tokens stay.

    Raises:
        ValueError: if the model is not built, a regular expression is not valid, a filter matches no layer, or a shared
            layer is included by one of its paths and excluded by another.
    """
    check_model(model)
    layers = dict(walk(model))
    found: dict[int, Site] = {}
    for path, layer in layers.items():
        if id(layer) in found:
            site = found[id(layer)]
            found[id(layer)] = replace(site, aliases=(*site.aliases, path))
        elif isinstance(layer, (*_DENSE, *_TABLES)):
            found[id(layer)] = _site(path, layer, smallest_table)
    owners = {"": model, **layers}
    sites = [_unless_used_elsewhere(site, layers[site.path], owners, model.name) for site in found.values()]
    wanted = _matching(sites, include, "include") if include is not None else {site.path for site in sites}
    unwanted = _matching(sites, exclude, "exclude") if exclude is not None else set()
    for site in sites:
        if site.aliases and include is not None and site.path in wanted & unwanted and not callable(include):
            raise ValueError(
                f"The layer {site.path!r} is shared (also {', '.join(site.aliases)}): include chooses it and exclude "
                "leaves it; write filters that agree on all of its paths."
            )
    return [
        replace(site, reason=site.reason or _filtered(site, wanted, unwanted) or _not_asked(site, embeddings))
        for site in sites
    ]


def check_model(model: Any, role: str = "model") -> None:
    """Refuse what is no Keras model, or none that is built."""
    if not isinstance(model, keras.Model):
        advice = f"; tncompress.load({str(model)!r}) gives it" if isinstance(model, (str, os.PathLike)) else ""
        where = "" if role == "model" else f" as {role}"
        raise TypeError(f"A Keras model was expected{where}, got {type(model).__name__}{advice}.")
    if not model.built:
        raise ValueError(f"The {role} {model.name!r} is not built: call it once, or build it with its input shape.")


def _filtered(site: Site, wanted: set[str], unwanted: set[str]) -> str | None:
    if site.path not in wanted:
        return "not in include"
    return "in exclude" if site.path in unwanted else None


def _not_asked(site: Site, embeddings: bool) -> str | None:
    return NOT_ASKED if site.is_table and not embeddings else None


def _unless_used_elsewhere(
    site: Site, layer: keras.layers.Layer, owners: Mapping[str, keras.layers.Layer], name: str
) -> Site:
    """The site; with a reason if another layer computes with its weight too, as weight normalisation does."""
    if site.reason:
        return site
    weight = layer._embeddings if site.is_table else layer._kernel
    for path, other in owners.items():
        if other is not layer and any(value is weight for value in vars(other).values()):
            return replace(site, reason=f"{path or name!r} uses its {'table' if site.is_table else 'kernel'} too")
    return site


def _site(path: str, layer: keras.layers.Layer, smallest_table: int) -> Site:
    kind, is_table = type(layer).__name__, isinstance(layer, _TABLES)
    if isinstance(layer, TNDense):
        params = layer.spec.num_params
        if layer.built:
            params = layer.count_params() - (layer.spec.out_dim if layer.use_bias else 0)
        found = Site(path, kind, layer.spec.in_dim, layer.spec.out_dim, layer.use_bias, "a network already")
        return replace(found, params=params)
    if is_table:
        reason = _obstacle_of_table(layer, smallest_table)
        params = layer.count_params() if isinstance(layer, TNEmbedding) and layer.built else None
        return Site(path, kind, layer.input_dim, layer.output_dim, False, reason, params=params, is_table=True)
    if not layer.built:
        return Site(path, kind, 0, 0, False, "not built: the model never calls it")
    reason, use_bias = _obstacle(layer), layer.bias is not None
    try:
        found = dense_map(layer)
    except ValueError as error:
        return Site(path, kind, 0, 0, use_bias, reason or str(error), params=math.prod(layer.kernel.shape))
    return Site(path, kind, found.in_dim, found.out_dim, use_bias, reason)


def _obstacle(layer: keras.layers.Layer) -> str | None:
    """Why a built dense layer cannot be replaced."""
    kind = type(layer)
    if kind not in (keras.layers.Dense, keras.layers.EinsumDense):
        parent = "Dense" if isinstance(layer, keras.layers.Dense) else "EinsumDense"
        return f"{kind.__name__} is a subclass of {parent} and may compute something else"
    return _changed(layer)


def _obstacle_of_table(layer: keras.layers.Layer, smallest: int) -> str | None:
    """Why a table of embeddings cannot be replaced."""
    if isinstance(layer, TNEmbedding):
        return "in bands already"
    kind = type(layer)
    if (kind.__module__.split(".")[0], kind.__name__) not in _KNOWN_TABLES:
        return f"{kind.__name__} is a subclass of Embedding and may compute something else"
    if not layer.built:
        return "not built: the model never calls it"
    if layer.input_dim < smallest:
        return f"a small table: {layer.input_dim} tokens, fewer than {smallest}"
    return _changed(layer)


def _changed(layer: keras.layers.Layer) -> str | None:
    if layer.quantization_mode:
        return f"quantized to {layer.quantization_mode}: replace first, quantize afterwards"
    return "has LoRA weights: merge them first" if layer.lora_enabled else None


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


def _listed(sites: Sequence[Site]) -> str:
    return listed([site.path for site in sites])
