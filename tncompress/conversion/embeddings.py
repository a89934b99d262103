"""Tables of embeddings in a model: where they are, and how they become tables in bands."""

from collections.abc import Iterable, Mapping, Sequence

import keras

from tncompress.conversion.surgery import become
from tncompress.conversion.walking import locate
from tncompress.layers.embedding import TNEmbedding, TNReversibleEmbedding


def put_embeddings(model: keras.Model, bands: Mapping[str, Iterable[Sequence]]) -> dict[str, TNEmbedding]:
    """Turn the embedding layers at these paths into tables in bands, in place, with all factors zero.

    Fill them with `layer.assign(fit_embedding(table, counts, bands))`. As with `put_networks` the model must be fresh:
    compiled functions and optimizers would go on with the old layers.

    Args:
        model: a built model.
        bands: of every path pairs of (tokens, rank), as in `TNEmbedding`.

    Raises:
        ValueError: if the bands do not fit a table.
    """
    layers = locate(model, list(bands))
    new = {path: _banded(layers[path], pairs) for path, pairs in bands.items()}
    for path, layer in new.items():
        become(layers[path], layer)
    return new


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
