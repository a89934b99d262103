"""Models that remember that they were compressed, so that they can be saved and loaded like any other.

The config of a compressed model is the config of the dense model plus what was put where. Loading makes the dense
model, puts the empty networks in, and lets Keras load the weights: classes that build their own sublayers need to know
nothing of it, nothing is unpickled, and safe mode stays on.
"""

import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import keras

from tncompress.conversion.curves import Front, Spectrum
from tncompress.conversion.embeddings import put_embeddings
from tncompress.conversion.opening import checked_config, import_own_modules, weights_within
from tncompress.conversion.surgery import first_line, put_networks, rebuilt
from tncompress.fitting.choice import Bands, Choice, choice_from_config
from tncompress.layers.dense import TNDense
from tncompress.layers.embedding import TNEmbedding


class Times(NamedTuple):
    """Seconds of a layer as it was, and of the network in its place, measured side by side."""

    dense: float
    network: float


@dataclass(frozen=True)
class Outcome:
    """What became of one dense layer.

    Args:
        path: of the layer.
        in_dim, out_dim: features.
        choice: the network in its place; None if it stayed dense.
        method: how the cores were fitted.
        weight_error: ||W - W'|| / ||W||.
        output_error: relative error of the layer's outputs on the calibration data, if there were any.
        loss_error: the same weighted by what the outputs do to the objective, if there was one.
        predicted_loss: what this layer's error is expected to change about the objective, as a fraction of its
            variance, to first order and by itself.
        held_out_ratio: relative error on calibration inputs that were held out, over that on the others.
        reason: why it stayed as it was.
        params: of the kernel or the cores that it had; None: in_dim x out_dim.
        is_table: it is a table of embeddings, its dimensions are tokens and features.
        times: of the layer before and after, where they were measured.
        losses, codes: of each component of an elastic network, see `tncompress.conversion.elastic`.
        spectrum: singular values that a low-rank network cuts off at its rank.
    """

    path: str
    in_dim: int
    out_dim: int
    choice: Choice | Bands | None = None
    method: str = ""
    weight_error: float | None = None
    output_error: float | None = None
    loss_error: float | None = None
    predicted_loss: float | None = None
    held_out_ratio: float | None = None
    reason: str | None = None
    params: int | None = None
    is_table: bool = False
    times: Times | None = None
    losses: tuple[float, ...] = ()
    codes: tuple[float, ...] = ()
    spectrum: Spectrum | None = None

    def to_config(self) -> dict:
        """A JSON-able value from which `from_config` makes this outcome again."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
        if self.spectrum:
            lists["spectrum"] = self.spectrum.to_config()
        return {**values, **lists, "choice": self.choice.to_config() if self.choice else None}

    @classmethod
    def from_config(cls, config: Mapping) -> "Outcome":
        """The outcome that `to_config` described."""
        choice = config["choice"]
        tuples = {name: tuple(config.get(name, ())) for name in ("losses", "codes")}
        if config.get("times") is not None:
            tuples["times"] = Times(*config["times"])
        tuples["spectrum"] = Spectrum.from_config(config.get("spectrum"))
        return cls(**{**config, **tuples, "choice": choice_from_config(choice) if choice else None})


@dataclass(frozen=True)
class Compression:
    """How a compressed model came about.

    Args:
        dense: the config of the dense model.
        outcomes: what became of its layers.
        params: of the dense model; None if it is not known.
        measured_loss: what changed about the objective on calibration inputs that were held out, as a fraction of its
            variance; None without an objective.
        front: what the budget could have chosen; None where each layer had its own, or a recipe chose.
    """

    dense: Mapping
    outcomes: tuple[Outcome, ...]
    params: int | None = None
    measured_loss: float | None = None
    front: Front | None = None

    @property
    def recipe(self) -> dict[str, Choice | Bands]:
        """What was put where."""
        return {outcome.path: outcome.choice for outcome in self.outcomes if outcome.choice}


class CompressedModel:
    """What a compressed model has besides the class of the dense one. See `compression_of`."""

    dense_class: type
    _compression: Compression

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
        }

    @classmethod
    def from_config(cls, config: Mapping, custom_objects: Mapping | None = None) -> keras.Model:
        model = rebuilt(config["dense"], custom_objects)
        outcomes = tuple(map(Outcome.from_config, config["outcomes"]))
        front = Front.from_config(config.get("front"))
        compression = Compression(config["dense"], outcomes, config.get("params"), config.get("measured_loss"), front)
        put_choices(model, compression.recipe)
        return remember(model, compression)

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
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
            beside = Path(folder) / path.name
            super().save(beside, **kwargs)  # type: ignore[misc]
            os.replace(beside, path)


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
        path: of the `.keras` file.
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
    if path.is_dir() or not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a .keras file, or is damaged: save the model again with model.save('x.keras')."
        )
    try:
        config = checked_config(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be loaded ({error}): it is damaged, or not to be trusted.") from None
    import_own_modules(config)
    try:
        with weights_within(path.stat().st_size):
            model = keras.saving.load_model(path, custom_objects=custom_objects)
    except Exception as error:  # many kinds, by what is broken
        raise ValueError(
            f"{path} cannot be loaded ({first_line(error)}). If the model has layers of your own, register them "
            "with Keras or pass custom_objects; otherwise the file is damaged."
        ) from None
    if keep is None:
        return model
    from tncompress.conversion.elastic import shrunk  # which knows of compressed models from here

    return shrunk(model, keep)
