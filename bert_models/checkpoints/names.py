"""Which weight of a checkpoint is which variable of ours: a table per format, read in both directions.

Here those of Hugging Face and of the first BERT (TensorFlow 1); Model Garden's are in `garden_names.py`. A row is the
name in the file, the path of our variable and the axes of the tensor in the file; `{i}` counts the blocks.

Axes: V words, P positions, T segments, H hidden, F intermediate, N heads, K features per head; of Expand/Condense C
blocks, D bond, E features of a block when widened; 1 is one. Two words of axes stand for two tensors, kernel and bias,
or gamma and beta where the first word is one letter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bert_models.config import BertConfig
from bert_models.kinds import DenseMaps, ExpandCondense, MultiHead


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: name in the file, path of our variable, axes in the file, and whether they are turned."""

    name: str
    path: str
    axes: str
    transposed: bool = False


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a format names the tensors of a layer; `transposed`: kernels are stored [out, in]."""

    separator: str
    kernel: str
    bias: str
    gamma: str
    beta: str
    transposed: bool


@dataclass(frozen=True)
class Names:
    """The tables of a format.

    Attributes:
        encoder: rows of the encoder.
        head: rows of the masked-LM head; their paths are those within `MaskedLM`.
        tied: name of a second copy of a weight -> name of the weight. A copy is checked, or stands in for the weight.
    """

    encoder: tuple[Row, ...]
    head: tuple[Row, ...]
    tied: Mapping[str, str] = field(default_factory=dict)


def rows(spelling: Spelling, *lines: tuple[str, str, str]) -> tuple[Row, ...]:
    """Lines of a table as rows, layers taken apart into their tensors.

    >>> [row.name for row in rows(HUGGING_FACE_SPELLING, ("embeddings.LayerNorm", "embeddings/norm", "H H"))]
    ['embeddings.LayerNorm.weight', 'embeddings.LayerNorm.bias']
    """
    return tuple(row for line in lines for row in _tensors(spelling, *line))


def _tensors(spelling: Spelling, name: str, path: str, axes: str) -> tuple[Row, ...]:
    first, *second = axes.split()
    if not second:
        return (Row(name, path, first),)
    if len(first) == 1:
        endings, turned = ((spelling.gamma, "gamma"), (spelling.beta, "beta")), False
    else:
        endings, turned = ((spelling.kernel, "kernel"), (spelling.bias, "bias")), spelling.transposed
    (kernel, our_kernel), (bias, our_bias) = endings
    return (
        Row(f"{name}{spelling.separator}{kernel}", f"{path}/{our_kernel}", first, turned),
        Row(f"{name}{spelling.separator}{bias}", f"{path}/{our_bias}", *second),
    )


HUGGING_FACE_SPELLING = Spelling(".", "weight", "bias", "weight", "bias", transposed=True)
TENSORFLOW_SPELLING = Spelling("/", "kernel", "bias", "gamma", "beta", transposed=False)

# These files know no heads: [H, H] becomes [H, N, K] or [N, K, H] by a reshape.
HUGGING_FACE = Names(
    encoder=rows(
        HUGGING_FACE_SPELLING,
        ("embeddings.word_embeddings.weight", "embeddings/word/embeddings", "VH"),
        ("embeddings.position_embeddings.weight", "embeddings/position/embeddings", "PH"),
        ("embeddings.token_type_embeddings.weight", "embeddings/segment/embeddings", "TH"),
        ("embeddings.LayerNorm", "embeddings/norm", "H H"),
        ("encoder.layer.{i}.attention.self.query", "block_{i}/attention/query", "HH H"),
        ("encoder.layer.{i}.attention.self.key", "block_{i}/attention/key", "HH H"),
        ("encoder.layer.{i}.attention.self.value", "block_{i}/attention/value", "HH H"),
        ("encoder.layer.{i}.attention.output.dense", "block_{i}/attention/attention_output", "HH H"),
        ("encoder.layer.{i}.attention.output.LayerNorm", "block_{i}/attention_norm", "H H"),
        ("encoder.layer.{i}.intermediate.dense", "block_{i}/feed_forward/intermediate", "FH F"),
        ("encoder.layer.{i}.output.dense", "block_{i}/feed_forward/output_dense", "HF H"),
        ("encoder.layer.{i}.output.LayerNorm", "block_{i}/feed_forward_norm", "H H"),
        ("pooler.dense", "pooler", "HH H"),
    ),
    head=rows(
        HUGGING_FACE_SPELLING,
        ("cls.predictions.transform.dense", "transform", "HH H"),
        ("cls.predictions.transform.LayerNorm", "norm", "H H"),
        ("cls.predictions.bias", "output_bias", "V"),
    ),
    tied={
        "cls.predictions.decoder.weight": "embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
)
TF1 = Names(
    encoder=rows(
        TENSORFLOW_SPELLING,
        ("bert/embeddings/word_embeddings", "embeddings/word/embeddings", "VH"),
        ("bert/embeddings/position_embeddings", "embeddings/position/embeddings", "PH"),
        ("bert/embeddings/token_type_embeddings", "embeddings/segment/embeddings", "TH"),
        ("bert/embeddings/LayerNorm", "embeddings/norm", "H H"),
        ("bert/encoder/layer_{i}/attention/self/query", "block_{i}/attention/query", "HH H"),
        ("bert/encoder/layer_{i}/attention/self/key", "block_{i}/attention/key", "HH H"),
        ("bert/encoder/layer_{i}/attention/self/value", "block_{i}/attention/value", "HH H"),
        ("bert/encoder/layer_{i}/attention/output/dense", "block_{i}/attention/attention_output", "HH H"),
        ("bert/encoder/layer_{i}/attention/output/LayerNorm", "block_{i}/attention_norm", "H H"),
        ("bert/encoder/layer_{i}/intermediate/dense", "block_{i}/feed_forward/intermediate", "HF F"),
        ("bert/encoder/layer_{i}/output/dense", "block_{i}/feed_forward/output_dense", "FH H"),
        ("bert/encoder/layer_{i}/output/LayerNorm", "block_{i}/feed_forward_norm", "H H"),
        ("bert/pooler/dense", "pooler", "HH H"),
    ),
    head=rows(
        TENSORFLOW_SPELLING,
        ("cls/predictions/transform/dense", "transform", "HH H"),
        ("cls/predictions/transform/LayerNorm", "norm", "H H"),
        ("cls/predictions/output_bias", "output_bias", "V"),
    ),
)


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


def weights(table: tuple[Row, ...], config: BertConfig) -> list[Weight]:
    """Every weight that a table lists for that config, in the order of the table.

    >>> first = weights(HUGGING_FACE.encoder, BertConfig(num_layers=1))[0]
    >>> first.name, first.path, first.shape
    ('embeddings.word_embeddings.weight', 'embeddings/word/embeddings', (30522, 768))
    """
    sizes = _sizes(config)
    found = []
    for row in table:
        shape = tuple(sizes[axis] for axis in row.axes)
        count = config.num_layers if "{i}" in row.path else 1
        found += [Weight(row.name.format(i=i), row.path.format(i=i), shape, row.transposed) for i in range(count)]
    return found


def _sizes(config: BertConfig) -> dict[str, int]:
    sizes = {
        "V": config.vocab_size,
        "P": config.max_positions,
        "T": config.type_vocab_size,
        "H": config.hidden_size,
        "F": config.intermediate_size,
        "N": config.num_heads,
        "K": config.head_size,
        "1": 1,
    }
    maps = config.feed_forward
    if isinstance(maps, ExpandCondense):
        bond = maps.block_size
        sizes |= {"C": config.hidden_size // bond, "D": bond, "E": maps.multiplier * bond}
    return sizes


def check_plain(config: BertConfig, owner: str) -> None:
    """Refuse an encoder that has more, or less, than the first BERT, which Hugging Face's is alike.

    >>> check_plain(BertConfig(gated=True), "The file")
    Traceback (most recent call last):
    ValueError: The file has plain attention and dense feed-forward parts with biases, but here is gated=True.
    """
    found = {
        f"attention={config.attention}": not isinstance(config.attention, MultiHead),
        f"feed_forward={config.feed_forward}": not isinstance(config.feed_forward, DenseMaps),
        "gated=True": config.gated,
        "output_bias=False": not config.output_bias,
    }
    if extra := [words for words, present in found.items() if present]:
        raise ValueError(
            f"{owner} has plain attention and dense feed-forward parts with biases, but here is {' and '.join(extra)}."
        )
