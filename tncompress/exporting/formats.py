"""The formats that models can be exported to, as a table. Each has a module, loaded only when it is asked for."""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from tncompress.naming import did_you_mean


@dataclass(frozen=True)
class Format:
    """What is known of a format before anything is written.

    Args:
        title: its name in sentences.
        module: below `tncompress.exporting`; it has

            * `write(job, place) -> str`, which writes the file or folder and says its version;
            * `read(job, place)`, a function from the inputs of the model to its outputs by name.

        suffix: of the file; "" for a folder.
        marker: for a folder, the file by which it is known again.
        packages: needed besides TensorFlow.
        extra: of this distribution, which brings the packages.
        can_int8: weights can be written as int8.
        float32_only: for models that compute in float32.
        any_backend: written on every backend of Keras, not on TensorFlow's only.
        encoders_only: for encoders of `bert_models`.
    """

    title: str
    module: str
    suffix: str = ""
    marker: str = ""
    packages: tuple[str, ...] = ()
    extra: str = ""
    can_int8: bool = True
    float32_only: bool = False
    any_backend: bool = False
    encoders_only: bool = False

    def load(self) -> ModuleType:
        """Its module."""
        return importlib.import_module(f"tncompress.exporting.{self.module}")


_ONNX = ("onnx", "onnxruntime", "tf2onnx")
# fmt: off
FORMATS = {
    "savedmodel": Format("SavedModel", "saved_model", marker="saved_model.pb", can_int8=False),
    "onnx": Format("ONNX", "onnx_file", ".onnx", packages=_ONNX, extra="onnx", float32_only=True),
    "litert": Format("LiteRT", "litert", ".tflite", float32_only=True),
    "openvino": Format("OpenVINO", "openvino_folder", marker="openvino_model.xml", packages=(*_ONNX, "openvino"),
                       extra="openvino", float32_only=True),
    "hub": Format("TF Hub", "hub", marker="saved_model.pb", can_int8=False, encoders_only=True),
    "huggingface": Format("Hugging Face", "huggingface", marker="config.json", can_int8=False, any_backend=True,
                          encoders_only=True),
}
# fmt: on


def format_of(name: str, *, int8: bool) -> Format:
    """The format of that name.

    Raises:
        ValueError: there is none, or it has no int8.
        ImportError: it needs packages that are not installed.

    >>> format_of("pickle", int8=False)
    Traceback (most recent call last):
    ValueError: There is no format 'pickle'; there are savedmodel, onnx, litert, openvino, hub and huggingface.
    """
    if name not in FORMATS:
        raise ValueError(f"There is no format {name!r}; there are {_listed(FORMATS)}.{did_you_mean(name, FORMATS)}")
    chosen = FORMATS[name]
    if int8 and not chosen.can_int8:
        able = _listed(other for other, one in FORMATS.items() if one.can_int8)
        raise ValueError(f"{chosen.title} is written in the model's own dtype, without int8=True; {able} have int8.")
    missing = [package for package in chosen.packages if find_spec(package) is None]
    if missing:
        raise ImportError(
            f"Export to {chosen.title} needs {_listed(missing)}, not installed here: "
            f"pip install 'tncompress[{chosen.extra}]'."
        )
    return chosen


def check_target(chosen: Format, path: Path, *, overwrite: bool) -> None:
    """Refuse a place where nothing can or shall be written, before any work is done.

    Raises:
        ValueError: the path has not the format's suffix.
        FileNotFoundError: the folder that it should be in does not exist.
        FileExistsError: there is something, and overwrite is off or it is something else than this format writes.
    """
    if path.suffix != chosen.suffix and (chosen.suffix or path.suffix in (".keras", ".onnx", ".tflite", ".xml")):
        wanted = f"one file, *{chosen.suffix}" if chosen.suffix else "a folder, named without a suffix"
        raise ValueError(f"Export to {chosen.title} makes {wanted}; got the path {str(path)!r}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist; make it first.")
    if not path.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or overwrite=True.")
    if not (path.is_file() if chosen.suffix else (path / chosen.marker).is_file()):
        raise FileExistsError(
            f"{path} exists and is not what export to {chosen.title} makes, so it is not overwritten; "
            "choose another name."
        )


def _listed(names: Iterable[str]) -> str:
    *rest, last = names
    return f"{', '.join(rest)} and {last}" if rest else last
