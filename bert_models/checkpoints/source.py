"""A checkpoint of any format as tensors by name: what is wanted is compared with what is there, then read."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from bert_models.checkpoints.names import Names, Weight, weights
from bert_models.config import BertConfig
from bert_models.heads import MaskedLM
from bert_models.manifest import head_weights, weight_names

# As safetensors and as TensorFlow spell them
READABLE_DTYPES = ("F64", "F32", "F16", "float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the file: its name there, its shape and its dtype."""

    label: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Source:
    """An opened checkpoint.

    Attributes:
        where: file or prefix, as messages name it.
        described_by: what says which weights there must be, as messages name it.
        config: of the encoder.
        encoder, head: the weights of the encoder and of the masked-LM head.
        tied: name of a second copy of a weight -> name of the weight.
        tensors: what the file holds, by the names of `encoder` and `head`; what has none goes by its label. Counters,
            slots of optimizers and the head for next sentences are left out.
        read: label of tensors -> their values.
        build: makes the encoder, with new weights.
        folder: where a vocabulary may be.
    """

    where: str
    described_by: str
    config: BertConfig
    encoder: list[Weight]
    head: list[Weight]
    tied: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    read: Callable[[list[str]], dict[str, np.ndarray]]
    build: Callable[[], keras.Model]
    folder: Path

    def find(self, name: str) -> Tensor | None:
        """The tensor of that name, or else its second copy."""
        copies = (copy for copy, original in self.tied.items() if original == name)
        return next((self.tensors[key] for key in (name, *copies) if key in self.tensors), None)


def weights_of(where: str, described_by: str, tensors: int, config: BertConfig, names: Names):
    """The weights of encoder and head, if the file has at least as many tensors as the config has layers."""
    if config.num_layers > tensors:
        raise ValueError(
            f"{where} holds {tensors} tensors, too few for the {config.num_layers} layers "
            f"that {described_by} describes."
        )
    return weights(names.encoder, config), weights(names.head, config)


def read_arrays(source: Source, *, mlm: bool, allow_unused: bool, allow_missing: bool) -> dict[str, tuple]:
    """Path of a variable -> the weight that it is, and its values in the file.

    Names, shapes and dtypes are all compared before the first value is read.

    Raises:
        ValueError: they differ, or the file is damaged.
    """
    wanted = [*source.encoder, *(source.head if mlm else ())]
    _check_names(source, wanted, allow_unused, allow_missing)
    found = {weight: tensor for weight in wanted if (tensor := source.find(weight.name))}
    for weight, tensor in found.items():
        _check_tensor(source, weight, tensor)
    copies = _second_copies(source) if mlm else []
    labels = {tensor.label for tensor in found.values()} | {label for pair in copies for label in pair}
    arrays = source.read(sorted(labels))
    for copy, original in copies:
        if not np.array_equal(arrays[copy], arrays[original]):
            raise ValueError(
                f"{source.where}: {copy} differs from {original}, but here the two are one weight; "
                "a masked-LM head with a table of its own is not built. Load the encoder alone."
            )
    return {weight.path: (weight, arrays[tensor.label]) for weight, tensor in found.items()}


def _check_names(source: Source, wanted: list[Weight], allow_unused: bool, allow_missing: bool) -> None:
    missing = sorted(weight.name for weight in wanted if source.find(weight.name) is None)
    # A head that nobody asked for is not worth a word.
    known = {weight.name for weight in (*source.encoder, *source.head)} | set(source.tied)
    unused = sorted(tensor.label for name, tensor in source.tensors.items() if name not in known)
    message = (
        f"{source.where} does not hold the weights that {source.described_by} describes: "
        f"missing {_listed(missing)}; unused {_listed(unused)}."
    )
    if missing and not allow_missing:
        raise ValueError(f"{message} With allow_missing=True new random weights take the place of the missing.")
    if unused and not allow_unused:
        raise ValueError(f"{message} With allow_unused=True the unused are left out.")
    if missing or unused:
        warnings.warn(message, stacklevel=5)


def _listed(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none"


def _check_tensor(source: Source, weight: Weight, tensor: Tensor) -> None:
    if tensor.shape != weight.shape:
        raise ValueError(
            f"{source.where}: {tensor.label} has shape {tensor.shape}, but by {source.described_by} it must be "
            f"{weight.shape}. Check that the two belong together."
        )
    if tensor.dtype not in READABLE_DTYPES:
        raise ValueError(
            f"{source.where}: {tensor.label} is stored as {tensor.dtype}, which is not read; "
            "save it as float32 or float16."
        )


def _second_copies(source: Source) -> list[tuple[str, str]]:
    """Labels of tensors that must be equal."""
    pairs = ((source.tensors.get(copy), source.tensors.get(original)) for copy, original in source.tied.items())
    return [(a.label, b.label) for a, b in pairs if a and b and a.label != b.label]


def named_weights(model: keras.Model) -> dict[str, keras.Variable]:
    """The weights of an encoder, or of a `MaskedLM`, by the paths of the tables."""
    if isinstance(model, MaskedLM):
        return {**weight_names(model.encoder), **head_weights(model)}
    return weight_names(model)


def fill(model: keras.Model, arrays: dict[str, tuple]) -> None:
    """Assign what `read_arrays` gave; each array is let go as soon as it is assigned."""
    variables = named_weights(model)
    for path in list(arrays):
        weight, array = arrays.pop(path)
        variables[path].assign(weight.to_variable(array, tuple(variables[path].shape)))


def check_vocabulary(source: Source) -> None:
    """Refuse a `vocab.txt` beside the weights with more tokens than the embedding has rows.

    Fewer are right where the size was rounded up.
    """
    vocab_size = source.config.vocab_size
    for file in (source.folder / "vocab.txt", source.folder / "assets" / "vocab.txt"):
        if not file.is_file():
            continue
        with file.open("rb") as lines:
            tokens = sum(1 for _ in lines)
        if tokens > vocab_size:
            raise ValueError(
                f"{file} has {tokens:,} tokens, but by {source.described_by} the embedding has {vocab_size:,} rows; "
                "put the vocabulary there that belongs to this checkpoint."
            )
