"""Tables of embeddings in a model: where they are, and how they become tables in bands."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import keras

from tncompress.conversion.sites import walk
from tncompress.conversion.surgery import become
from tncompress.layers.embedding import TNEmbedding, TNReversibleEmbedding

# Package and class of the layers that only look up rows, and multiply with them in reverse.
KNOWN = {("keras", "Embedding"), ("keras", "ReversibleEmbedding"), ("keras_hub", "ReversibleEmbedding")}
SMALLEST = 1000  # tokens; tables of positions and segments are smaller, and all of their rows are used


@dataclass(frozen=True)
class EmbeddingSite:
    """A place in a model where a table of embeddings sits.

    Args:
        path: as in `Site`.
        kind: class of the layer.
        input_dim, output_dim: tokens and features of the table.
        tied: the layer can be called in reverse, for logits from the same table. (A model that reads the attribute
            `embeddings` for that goes on working too, but cannot be seen.)
        reason: why the table cannot or shall not be replaced; None if it can.
        aliases: other paths that lead to the same, shared layer.
    """

    path: str
    kind: str
    input_dim: int
    output_dim: int
    tied: bool
    reason: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def num_params(self) -> int:
        """Entries of the table."""
        return self.input_dim * self.output_dim


def embedding_sites(model: keras.Model, smallest: int = SMALLEST) -> list[EmbeddingSite]:
    """All embedding layers of a built model, in order, each with the reason if it is not to be replaced.

    Args:
        model: any built Keras model.
        smallest: tables of fewer tokens are left as they are.

    >>> table = keras.layers.Embedding(5000, 8, name="word")
    >>> model = keras.Sequential([keras.Input((None,), dtype="int32"), table, keras.layers.Dense(2)])
    >>> [(site.path, site.input_dim, site.output_dim, site.reason) for site in embedding_sites(model)]
    [('word', 5000, 8, None)]
    """
    if not model.built:
        raise ValueError(f"The model {model.name!r} is not built: call it once, or build it with its input shape.")
    found: dict[int, EmbeddingSite] = {}
    for path, layer in walk(model):
        if id(layer) in found:
            site = found[id(layer)]
            found[id(layer)] = replace(site, aliases=(*site.aliases, path))
        elif isinstance(layer, (keras.layers.Embedding, TNEmbedding)):
            reason = _obstacle(layer, model)
            if reason is None and layer.input_dim < smallest:
                reason = f"a small table: {layer.input_dim} tokens, fewer than {smallest}"
            tied = getattr(layer, "tie_weights", False)
            found[id(layer)] = EmbeddingSite(
                path, type(layer).__name__, layer.input_dim, layer.output_dim, tied, reason
            )
    return list(found.values())


def put_embeddings(model: keras.Model, bands: Mapping[str, Iterable[Sequence]]) -> dict[str, TNEmbedding]:
    """Turn the embedding layers at these paths into tables in bands, in place, with all factors zero.

    Fill them with `layer.assign(fit_embedding(table, counts, bands))`. As with `put_networks` the model must be fresh:
    compiled functions and optimizers would go on with the old layers.

    Args:
        model: a built model.
        bands: of every path pairs of (tokens, rank), as in `TNEmbedding`. Small tables may be among them.

    Raises:
        ValueError: if there is no embedding at a path, or it cannot be replaced, or the bands do not fit it.
    """
    layers = dict(walk(model))
    new = {path: _banded(_replaceable(path, layers, model), pairs) for path, pairs in bands.items()}
    for path, layer in new.items():
        become(layers[path], layer)
    return new


def _replaceable(path: str, layers: Mapping[str, keras.layers.Layer], model: keras.Model) -> keras.layers.Embedding:
    layer = layers.get(path)
    if not isinstance(layer, (keras.layers.Embedding, TNEmbedding)):
        paths = ", ".join(site.path for site in embedding_sites(model)) or "none"
        raise ValueError(f"The model {model.name!r} has no embedding {path!r}; its embeddings are: {paths}.")
    reason = _obstacle(layer, model)
    if reason:
        raise ValueError(f"The embedding {path!r} cannot be replaced: {reason}.")
    return layer  # type: ignore[return-value]


def _obstacle(layer: keras.layers.Layer, model: keras.Model) -> str | None:
    """Why a layer cannot become bands."""
    if isinstance(layer, TNEmbedding):
        return "in bands already"
    kind = type(layer).__name__
    if (type(layer).__module__.split(".")[0], kind) not in KNOWN:
        return f"{kind} is a subclass of Embedding and may compute something else"
    if not layer.built:
        return "not built: the model never calls it"
    if layer.quantization_mode:
        return f"quantized to {layer.quantization_mode}: replace first, quantize afterwards"
    if layer.lora_enabled:
        return "has LoRA weights: merge them first"
    for path, other in (("", model), *walk(model)):
        if other is not layer and any(value is layer._embeddings for value in vars(other).values()):
            return f"{path or model.name!r} uses its table too"
    return None


def _banded(layer: keras.layers.Embedding, bands: Iterable[Sequence]) -> TNEmbedding:
    """Empty bands that do what the layer does besides its table."""
    options = {
        "mask_zero": layer.mask_zero,
        "factor_initializer": "zeros",
        "factor_regularizer": layer.embeddings_regularizer,
        "factor_constraint": layer.embeddings_constraint,
        "activity_regularizer": layer.activity_regularizer,
        "name": layer.name,
        "dtype": layer.dtype_policy,
        "trainable": layer.trainable,
    }
    cls = TNEmbedding
    if hasattr(layer, "tie_weights"):
        cls = TNReversibleEmbedding
        options |= {name: getattr(layer, name, None) for name in ("tie_weights", "reverse_dtype", "logit_soft_cap")}
    new = cls(layer.input_dim, layer.output_dim, bands, **options)
    new.build((None,))
    if hasattr(layer, "reverse_embeddings"):
        new.reverse_embeddings.assign(layer.reverse_embeddings)
    new._path = layer.path
    return new
