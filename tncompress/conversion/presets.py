"""Folders that KerasHub's `save_to_preset` writes, of compressed models or of tasks made of compressed backbones.

KerasHub's own `from_preset` compares the class that it is called on with that of the registered name in the folder, and
all compressed models have one name. But Keras needs no class to read one: see `conversion.saving`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from tncompress.conversion.opening import WEIGHTS, check_no_code, check_weights
from tncompress.limits import json_object, shown_error

BACKBONE, TASK, TASK_WEIGHTS = "config.json", "task.json", "task.weights.h5"


def checked_preset(folder: Path) -> dict[str, Any]:
    """The config of the task in a folder, or else of the backbone, after a look at all that is made of it.

    Raises:
        FileNotFoundError: it has no weights in one file.
        ValueError: a file is damaged, declares far more numbers than it has, or holds code. The sentence does not name
            the folder.
    """
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(
            f"{folder} has no {WEIGHTS}: give a .keras file, or what KerasHub's save_to_preset wrote, with "
            "max_shard_size=None where it has more than 10 GB."
        )
    try:
        config = json_object(folder / (TASK if _is_task(folder) else BACKBONE))
        check_no_code(config)
        for file in _weights(folder):
            check_weights(file.read_bytes())
    except Exception as error:  # ours, and of HDF5
        raise ValueError(shown_error(error)) from None
    return config


def size_of(folder: Path) -> int:
    """Bytes of the weights."""
    return sum(file.stat().st_size for file in _weights(folder))


def open_preset(folder: Path, config: Mapping[str, Any], custom_objects: Mapping | None = None) -> keras.Model:
    """The task, with its preprocessor, or the backbone. Safe mode stays on.

    Args:
        folder: that was checked.
        config: what `checked_preset` gave.
        custom_objects: classes by name, those that are not registered with Keras.
    """
    model: Any = keras.saving.deserialize_keras_object(dict(config), custom_objects)
    backbone, *heads = _weights(folder)
    (model.backbone if _is_task(folder) else model).load_weights(backbone)
    for file in heads:
        model.load_task_weights(file)
    preprocessor: Any = getattr(model, "preprocessor", None)
    if hasattr(preprocessor, "load_preset_assets"):
        preprocessor.load_preset_assets(str(folder.absolute()))  # vocabularies
    return model


def _is_task(folder: Path) -> bool:
    return (folder / TASK).is_file()


def _weights(folder: Path) -> list[Path]:
    """Those of the backbone, and of what a task has besides."""
    head = folder / TASK_WEIGHTS
    return [folder / WEIGHTS, *([head] if _is_task(folder) and head.is_file() else [])]
