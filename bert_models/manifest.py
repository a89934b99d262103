"""The file that `export` puts beside a SavedModel, from which the encoder can be built and filled again."""

import json
from pathlib import Path
from typing import Any

import keras

from bert_models.config import BertConfig
from tncompress.conversion.saving import CompressedModel, Outcome, compression_of
from tncompress.conversion.walking import walk
from tncompress.fitting.choice import Bands, Choice
from tncompress.layers.dense import TNDense
from tncompress.layers.embedding import TNEmbedding
from tncompress.layers.pivoted import TNPivoted
from tncompress.limits import json_object, shown
from tncompress.network.spec import Spec

# SavedModels keep the folder assets.extra for files that TensorFlow itself does not read.
MANIFEST = Path("assets.extra", "bert_models.json")
FORMAT = 1
KINDS = {"config": dict, "model": dict, "variables": list, "mlm": list | None}  # of the values


def weight_names(encoder: keras.Model) -> dict[str, keras.Variable]:
    """Every weight of an encoder by a name of its own, in the order of `encoder.weights`.

    The names are the weights' paths, for example `block_0/attention/query/kernel`. Only a layer that was put in later
    has paths without the block; there the place of the layer in the model goes before.
    """
    places = {
        id(weight): f"{place}/{weight.path.rpartition('/')[2]}"
        for place, layer in walk(encoder)  # inner layers come later, and have the last word
        for weight in layer.weights
    }
    blocks = tuple(f"{layer.name}/" for layer in encoder.layers)
    names = {w.path if w.path.startswith(blocks) else places[id(w)]: w for w in encoder.weights}
    assert len(names) == len(encoder.weights)
    return names


def head_weights(mlm: keras.Model) -> dict[str, keras.Variable]:
    """The weights that a `MaskedLM` has besides its encoder's, by their paths without its name."""
    below = {id(weight) for weight in mlm.encoder.weights}
    return {w.path.removeprefix(f"{mlm.name}/"): w for w in mlm.weights if id(w) not in below}


def write_manifest(folder: Path, encoder: keras.Model, names: list[str], head: list[str] | None) -> None:
    """Put the file into the folder of a SavedModel; the arguments are what `read_manifest` returns."""
    file = folder / MANIFEST
    file.parent.mkdir()
    values = {
        "format": FORMAT,
        "config": encoder.config.to_dict(),
        "model": _model_config(encoder),
        "variables": names,
        "mlm": head,
    }
    file.write_text(json.dumps(values, indent=1), "utf-8")


def _model_config(encoder: keras.Model) -> dict[str, Any]:
    """What Keras makes the encoder of, also where it does not know that it is compressed.

    An encoder that was compressed as part of a larger model, as with `replace_dense(MaskedLM(encoder))`, is compressed
    all the same, but only the larger model remembers it.
    """
    config = keras.saving.serialize_keras_object(encoder)
    own = _own_networks(encoder.config)
    put_in = [
        Outcome(place, layer.spec.in_dim, layer.spec.out_dim, Choice(None, layer.spec, isinstance(layer, TNPivoted)))
        for place, layer in walk(encoder)
        # What lies directly in the graph, as the pooler, is in its config; what lies in a block is not.
        if isinstance(layer, TNDense) and "/" in place and own.get(place) != layer.spec
    ]
    put_in += [
        Outcome(place, layer.input_dim, layer.output_dim, Bands(layer.bands, layer.output_dim), is_table=True)
        for place, layer in walk(encoder)
        if isinstance(layer, TNEmbedding)
    ]
    if compression_of(encoder) or not put_in:
        return config
    return {
        "module": CompressedModel.__module__,
        "class_name": "CompressedModel",
        "registered_name": "tncompress>CompressedModel",
        "config": {"dense": config, "outcomes": [outcome.to_config() for outcome in put_in]},
    }


def _own_networks(config: BertConfig) -> dict[str, Spec | None]:
    """The networks that an encoder has by its config, by their places."""
    widen, narrow = config.feed_forward.specs(config.hidden_size, config.intermediate_size)
    specs = {"intermediate": widen, "gate": widen, "output_dense": narrow}
    return {f"block_{i}/feed_forward/{name}": specs[name] for i in range(config.num_layers) for name in specs}


def read_manifest(path: str | Path) -> dict[str, Any]:
    """What `export` wrote beside the SavedModel, so that the encoder can be built and filled again.

    Keys: `config` (of the `BertConfig`), `model` (of the Keras model), `variables` and `mlm`, names of the weights.
    Number i of `variables` is stored in the checkpoint `variables/variables` of the folder under the key
    `variables/i/.ATTRIBUTES/VARIABLE_VALUE`, number j of `mlm` under `mlm/head/j/.ATTRIBUTES/VARIABLE_VALUE`.

    Raises:
        FileNotFoundError: the folder does not exist, or was not written by `export`.
        ValueError: it was written by a later version, or is damaged.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(f"{path} was not written by bert_models.export: it has no {MANIFEST.as_posix()}.")
    try:
        values = json_object(file)
    except ValueError as error:
        raise ValueError(f"{file} is damaged ({str(error).rstrip('.')}); export the encoder again.") from None
    if values.get("format") != FORMAT:
        raise ValueError(
            f"{file} has format {shown(values.get('format'))}, but only {FORMAT} is known; update bert_models."
        )
    if lacking := set(KINDS) - set(values):
        raise ValueError(f"{file} is damaged: it lacks {', '.join(sorted(lacking))}; export the encoder again.")
    for name, kind in KINDS.items():
        if not isinstance(values[name], kind):
            wanted, found = getattr(kind, "__name__", "list or null"), type(values[name]).__name__
            raise ValueError(f"{file} is damaged: {name!r} must be a {wanted}, got {found}; export the encoder again.")
    return values
