"""What is looked at in a `.keras` file before Keras opens it, so that a file of somebody else's does no harm.

Keras makes weights of any size that a config asks for, reads small files of numbers that unpack to gigabytes, and
refuses code only where it comes across it. Here the whole file is checked first; nothing in it is made or run.
"""

import importlib
import io
import math
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import keras

from tncompress.limits import parsed_json, room_of, shown, shown_error

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
MOST_PARTS = 10_000  # of an archive
MOST_CONFIG = 64 << 20  # bytes
BYTES_OF_WEIGHT = 128  # that a weight takes in a file at least, with its name
CODE = "__lambda__"  # class of Python code in a config
BEYOND = ("TFSMLayer", "TorchModuleWrapper")  # classes of Keras that run what is in other files or pickled
# Modules of ours in which classes may be: no dunder names, which start programs.
OWN_MODULE = re.compile(r"(tncompress|bert_models)(\.[a-z]\w*)+", re.ASCII)


def checked_config(path: Path) -> dict[str, Any]:
    """The config in a `.keras` file, after a look at all of the file.

    Raises:
        ValueError: a part is damaged, lies outside, or asks for far more memory than the file has bytes; or the config
            holds code. The sentence does not name the file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_parts(archive, room_of(path.stat().st_size))
            config = None
            for name in archive.namelist():
                content = archive.read(name)  # all of it, so its checksum is compared
                if name == CONFIG:
                    config = parsed_json(content)
                elif name == WEIGHTS:
                    check_weights(content)
    except Exception as error:  # many kinds: ours, of archives, of compression, of HDF5
        raise ValueError(shown_error(error)) from None
    if not isinstance(config, dict):
        raise ValueError(f"its config is no JSON object but {shown(config)}")
    check_no_code(config)
    return config


def _check_parts(archive: zipfile.ZipFile, room: int) -> None:
    parts = archive.infolist()
    names = {part.filename for part in parts}
    if len(parts) > MOST_PARTS or len(names) < len(parts):
        raise ValueError(f"it has {len(parts):,} parts, of {len(names):,} names")
    if lacking := {CONFIG, WEIGHTS} - names:
        raise ValueError(f"it has no {' and no '.join(sorted(lacking))}")
    for part in parts:
        place = PurePosixPath(part.filename.replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in part.filename:
            raise ValueError(f"its part {shown(part.filename)} lies outside of it")
    if (total := sum(part.file_size for part in parts)) > room:
        raise ValueError(f"it unpacks to {total:,} bytes, far more than it has")
    if any(part.file_size > MOST_CONFIG for part in parts if part.filename.endswith(".json")):
        raise ValueError(f"its config has more than {MOST_CONFIG:,} bytes")


def check_weights(content: bytes) -> None:
    """Refuse an HDF5 file of weights that are elsewhere, or that declares far more numbers than are there.

    Raises:
        OSError, ValueError: it is one, or no HDF5 file. The sentence does not name the file.
    """
    import h5py

    room, total = room_of(len(content)), 0

    def look(name: str, found: Any) -> None:
        nonlocal total
        if isinstance(found, h5py.Group):
            if any(not isinstance(found.get(child, getlink=True), h5py.HardLink) for child in found):
                raise ValueError(f"its weights {shown(name)} lead to others by a link")
            return
        if found.external or found.is_virtual:
            raise ValueError(f"its weights {shown(name)} are in another file")
        total += math.prod(found.shape or ()) * found.dtype.itemsize
        if total > room:
            raise ValueError(f"its weights declare {total:,} bytes, far more than it has")

    with h5py.File(io.BytesIO(content), "r") as file:
        look("/", file)  # which is not among those that are visited
        file.visititems(look)


def check_no_code(config: Any) -> None:
    """Refuse a config with Python code, or with layers that run what lies in other files.

    Keras's safe mode refuses them where it comes across them. That is not everywhere: an object that is said to be
    shared with an earlier one is not looked at, until a copy of the model is made.

    Raises:
        ValueError: there is some.

    >>> check_no_code({"layers": [{"class_name": "__lambda__", "config": {}}]})
    Traceback (most recent call last):
    ValueError: it holds Python code, a lambda, which is not run
    """
    for value in _dicts_in(config):
        name = value.get("class_name")
        if name == CODE:
            raise ValueError("it holds Python code, a lambda, which is not run")
        if name in BEYOND and str(value.get("module")).startswith("keras"):
            raise ValueError(f"it holds a layer of the class {name}, which would run what is in another file")


def import_own_modules(config: Any) -> None:
    """Let Keras know the classes of this distribution's two packages that a config names, and of no other."""
    modules = (value.get("module") for value in _dicts_in(config))
    for module in sorted({m for m in modules if isinstance(m, str) and OWN_MODULE.fullmatch(m)}):
        with suppress(ImportError):
            importlib.import_module(module)


def _dicts_in(config: Any) -> Iterator[dict]:
    """All, however deep; without recursion, which has an end."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)


# -- while Keras makes the model -------------------------------------------------------------------


@dataclass
class _Room:
    weights: int
    bytes: int


_ROOM: ContextVar[_Room | None] = ContextVar("room", default=None)
_lock, _loading = threading.Lock(), 0
_add_weight = keras.layers.Layer.add_weight


@contextmanager
def weights_within(size: int) -> Iterator[None]:
    """Refuse, in this block, to make more weights than a file of `size` bytes can hold.

    Sizes in a config are those of weights, and nothing else of a config says how large these will be.

    Raises:
        ValueError: before the weight is made.
    """
    global _loading
    token = _ROOM.set(_Room(1000 + size // BYTES_OF_WEIGHT, room_of(size)))
    with _lock:
        _loading += 1
        keras.layers.Layer.add_weight = _counted
    try:
        yield
    finally:
        with _lock:
            _loading -= 1
            if not _loading:
                keras.layers.Layer.add_weight = _add_weight
        _ROOM.reset(token)


def _counted(layer: keras.layers.Layer, shape: Any = None, *args: Any, **kwargs: Any) -> Any:
    room = _ROOM.get()  # None: another thread is loading, not this one
    if room is not None:
        sizes = shape if isinstance(shape, list | tuple) else (shape or 1,)
        room.weights -= 1
        room.bytes -= 4 * math.prod(size for size in sizes if isinstance(size, int))
        if room.weights < 0 or room.bytes < 0:
            raise ValueError(
                f"its config asks for more weights than the file can hold, at {layer.name!r} with shape {shown(shape)}"
            )
    return _add_weight(layer, shape, *args, **kwargs)
