"""Checkpoints from which training goes on as if it had never stopped.

A checkpoint is one safetensors file with all that changes while a model trains: its weights, the counters of its random
numbers (dropout), and the optimizer's variables. The step and whatever decides what comes next are in its metadata, and
a checksum of all of it, which the format does not have.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tncompress.beside import beside
from tncompress.limits import parsed_json, shown, shown_error

FORMAT = 2
_WITHOUT_CHECKSUM = 1  # an earlier format, still read
_NAME = re.compile(r"checkpoint-(\d+)\.safetensors")


def save_checkpoint(
    folder: str | Path,
    step: int,
    model: keras.Model,
    settings: Mapping[str, Any] | None = None,
    *,
    keep: int = 2,
    without: Sequence[keras.Model] = (),
) -> Path:
    """Write the state of a compiled model; the file is written beside its place and renamed when it is whole.

    Args:
        folder: made if it does not exist.
        step: steps that are done.
        model: compiled, its optimizer built.
        settings: values that JSON can hold; `restore_checkpoint` refuses to go on with others.
        keep: so many of the newest checkpoints stay, older ones are removed afterwards.
        without: parts of the model that do not change, such as a teacher; their weights are left out.

    Returns:
        The file.

    Raises:
        FloatingPointError: a weight is not finite; nothing is written.
        OSError: the file cannot be written, e.g. since the disk is full; earlier checkpoints are whole.

    Example:
        save_checkpoint("run", 1000, model, {"batch_size": 256})
    """
    folder = Path(folder)
    arrays = {f"{i:06d}/{path}": value for i, (path, value) in enumerate(_state(model, without, step))}
    metadata = {"format": str(FORMAT), "step": str(step), "settings": json.dumps(settings or {}, sort_keys=True)}
    metadata["sha256"] = _checksum(metadata, sorted(arrays.items()))
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".saving-*"):  # of a process that was killed while it saved
        shutil.rmtree(left, ignore_errors=True)
    path = folder / f"checkpoint-{step:08d}.safetensors"
    try:
        with beside(path) as place:
            save_file(arrays, place, metadata)
            with place.open("rb") as stream:
                os.fsync(stream.fileno())
    except (OSError, SafetensorError) as error:
        raise OSError(_failed(folder, step, arrays, error)) from error
    for old in _checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def _checksum(metadata: Mapping[str, str], arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    """SHA-256 of all that a checkpoint says: its metadata, and every array with its name, kind and shape."""
    found = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, array in arrays:
        found.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        found.update(array.reshape(-1).view("uint8").data)
    return found.hexdigest()


def _state(model: keras.Model, without: Sequence[keras.Model], step: int) -> list[tuple[str, np.ndarray]]:
    found = []
    for variable in _variables(model, without):
        value = np.array(variable.numpy(), order="C")  # `ops.convert_to_numpy` knows no metrics of several replicas
        if not np.isfinite(value).all():
            raise FloatingPointError(
                f"{variable.path} holds values that are not finite at step {step:,}, so no checkpoint is written: "
                "lower the learning rate, lengthen the warm-up, or clip gradients, and go on from the last checkpoint."
            )
        found.append((variable.path, value))
    return found


def _variables(model: keras.Model, without: Sequence[keras.Model]) -> list[keras.Variable]:
    left_out = {id(variable) for part in without for variable in part.variables}
    return [v for v in model.variables if id(v) not in left_out] + list(model.optimizer.variables)


def _failed(folder: Path, step: int, arrays: Mapping[str, np.ndarray], error: Exception) -> str:
    size = sum(value.nbytes for value in arrays.values())
    last = newest_checkpoint(folder)
    kept = f"{last.name} is whole; training can go on from there" if last else "there is no earlier one"
    return f"the checkpoint of step {step:,}, {size:,} bytes, could not be written to {folder} ({error}): {kept}."


def newest_checkpoint(folder: str | Path) -> Path | None:
    """The checkpoint with the highest step, None if there is none."""
    found = _checkpoints(Path(folder))
    return found[-1] if found else None


def _checkpoints(folder: Path) -> list[Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    numbers = {file: int(match[1]) for file in files if (match := _NAME.fullmatch(file.name))}
    return sorted(numbers, key=lambda file: numbers[file])


def restore_checkpoint(
    file: str | Path,
    model: keras.Model,
    settings: Mapping[str, Any] | None = None,
    *,
    without: Sequence[keras.Model] = (),
) -> int:
    """Put a checkpoint's state into a model that was built and compiled as the one that was saved.

    All is compared before anything is assigned.

    Args:
        file: what `save_checkpoint` wrote.
        model, settings, without: as there.

    Returns:
        Steps that are done.

    Raises:
        ValueError: the file is damaged or of a later version, or of another model, optimizer or other settings.
    """
    variables = _variables(model, without)
    try:
        with safe_open(file, "np") as opened:
            metadata, names = opened.metadata() or {}, sorted(opened.keys())
            step, saved = _read_metadata(file, metadata)
            _check_settings(file, saved, settings or {})
            _check_same(file, [(name.partition("/")[2], opened.get_slice(name)) for name in names], variables)
            _check_sum(file, metadata, ((name, opened.get_tensor(name)) for name in names))
            for name, variable in zip(names, variables, strict=True):
                variable.assign(opened.get_tensor(name))
    except SafetensorError as error:
        raise ValueError(_damaged(file, shown_error(error))) from None
    return step


def _damaged(file: str | Path, reason: str) -> str:
    return f"{file} is damaged ({reason}); remove it to go on from the checkpoint before it."


def _read_metadata(file: str | Path, metadata: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """Step and settings."""
    try:
        step, saved = int(metadata["step"]), parsed_json(metadata["settings"])
    except (KeyError, ValueError):
        step, saved = -1, None
    known = (str(_WITHOUT_CHECKSUM), str(FORMAT))
    if metadata.get("format") not in known or step < 0 or not isinstance(saved, dict):
        raise ValueError(f"{file} is no checkpoint of training in format {' or '.join(known)}; give an empty folder.")
    return step, saved


def _check_sum(file: str | Path, metadata: Mapping[str, str], arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Refuse what was changed since it was written."""
    if metadata["format"] == str(_WITHOUT_CHECKSUM):
        return
    rest = {name: text for name, text in metadata.items() if name != "sha256"}
    if _checksum(rest, arrays) != metadata.get("sha256"):
        raise ValueError(_damaged(file, "its checksum is another one than when it was written"))


def _check_settings(file: str | Path, saved: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    given = json.loads(json.dumps(settings))
    for name in sorted({*saved, *given}):
        if saved.get(name) != given.get(name):
            raise ValueError(
                f"{file} was trained with {_word(name)}={shown(saved.get(name))}, now it is {shown(given.get(name))}: "
                "go on with the same, or give another folder."
            )


def _check_same(file: str | Path, saved: Sequence[tuple[str, Any]], variables: Sequence[keras.Variable]) -> None:
    """Refuse another model or optimizer by the first variable that differs."""
    advice = "Build the model and its optimizer as they were, or give another folder."
    for (path, part), variable in zip(saved, variables, strict=False):
        there, here = (_plain(path), tuple(part.get_shape())), (_plain(variable.path), tuple(variable.shape))
        if there != here:
            raise ValueError(
                f"{file} is of another model: it has {_word(path)} {shown(list(there[1]))} where this one has "
                f"{variable.path} {list(here[1])}. {advice}"
            )
    if len(saved) != len(variables):
        raise ValueError(
            f"{file} is of another model: it has {len(saved)} variables, this one has {len(variables)}. {advice}"
        )


def _word(name: str) -> str:
    """A name of a file's as errors show it."""
    return shown(name).strip("'")


def _plain(path: str) -> str:
    """The path without the numbers that Keras gives to names; variables are compared in their order anyway.

    >>> _plain("encoder_1/dropout_3/seed_generator_17/state"), _plain("lamb_2/dense_4_kernel_momentum")
    ('encoder/dropout/seed_generator/state', 'lamb/dense_kernel_momentum')
    """
    return re.sub(r"_\d+(?=[/_]|$)", "", path)
