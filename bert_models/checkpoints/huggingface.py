"""A Hugging Face folder: `config.json` and `model.safetensors`. Nothing is unpickled."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from bert_models.checkpoints.config_json import bert_config, read_config
from bert_models.checkpoints.names import HUGGING_FACE, check_plain
from bert_models.checkpoints.source import Source, Tensor, weights_of
from bert_models.config import BertConfig
from bert_models.encoder import build_encoder
from tncompress.limits import shown, shown_error

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# In files, but neither of the encoder nor of the masked-LM head: a counter 0, 1, 2 ..., and next sentences.
NOT_READ = ("embeddings.position_ids", "cls.seq_relationship.")
# Ending in old files -> ending today
OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def open_folder(folder: Path, config: BertConfig | None) -> Source:
    """A folder as a source; with or without the prefix `bert.`, old names too.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or describes another architecture.
    """
    _check_files(folder, [WEIGHTS_FILE] if config else [CONFIG_FILE, WEIGHTS_FILE])
    described_by = "the given config" if config else CONFIG_FILE
    config = config or read_config(folder / CONFIG_FILE, bert_config)
    check_plain(config, "A Hugging Face BERT")
    file = folder / WEIGHTS_FILE
    tensors = _header(file)
    encoder, head = weights_of(str(file), described_by, len(tensors), config, HUGGING_FACE)
    return Source(
        where=str(file),
        described_by=described_by,
        config=config,
        encoder=encoder,
        head=head,
        tied=HUGGING_FACE.tied,
        tensors=tensors,
        read=lambda labels: _read(file, labels),
        build=lambda: build_encoder(config),
        folder=folder,
    )


def _check_files(folder: Path, wanted: list[str]) -> None:
    missing = [name for name in wanted if not (folder / name).is_file()]
    if WEIGHTS_FILE in missing and any(folder.glob("pytorch_model*.bin")):
        raise FileNotFoundError(
            f"{str(folder)!r} holds pytorch_model.bin but no {WEIGHTS_FILE}: pickled weights are "
            "never opened here, only safetensors is read. Convert the checkpoint to safetensors."
        )
    if missing:
        raise FileNotFoundError(f"{str(folder)!r} is not a checkpoint: it lacks {' and '.join(missing)}.")


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


def _header(file: Path) -> dict[str, Tensor]:
    """Plain name -> tensor, without what is never read."""
    found: dict[str, Tensor] = {}
    with _opened(file) as store:
        for name in store.keys():  # noqa: SIM118 - a safe_open is no dict
            plain = plain_name(name)
            if plain in found:
                raise ValueError(f"{file} holds one weight twice: {shown(found[plain].label)} and {shown(name)}.")
            if not plain.startswith(NOT_READ):
                piece = store.get_slice(name)
                found[plain] = Tensor(name, tuple(piece.get_shape()), piece.get_dtype())
    return found


def _read(file: Path, labels: list[str]) -> dict[str, np.ndarray]:
    with _opened(file) as store:
        return {label: store.get_tensor(label) for label in labels}


def _opened(file: Path):
    try:
        return safe_open(file, "numpy")
    except (SafetensorError, OSError) as error:
        reason = shown_error(error).removeprefix("Error while deserializing header: ")
        raise ValueError(
            f"{file} ({file.stat().st_size:,} bytes) is truncated or damaged: {reason}. Fetch it again."
        ) from None
