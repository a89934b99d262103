"""Presets, checkpoints and tokenizers: the one file of this package that knows `bert_models`."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert_models.config import BertConfig
    from bert_models.text.tokenize import Tokenizer

TEXT_FILES = ("tokenizer.json", "vocab.txt")
CONFIG_FILES = ("config.json", "bert_config.json", "tokenizer_config.json")
INPUTS = ("input_word_ids", "input_mask", "input_type_ids")


def presets() -> list[str]:
    """Names of all presets."""
    from bert_models.presets import PRESETS

    return list(PRESETS)


def preset_name(name: str) -> str:
    """A preset's own name, from what may be its address on the hub.

    Raises:
        ValueError: there is none; the nearest names are given.
    """
    from bert_models.presets import preset

    return preset(name).name


def config_of_preset(name: str) -> "BertConfig":
    """The architecture of a preset."""
    from bert_models.presets import preset

    return preset(name).config


def config_beside(path: Path) -> "BertConfig | None":
    """What `config.json` or `bert_config.json` in a folder, or beside a checkpoint, says; None if there is neither.

    Raises:
        ValueError: a file is damaged, or describes another architecture.
    """
    from bert_models.checkpoints.config_json import bert_config, read_config, tf1_config

    folder = path if path.is_dir() else path.parent
    for name, reader in (("config.json", bert_config), ("bert_config.json", tf1_config)):
        if (folder / name).is_file():
            return read_config(folder / name, reader)
    return None


def is_checkpoint(path: Path) -> bool:
    """Whether a path is the prefix of a TensorFlow checkpoint.

    >>> is_checkpoint(Path("nowhere/bert_model.ckpt"))
    False
    """
    return path.with_name(f"{path.name}.index").is_file()


def weight_files(path: Path) -> list[Path]:
    """The files with the weights that `bert_models.load` reads from a folder or of a checkpoint; none if none is there.

    >>> weight_files(Path("nowhere"))
    []
    """
    from bert_models.checkpoints.hub import GRAPH_FILE, VARIABLES
    from bert_models.checkpoints.huggingface import WEIGHTS_FILE
    from bert_models.checkpoints.tf_checkpoint import prefixes_in

    if not path.is_dir():
        prefix = path
    elif (path / GRAPH_FILE).is_file():
        prefix = path / VARIABLES
    elif (path / WEIGHTS_FILE).is_file() or not (names := prefixes_in(path)):
        return [file for file in [path / WEIGHTS_FILE] if file.is_file()]
    else:
        prefix = path / names[0]
    name = glob.escape(prefix.name)
    return [*prefix.parent.glob(f"{name}.index"), *prefix.parent.glob(f"{name}.data-*")]


def files_of(path: Path) -> list[Path]:
    """All files that a checkpoint and its tokenizer are read from."""
    folder = path if path.is_dir() else path.parent
    places = [place / name for place in (folder, folder / "assets") for name in (*CONFIG_FILES, *TEXT_FILES)]
    return [*weight_files(path), *(file for file in [folder / "saved_model.pb", *places] if file.is_file())]


def built(name: str, seed: int) -> Any:
    """The encoder of a preset with new random weights, the same for every seed."""
    import keras

    import bert_models

    keras.utils.set_random_seed(seed)
    return bert_models.build(name)


def loaded(path: Path, config: str | None) -> Any:
    """The encoder of a folder or a checkpoint."""
    import bert_models

    return bert_models.load(path, config=config)


def parts(config: "BertConfig", length: int) -> list[tuple[str, str, int, int | None]]:
    """Layer, kind, parameters and FLOPs a token of an encoder's parts, without building it.

    Args:
        config: the architecture.
        length: tokens of a text, which the FLOPs of attention depend on.

    >>> from bert_models import BertConfig
    >>> sum(part[2] for part in parts(BertConfig(), 128))
    109482240
    """
    from bert_models.counts import flops_per_token, param_counts

    params, flops, layers = param_counts(config), flops_per_token(config, length), config.num_layers
    norm = params.norms // (2 * layers + 1)
    found: list[tuple[str, str, int, int | None]] = [
        ("embeddings", "embeddings", params.embeddings, 0),
        ("embeddings/norm", "norm", norm, None),
    ]
    for i in range(layers):
        found += [
            (f"block_{i}/attention", "attention", params.attention // layers, flops.projections + flops.attention),
            (f"block_{i}/feed_forward", "feed forward", params.feed_forward // layers, flops.feed_forward),
            (f"block_{i}/norms", "norm", 2 * norm, None),
        ]
    return [*found, ("pooler", "pooler", params.pooler, None)]


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a vocabulary."""
    return any((place / name).is_file() for place in (folder, folder / "assets") for name in TEXT_FILES)


def tokenizer(place: Path, model: Any) -> "Tokenizer":
    """The tokenizer in a folder, or of a `vocab.txt` or `tokenizer.json`, checked against the model.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another model.
    """
    from bert_models.cli.places import tokenizer_at
    from bert_models.sentence_embeddings import check_pair
    from bert_models.text.tokenize import Tokenizer

    found = tokenizer_at(place)
    check_pair(model, found)
    longest = getattr(getattr(model, "config", None), "max_positions", found.max_length)
    return Tokenizer(found.backend, min(found.max_length, longest))


def batches(tokenizer: "Tokenizer", texts: Sequence[str], size: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """Texts of like length together, tokenised, under the names by which the model takes them.

    Args:
        tokenizer: of the model.
        texts: in any order.
        size: texts of a batch.
        names: of the model's ids, mask and types, in this order; of the first two or all three.
    """
    ordered = sorted(texts, key=len)
    found = []
    for start in range(0, len(ordered), size):
        arrays = tokenizer(ordered[start : start + size])
        found.append({name: arrays[ours] for name, ours in zip(names, INPUTS, strict=False)})
    return found
