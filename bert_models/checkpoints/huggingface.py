"""Read an encoder from a Hugging Face folder: `config.json` and `model.safetensors`.

Everything is checked on the file's header before a model is built: names, shapes, dtypes. Nothing
is unpickled.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from bert_models.checkpoints.names import NOT_READ, Weight, bert_config, plain_name, weights
from bert_models.config import BertConfig
from bert_models.encoder import Encoder, build_encoder

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
READABLE_DTYPES = ("F64", "F32", "F16")


def load(folder: str | Path) -> Encoder:
    """A BERT encoder with the weights of a Hugging Face checkpoint.

    The folder holds `config.json` and `model.safetensors`, with or without the prefix `bert.`.
    Every name in the file is used and every weight of the encoder is found, or the file is
    refused. Only the heads of pretraining (`cls.`) are left out.

    Args:
        folder: path of the checkpoint.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        NotADirectoryError: the path is a file.
        ValueError: a file is damaged, or it is not the BERT that `config.json` describes.

    Example:
        encoder = bert_models.load("all-MiniLM-L6-v2")
        tokenizer = bert_models.load_tokenizer("all-MiniLM-L6-v2")
        encoder(tokenizer(["A sentence."]))["pooled_output"]  # [1, 384]
    """
    folder = checked_folder(folder)
    config = read_config(folder / CONFIG_FILE)
    arrays = _read_weights(folder / WEIGHTS_FILE, config)
    encoder = build_encoder(config)
    variables = {variable.path: variable for variable in encoder.weights}
    for weight in weights(config):
        variable = variables[weight.path]
        variable.assign(weight.to_variable(arrays.pop(weight.name), variable.shape))
    return encoder


def checked_folder(folder: str | Path) -> Path:
    """The folder as a path, if it holds the two files."""
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"No folder {str(folder)!r}: give the path of a local checkpoint, not a hub name.")
    if not folder.is_dir():
        raise NotADirectoryError(
            f"{str(folder)!r} is a file: give the folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}."
        )
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing == [WEIGHTS_FILE] and any(folder.glob("pytorch_model*.bin")):
        raise FileNotFoundError(
            f"{str(folder)!r} holds pytorch_model.bin but no {WEIGHTS_FILE}: pickled weights are "
            "never opened here, only safetensors is read. Convert the checkpoint to safetensors."
        )
    if missing:
        raise FileNotFoundError(f"{str(folder)!r} is not a checkpoint: it lacks {' and '.join(missing)}.")
    return folder


def read_config(file: Path) -> BertConfig:
    """`config.json` as a `BertConfig`.

    Raises:
        ValueError: not JSON, or not a BERT that can be built; the sentence starts with the file.
    """
    try:
        return bert_config(_read_json(file))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text("utf-8"))
    except ValueError as error:  # also bytes that are not UTF-8
        raise ValueError(f"this is not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise ValueError(f"this must be a JSON object, got {type(values).__name__}.")
    return values


def _read_weights(file: Path, config: BertConfig) -> dict[str, np.ndarray]:
    """The encoder's tensors by plain name, after the header was found to fit the config."""
    try:
        with safe_open(file, "numpy") as store:
            names = _by_plain_name(file, list(store.keys()))
            if config.num_layers > len(names):
                raise ValueError(
                    f"{file} holds {len(names)} tensors, too few for the {config.num_layers} "
                    f"layers that {CONFIG_FILE} describes."
                )
            expected = weights(config)
            _check_names(file, set(names), expected)
            for weight in expected:
                _check_tensor(file, names[weight.name], weight, store.get_slice(names[weight.name]))
            return {plain: store.get_tensor(name) for plain, name in names.items()}
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise ValueError(
            f"{file} ({file.stat().st_size:,} bytes) is truncated or damaged: {reason}. Fetch it again."
        ) from None


def _by_plain_name(file: Path, names: list[str]) -> dict[str, str]:
    """Plain name -> name in the file, without what is never read."""
    found = {}
    for name in names:
        plain = plain_name(name)
        if plain in found:
            raise ValueError(f"{file} holds one weight twice: {found[plain]} and {name}.")
        if not plain.startswith(NOT_READ):
            found[plain] = name
    return found


def _check_names(file: Path, found: set[str], expected: list[Weight]) -> None:
    wanted = {weight.name for weight in expected}
    if found == wanted:
        return
    unused, missing = sorted(found - wanted), sorted(wanted - found)
    raise ValueError(
        f"{file} does not hold the weights that {CONFIG_FILE} describes: "
        f"missing {_listed(missing)}; unused {_listed(unused)}."
    )


def _listed(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none"


def _check_tensor(file: Path, name: str, weight: Weight, tensor) -> None:
    shape, dtype = tuple(tensor.get_shape()), tensor.get_dtype()
    if shape != weight.shape:
        raise ValueError(
            f"{file}: {name} has shape {shape}, but by {CONFIG_FILE} it must be {weight.shape}. "
            "Check that the two files belong together."
        )
    if dtype not in READABLE_DTYPES:
        raise ValueError(f"{file}: {name} is stored as {dtype}, which is not read; save it as float32 or float16.")
