"""`config.json` of Hugging Face and `bert_config.json` of the first BERT as a `BertConfig`, and back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bert_models.config import BertConfig
from bert_models.presets import preset
from tncompress.limits import json_object, shown, shown_error

# Key in the file -> field of BertConfig; a key that is absent keeps BertConfig's default, which is theirs.
CONFIG_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_positions",
    "type_vocab_size": "type_vocab_size",
    "hidden_act": "activation",
    "hidden_dropout_prob": "hidden_dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "layer_norm_eps": "layer_norm_epsilon",
    "initializer_range": "init_stddev",
}
# `hidden_act` of Hugging Face -> BertConfig.activation
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
# BertConfig.activation -> `hidden_act` as it is written
HIDDEN_ACTS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}
# `hidden_act` of the first BERT, whose GELU is the tanh approximation -> BertConfig.activation
TF1_ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu"}


def bert_config(values: Mapping[str, Any]) -> BertConfig:
    """A `BertConfig` from a Hugging Face `config.json`.

    Raises:
        ValueError: another architecture, an activation or position embedding that is not known, or
            sizes that do not fit together.
        TypeError: a size that is no number.

    >>> bert_config({"model_type": "bert", "hidden_act": "gelu_new"}).activation
    'gelu_tanh'
    """
    kind = values.get("model_type")
    if kind != "bert":
        raise ValueError(f"model_type must be 'bert', got {shown(kind)}: this is another architecture.")
    if values.get("is_decoder"):
        raise ValueError("is_decoder must be false: a BERT that reads one way only is not built.")
    positions = values.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise ValueError(
            f"position_embedding_type must be 'absolute', got {shown(positions)}: other kinds are not built."
        )
    return _from_keys(values, ACTIVATIONS)


def tf1_config(values: Mapping[str, Any]) -> BertConfig:
    """A `BertConfig` from the `bert_config.json` of a TensorFlow 1 or Model Garden release.

    Raises:
        ValueError, TypeError: as `bert_config`.

    >>> tf1_config({"hidden_act": "gelu"}).activation
    'gelu_tanh'
    """
    return _from_keys(values, TF1_ACTIVATIONS)


def _from_keys(values: Mapping[str, Any], activations: Mapping[str, str]) -> BertConfig:
    found = {ours: values[theirs] for theirs, ours in CONFIG_KEYS.items() if theirs in values}
    name = found.get("activation", "gelu")
    if not isinstance(name, str) or name not in activations:
        raise ValueError(f"hidden_act must be one of {', '.join(activations)}, got {shown(name)}.")
    return BertConfig.from_dict({**found, "activation": activations[name]})


def hugging_face_values(config: BertConfig, architecture: str) -> dict[str, Any]:
    """What a Hugging Face `config.json` says of that config; `bert_config` reads it.

    >>> bert_config(hugging_face_values(BertConfig(num_heads=4), "BertModel")).num_heads
    4
    """
    sizes = {theirs: getattr(config, ours) for theirs, ours in CONFIG_KEYS.items()}
    sizes["hidden_act"] = HIDDEN_ACTS[config.activation]
    return {
        "architectures": [architecture],
        "model_type": "bert",
        **sizes,
        "position_embedding_type": "absolute",
        "pad_token_id": 0,
    }


def read_config(file: Path, reader: Callable[[Mapping[str, Any]], BertConfig]) -> BertConfig:
    """A JSON file as a `BertConfig`.

    Raises:
        ValueError: not JSON, or not a BERT that can be built; the sentence starts with the file.
    """
    try:
        return reader(json_object(file))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {shown_error(error)}.") from None


def given_config(config: BertConfig | str | None) -> BertConfig | None:
    """What a caller passed as `config=`: a value, the name of a preset, or nothing.

    >>> given_config("tn_bert").num_layers
    12
    """
    if config is None or isinstance(config, BertConfig):
        return config
    if isinstance(config, str):
        return preset(config).config
    raise TypeError(f"config must be a BertConfig or the name of a preset, got {type(config).__name__}.")
