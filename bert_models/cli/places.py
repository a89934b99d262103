"""Where models lie: paths and names to models and tokenizers, and models to new folders."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bert_models.text.tokenize import JSON_NAME, Tokenizer, encoder_settings, load_tokenizer, tokenizer_of
from bert_models.text.vocabulary import FILE_NAME, SETTINGS_NAME, rules_of
from tncompress.beside import beside

ENCODER_FILE, MLM_FILE, MODEL_FILE = "encoder.keras", "mlm.keras", "model.keras"


def check_encoder(name: str, overrides: Mapping[str, Any]) -> None:
    """Refuse what `open_encoder` cannot open, as far as can be told without Keras.

    Raises:
        FileNotFoundError: neither a path nor a preset.
        ValueError: overrides of something that is no preset, or that a `BertConfig` refuses.
    """
    if not is_path(name):
        _preset_config(name, overrides)
    elif overrides:
        raise ValueError(f"--set changes presets only, but {name!r} is a path: its sizes are those of its weights.")


def open_encoder(name: str, overrides: Mapping[str, Any], dtype: str | None = None) -> Any:
    """The encoder of that name or at that path; of what `finetune` wrote, the model with its head."""
    check_encoder(name, overrides)
    import bert_models

    if not is_path(name):
        return bert_models.build_encoder(_preset_config(name, overrides), dtype=dtype)
    if dtype is not None:
        raise ValueError(f"--dtype is for presets only; {name!r} computes in the precision that it was saved with.")
    path = _file_in(Path(name), (ENCODER_FILE, MODEL_FILE))
    return open_keras(path) if path.suffix == ".keras" else bert_models.load(path)


def check_model(path: str) -> None:
    """Refuse what is neither a `.keras` file nor a folder that `finetune` or `distil` wrote.

    Raises:
        FileNotFoundError: there is none.
    """
    if not _file_in(Path(path), (MODEL_FILE,)).is_file():
        raise FileNotFoundError(f"there is no model {path!r}: give a .keras file, or a folder with {MODEL_FILE} in it.")


def bare(model: Any) -> Any:
    """Without a head for a task; a `MaskedLM` keeps its own."""
    from bert_models.finetuning.heads import encoder_in

    return model if hasattr(model, "encoder") else encoder_in(model) or model


def open_keras(path: str | Path) -> Any:
    """The model of a `.keras` file, or of a folder that `finetune` or `distil` wrote."""
    import bert_models  # noqa: F401 - its classes are registered when Keras is there
    from tncompress.conversion.saving import load

    return load(_file_in(Path(path), (MODEL_FILE,)))


def open_mlm(path: str) -> Any:
    """A `MaskedLM` of a `.keras` file, a checkpoint, or a folder that `pretrain` wrote."""
    import bert_models

    return bert_models.load_mlm(_file_in(Path(path), (MLM_FILE,)))


def is_path(name: str) -> bool:
    """Whether it is a file, a folder or the prefix of a checkpoint, or is called like a `.keras` file."""
    path = Path(name)
    return path.exists() or path.suffix == ".keras" or Path(f"{name}.index").exists()


def _file_in(path: Path, names: tuple[str, ...]) -> Path:
    """The first of these files that a folder has; else the path."""
    return next((path / name for name in names if (path / name).is_file()), path)


def _preset_config(name: str, overrides: Mapping[str, Any]) -> Any:
    from bert_models.config import BertConfig
    from bert_models.presets import preset

    try:
        found = preset(name)
    except ValueError as error:
        raise FileNotFoundError(f"there is no file or folder {name!r}, and {error}") from None
    # Kinds of attention and of feed-forward maps may be tables here, as in BertConfig.to_dict().
    return BertConfig.from_dict({**found.settings, **overrides})


def open_tokenizer(path: str | None, *models: str) -> Tokenizer:
    """The tokenizer at a path, or else the first that lies beside a model.

    Args:
        path: of a folder, a `vocab.txt` or a `tokenizer.json`.
        models: names or paths, as the commands take them.

    Raises:
        FileNotFoundError: no path was given and none lies there; or the path leads to nothing.
        ValueError: the file is damaged, or no vocabulary.
    """
    if path is not None:
        return tokenizer_at(path)
    found = next((place for place in map(text_folder, models) if place), None)
    if found is None:
        raise FileNotFoundError(
            f"no tokenizer lies with {' or '.join(map(repr, models))}: give --tokenizer, a vocab.txt or the folder "
            "with one."
        )
    return load_tokenizer(found)


def text_folder(model: str) -> Path | None:
    """The folder with the tokenizer of a model, in or beside its path; None if there is none."""
    place = Path(model).parent if Path(model).is_file() else Path(model)
    names = (JSON_NAME, FILE_NAME, f"assets/{FILE_NAME}")
    return place if any((place / name).is_file() for name in names) else None


def tokenizer_at(path: str | Path) -> Tokenizer:
    """The tokenizer in a folder, or that of a `vocab.txt` or `*.json` file with the settings that lie beside it.

    Raises:
        FileNotFoundError: the path leads to nothing.
        ValueError: the file is damaged, or no vocabulary.
    """
    file = Path(path)
    if file.is_dir():
        return load_tokenizer(file)
    if not file.is_file():
        raise FileNotFoundError(f"No file {str(path)!r}: give a {JSON_NAME} or {FILE_NAME}, or the folder with one.")
    return tokenizer_of(file, encoder_settings(file.parent))


def check_same_tokens(tokenizer: Tokenizer, *models: str) -> None:
    """Refuse models in whose folders lies a tokenizer with other tokens.

    Raises:
        ValueError: there is one.
    """
    for model in models:
        folder = text_folder(model)
        if folder and load_tokenizer(folder).backend.get_vocab() != tokenizer.backend.get_vocab():
            raise ValueError(
                f"the tokenizer in {str(folder)!r} has other tokens than the one in use, but teacher and student see "
                "the same ones: take models of one vocabulary."
            )


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """What `load_tokenizer` reads."""
    import json

    tokenizer.backend.save(str(folder / JSON_NAME))
    settings = {**rules_of(tokenizer.backend), "model_max_length": tokenizer.max_length}
    (folder / SETTINGS_NAME).write_text(json.dumps(settings, indent=1) + "\n", "utf-8")


def check_new(folder: str) -> Path:
    """A path at which a folder can be made.

    Raises:
        FileExistsError, FileNotFoundError: it is there already, or the folder around it is not.
    """
    path = Path(folder)
    if path.exists():
        raise FileExistsError(f"{folder} exists; choose another name for --out, or remove it first.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"the folder {path.absolute().parent} does not exist; make it first.")
    return path


def save_beside(models: Mapping[str, Any], folder: Path) -> None:
    """Name of a file -> model: all written beside, then renamed; what was there stays whole until then."""
    with contextlib.ExitStack() as places:
        for name, model in models.items():
            model.save(places.enter_context(beside(folder / name)))
