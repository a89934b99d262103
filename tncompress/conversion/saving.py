"""Models that remember that they were compressed, so that they can be saved and loaded like any other.

The config of a compressed model is the config of the dense model plus what was put where. Loading makes the dense
model, puts the empty networks in, and lets Keras load the weights: classes that build their own sublayers need to know
nothing of it, nothing is unpickled, and safe mode stays on.
"""

import os
import re
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import keras

from tncompress.beside import beside
from tncompress.conversion.adapted import adapt, adaptations_of
from tncompress.conversion.curves import Front
from tncompress.conversion.embeddings import put_embeddings
from tncompress.conversion.opening import checked_config, import_own_modules, weights_within
from tncompress.conversion.outcomes import Compression, Outcome
from tncompress.conversion.presets import BACKBONE, checked_preset, open_preset, size_of
from tncompress.conversion.surgery import first_line, put_networks, rebuilt
from tncompress.fitting.choice import Bands, Choice
from tncompress.layers.dense import TNDense
from tncompress.layers.embedding import TNEmbedding

_UNKNOWN = re.compile(r"Could not locate (class|function) '(?:\w+>)?(\w{1,200})'")  # as Keras says it


class CompressedModel:
    """What a compressed model has besides the class of the dense one. See `compression_of`."""

    dense_class: type
    _compression: Compression
    _has_slots = False  # it is made of a file that holds the optimizer's state

    def __new__(cls, *args: Any, **kwargs: Any) -> keras.Model:
        # Who makes one from parts, as keras.models.clone_model does, gets an ordinary model with the same layers.
        return cls.dense_class(*args, **kwargs)

    def get_config(self) -> dict:
        return {
            "dense": self._compression.dense,
            "outcomes": [outcome.to_config() for outcome in self._compression.outcomes],
            "params": self._compression.params,
            "measured_loss": self._compression.measured_loss,
            "front": self._compression.front.to_config() if self._compression.front else None,
            "adapted": adaptations_of(self),  # type: ignore[arg-type]
            "slots": bool(getattr(getattr(self, "optimizer", None), "built", False)),
        }

    @classmethod
    def from_config(cls, config: Mapping, custom_objects: Mapping | None = None) -> keras.Model:
        model = rebuilt(config["dense"], custom_objects)
        outcomes = tuple(map(Outcome.from_config, config["outcomes"]))
        front = Front.from_config(config.get("front"))
        compression = Compression(config["dense"], outcomes, config.get("params"), config.get("measured_loss"), front)
        put_choices(model, compression.recipe)
        adapt(model, config.get("adapted", {}))
        remember(model, compression)
        object.__setattr__(model, "_has_slots", config.get("slots", True))
        return model

    def compile_from_config(self, config: dict) -> None:
        """As in Keras, but the optimizer's slots, twice the weights, are made with the first step if there is no state.

        Keras makes them at once for a model that is built, and writes them into its file.
        """
        built = self.built  # type: ignore[has-type]
        self.built = built and self._has_slots
        try:
            super().compile_from_config(config)  # type: ignore[misc]
        finally:
            self.built = built

    def save(self, filepath: str | os.PathLike, overwrite: bool = True, **kwargs: Any) -> None:
        """As `keras.Model.save`, but a save that fails leaves an older file as it was."""
        path = Path(filepath)
        if path.suffix in (".h5", ".hdf5"):
            raise ValueError(
                f"A compressed model could not be loaded from {path.name}; save it as '{path.stem}.keras'."
            )
        if path.suffix != ".keras" or "://" in str(filepath):  # not a file of ours: Keras's own rules and errors
            super().save(filepath, overwrite=overwrite, **kwargs)  # type: ignore[misc]
            return
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; choose another name or overwrite=True.")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"The folder {path.parent} does not exist; make it first.")
        with beside(path) as place:
            super().save(place, **kwargs)  # type: ignore[misc]


def put_choices(model: keras.Model, choices: Mapping[str, Choice | Bands]) -> dict[str, TNDense | TNEmbedding]:
    """Put empty networks and tables in bands in the place of the layers at these paths, in a fresh model."""
    dense = {path: choice for path, choice in choices.items() if isinstance(choice, Choice)}
    tables = {path: choice.bands for path, choice in choices.items() if isinstance(choice, Bands)}
    return {**put_networks(model, dense), **put_embeddings(model, tables)}


def remember(model: keras.Model, compression: Compression) -> keras.Model:
    """Make a model one that remembers its compression; it stays of the class that it was."""
    if not isinstance(model, CompressedModel):
        model.__class__ = _compressed_class(type(model))
    object.__setattr__(model, "_compression", compression)
    object.__setattr__(model, "_has_slots", False)
    return model


@cache
def _compressed_class(base: type) -> type:
    cls = type(f"Compressed{base.__name__}", (CompressedModel, base), {"__module__": __name__, "dense_class": base})
    # One registered name for all: which class it is, is in the config of the dense model.
    return keras.saving.register_keras_serializable(package="tncompress", name="CompressedModel")(cls)


_compressed_class(keras.Model)  # a process that only loads knows the name


def compression_of(model: keras.Model) -> Compression | None:
    """How a model was compressed; None if it was not."""
    return getattr(model, "_compression", None)


def load(path: str | os.PathLike, custom_objects: Mapping | None = None, *, keep: float | None = None) -> keras.Model:
    """Load a model that was saved with `model.save("name.keras")`. Safe mode stays on; nothing is unpickled.

    Args:
        path: of the `.keras` file, or of a folder that KerasHub's `save_to_preset` wrote.
        custom_objects: classes of your own by name, unless they are registered with Keras.
        keep: load an elastic model smaller than it was saved: the fraction of the replaced layers' original parameters
            that stays. See `replace_dense(elastic=True)`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a Keras model, damaged, needs classes that are not known, or has no such size.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    is_preset = (path / BACKBONE).is_file()
    if not is_preset and not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a .keras file, or is damaged: save the model again with model.save('x.keras')."
        )
    try:
        config = checked_preset(path) if is_preset else checked_config(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be loaded ({error}): it is damaged, or not to be trusted.") from None
    import_own_modules(config)
    try:
        with weights_within(size_of(path) if is_preset else path.stat().st_size):
            if is_preset:
                model = open_preset(path, config, custom_objects)
            else:
                model = keras.saving.load_model(path, custom_objects=custom_objects)
    except Exception as error:  # many kinds, by what is broken
        if unknown := _UNKNOWN.search(str(error)):
            kind, name = unknown.groups()
            raise ValueError(
                f"{path} cannot be loaded: there is no {kind} {name} here; import the module that defines and "
                f"registers {name}, or give custom_objects={{{name!r}: {name}}}."
            ) from None
        raise ValueError(
            f"{path} cannot be loaded ({first_line(error)}). If the model has layers of your own, register them "
            "with Keras or pass custom_objects; otherwise the file is damaged."
        ) from None
    if keep is None:
        return model
    from tncompress.conversion.elastic import shrunk  # which knows of compressed models from here

    return shrunk(model, keep)
