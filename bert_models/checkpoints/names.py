"""Which weight of a checkpoint is which variable of the encoder: tables, read in both directions.

`{i}` counts the blocks. Axes are those of the tensor in the file: V words, P positions, T segments,
H hidden, F intermediate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert_models.config import BertConfig

# Hugging Face name, variable path, axes
_TABLES = (
    ("embeddings.word_embeddings.weight", "embeddings/word/embeddings", "VH"),
    ("embeddings.position_embeddings.weight", "embeddings/position/embeddings", "PH"),
    ("embeddings.token_type_embeddings.weight", "embeddings/segment/embeddings", "TH"),
)
# `.weight` [H] is gamma, `.bias` [H] is beta
_NORMS = (
    ("embeddings.LayerNorm", "embeddings/norm"),
    ("encoder.layer.{i}.attention.output.LayerNorm", "block_{i}/attention_norm"),
    ("encoder.layer.{i}.output.LayerNorm", "block_{i}/feed_forward_norm"),
)
# `.weight` [out, in] is the kernel transposed, `.bias` [out] the bias; axes = out, in.
# The file knows no heads: [H, H] becomes [H, N, K] or [N, K, H] by a reshape after the transpose.
_LINEARS = (
    ("encoder.layer.{i}.attention.self.query", "block_{i}/attention/query", "HH"),
    ("encoder.layer.{i}.attention.self.key", "block_{i}/attention/key", "HH"),
    ("encoder.layer.{i}.attention.self.value", "block_{i}/attention/value", "HH"),
    ("encoder.layer.{i}.attention.output.dense", "block_{i}/attention/attention_output", "HH"),
    ("encoder.layer.{i}.intermediate.dense", "block_{i}/feed_forward/intermediate", "FH"),
    ("encoder.layer.{i}.output.dense", "block_{i}/feed_forward/output_dense", "HF"),
    ("pooler.dense", "pooler", "HH"),
)

# In files, but no weights of the encoder: a counter 0, 1, 2 ... and the pretraining heads.
NOT_READ = ("embeddings.position_ids", "cls.predictions.", "cls.seq_relationship.")
# Ending in old files -> ending today
OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

# Hugging Face `config.json` -> BertConfig; a key that is absent keeps BertConfig's default, which
# is theirs.
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
# Hugging Face `hidden_act` -> BertConfig.activation
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight: name and shape in the file, path in the model, and the way between the two."""

    name: str
    path: str
    shape: tuple[int, ...]
    transposed: bool = False

    def to_variable(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The file's tensor as a float32 variable of that shape."""
        array = array.T if self.transposed else array
        return np.asarray(array, "float32").reshape(shape)

    def to_file(self, array: np.ndarray) -> np.ndarray:
        """The variable's value as the file's tensor; undoes `to_variable`."""
        if self.transposed:
            return np.ascontiguousarray(array.reshape(self.shape[::-1]).T)
        return array.reshape(self.shape)


def weights(config: BertConfig) -> list[Weight]:
    """Every weight of an encoder with that config, in the order of the tables.

    >>> row = weights(BertConfig(num_layers=1))[0]
    >>> row.name, row.path, row.shape
    ('embeddings.word_embeddings.weight', 'embeddings/word/embeddings', (30522, 768))
    """
    sizes = {
        "V": config.vocab_size,
        "P": config.max_positions,
        "T": config.type_vocab_size,
        "H": config.hidden_size,
        "F": config.intermediate_size,
    }
    rows = [Weight(name, path, _shape(axes, sizes)) for name, path, axes in _TABLES]
    for name, path in _NORMS:
        rows += [
            Weight(f"{name}.weight", f"{path}/gamma", _shape("H", sizes)),
            Weight(f"{name}.bias", f"{path}/beta", _shape("H", sizes)),
        ]
    for name, path, axes in _LINEARS:
        rows += [
            Weight(f"{name}.weight", f"{path}/kernel", _shape(axes, sizes), transposed=True),
            Weight(f"{name}.bias", f"{path}/bias", _shape(axes[0], sizes)),
        ]
    return [copy for row in rows for copy in _per_block(row, config.num_layers)]


def _shape(axes: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(sizes[axis] for axis in axes)


def _per_block(row: Weight, num_layers: int) -> list[Weight]:
    if "{i}" not in row.name:
        return [row]
    return [Weight(row.name.format(i=i), row.path.format(i=i), row.shape, row.transposed) for i in range(num_layers)]


def plain_name(name: str) -> str:
    """A file's name without `bert.` and with today's ending.

    >>> plain_name("bert.embeddings.LayerNorm.gamma")
    'embeddings.LayerNorm.weight'
    """
    name = name.removeprefix("bert.")
    for old, new in OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


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
        raise ValueError(f"model_type must be 'bert', got {kind!r}: this is another architecture.")
    if values.get("is_decoder"):
        raise ValueError("is_decoder must be false: a BERT that reads one way only is not built.")
    positions = values.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise ValueError(f"position_embedding_type must be 'absolute', got {positions!r}: other kinds are not built.")
    found = {ours: values[theirs] for theirs, ours in CONFIG_KEYS.items() if theirs in values}
    name = found.get("activation", "gelu")
    if name not in ACTIVATIONS:
        raise ValueError(f"hidden_act must be one of {', '.join(ACTIVATIONS)}, got {name!r}.")
    return BertConfig.from_dict({**found, "activation": ACTIVATIONS[name]})
