"""`export`: a model as a file that other engines run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tncompress.beside import beside
from tncompress.conversion.walking import walk
from tncompress.exporting.formats import Format, check_target, format_of
from tncompress.exporting.job import Job, signature_of

# Over the largest output: engines that compute the same in float32 differ by 1e-5 or less. In half precision they may
# differ by anything, and are not judged.
LARGEST_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        to: the format.
        files: of it; those of a folder all.
        num_bytes: of the files together.
        version: of the format, e.g. `"ONNX opset 18"`.
        inputs: shapes by name; None: any length.
        int8: weights as int8.
        max_difference: the largest one of outputs on the `check` inputs from the model's in Keras; None: not checked.
        mean_cosine: of the outputs' last axes with those of the model, over all of them but those of length one; None:
            not checked, or there are no others.
    """

    to: str
    files: tuple[Path, ...]
    num_bytes: int
    version: str
    inputs: Mapping[str, tuple[int | None, ...]]
    int8: bool = False
    max_difference: float | None = None
    mean_cosine: float | None = None

    def to_config(self) -> dict:
        """As a JSON-able value."""
        return {**asdict(self), "files": list(map(str, self.files))}


def export(
    model: keras.Model,
    path: str | Path,
    to: str,
    *,
    int8: bool = False,
    check: Any = None,
    outputs: Sequence[str] = (),
    overwrite: bool = False,
) -> Exported:
    """Write a model, compressed or not, for another engine. The forward pass only, and without random dropping out.

    Nothing is left at `path` but what was there before, or the whole new file or folder.

    Args:
        model: built. What it takes and gives goes by name: the names of its `keras.Input`s, and the keys of its outputs
            (lists as `name_0`, `name_1` ...; a model with one output has `output`).
        path: for `"onnx"` a file `*.onnx`, for `"litert"` a file `*.tflite`, else a folder.
        to: `"savedmodel"`, `"onnx"`, `"litert"`, `"openvino"`; for encoders of `bert_models` also `"hub"` and
            `"huggingface"`, which are `bert_models.export` and `bert_models.export_huggingface` without their options.
        int8: weights as int8, activations quantised where they arise (onnx, litert and openvino).
        check: a batch of inputs, as the model takes them: the file is run on them and compared with the model. A model
            that is neither functional nor sequential also tells by them what it takes.
        outputs: names of those to write; none: all. Not for hub and huggingface.
        overwrite: replace a file, or a folder that this made.

    Raises:
        ValueError: no such format, or one that cannot hold what is asked for; a wrong suffix; the model computes in a
            dtype that the format has not.
        ImportError: packages are missing; says which, and the command that installs them.
        TypeError, RuntimeError: not a built Keras model, another backend than TensorFlow, or an operation that the
            format lacks; also if the file gives other outputs than the model on the `check` inputs.
        FileExistsError, FileNotFoundError: the target is taken, or its parent does not exist.

    Example:
        tncompress.export(small, "small.onnx", "onnx", int8=True, check=batch).mean_cosine
    """
    path, chosen = Path(path), format_of(to, int8=int8)
    check_target(chosen, path, overwrite=overwrite)
    _check_model(model, chosen, outputs)
    module = chosen.load()
    job = Job(model, signature_of(model, check), tuple(outputs), int8)
    with beside(path) as place:
        version = module.write(job, place)
        found = {} if check is None else _compared(job, chosen, module.read(job, place), job.arrays(check))
    files = tuple(sorted(file for file in path.rglob("*") if file.is_file())) if path.is_dir() else (path,)
    shapes = {name: tuple(spec.shape) for name, spec in job.inputs.items()}
    return Exported(to, files, sum(file.stat().st_size for file in files), version, shapes, int8, **found)


def _check_model(model: keras.Model, chosen: Format, outputs: Sequence[str]) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"export takes a Keras model, got {type(model).__name__}.")
    backend = keras.backend.backend()
    if not chosen.any_backend and backend != "tensorflow":
        raise RuntimeError(
            f"Export to {chosen.title} needs Keras's tensorflow backend, but it runs on {backend}: save the model as "
            "x.keras and export it in a process with KERAS_BACKEND=tensorflow."
        )
    if chosen.encoders_only and outputs:
        raise ValueError(f"Export to {chosen.title} writes all outputs; leave out outputs={list(outputs)}.")
    if not model.built:
        raise RuntimeError(f"The model {model.name!r} is not built, so it has no weights yet; call it once.")
    if chosen.float32_only and (other := _other_dtype(model)):
        raise ValueError(
            f"Export to {chosen.title} takes models that compute in float32, but {other[0]} does in {other[1]}; make "
            "the model with that dtype and give it these weights."
        )


def _other_dtype(model: keras.Model) -> tuple[str, str] | None:
    """A layer that computes in another dtype than float32, and which; None if there is none."""
    found = ((path, layer.compute_dtype) for path, layer in walk(model) if layer.weights)
    return next((one for one in found if one[1] != "float32"), None)


def _compared(job: Job, chosen: Format, run: Callable, arrays: Any) -> dict[str, float | None]:
    """What `Exported` says of the outputs on the check inputs."""
    wanted = {name: keras.ops.convert_to_numpy(value) for name, value in job.call(arrays).items()}
    found = run(arrays)
    pairs = [(np.asarray(found[name], "float64"), wanted[name].astype("float64")) for name in wanted]
    # Not Python's max, which loses a NaN that does not come first
    difference = float(np.max([np.abs(a - b).max(initial=0.0) for a, b in pairs]))
    largest = float(np.max([np.abs(b).max(initial=0.0) for _, b in pairs]))
    is_judged = not job.int8 and not _other_dtype(job.model)
    if is_judged and not difference <= LARGEST_DIFFERENCE * max(1.0, largest):
        raise RuntimeError(
            f"The file made by export to {chosen.title} gives other outputs than the model, by up to {difference:.2g}; "
            "it is not kept."
        )
    return {"max_difference": difference, "mean_cosine": _mean_cosine(pairs)}


def _mean_cosine(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Of vectors along the last axis; of single numbers it would tell signs alone."""
    cosines = [
        np.sum(a * b, axis=-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-30)
        for a, b in (map(np.atleast_1d, pair) for pair in pairs)
        if a.shape[-1] != 1
    ]
    return float(np.mean(np.concatenate([np.ravel(found) for found in cosines]))) if cosines else None
