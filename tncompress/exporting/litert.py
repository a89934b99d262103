"""LiteRT (TensorFlow Lite), with its own operations only: any batch, and any length that the model takes."""

import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tensorflow as tf

from tncompress.conversion.surgery import first_line
from tncompress.exporting import saved_model
from tncompress.exporting.job import Job

SCHEMA = 3  # of the file, the only one there is


def write(job: Job, place: Path) -> str:
    """Write the file; with int8, weights of 1,024 numbers and more are int8 (dynamic range quantisation).

    Raises:
        RuntimeError: LiteRT lacks an operation.
    """
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        saved_model.write(job, Path(folder, "model"))
        converter = tf.lite.TFLiteConverter.from_saved_model(f"{folder}/model", signature_keys=["serving_default"])
        if job.int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        try:
            place.write_bytes(converter.convert())
        except Exception as error:  # the converter has several kinds
            raise RuntimeError(
                f"The model {job.model.name!r} needs what LiteRT's own operations do not have ({first_line(error)}); "
                "export it to another format."
            ) from None
    return f"LiteRT schema {SCHEMA}, by TensorFlow {tf.__version__}"


def read(job: Job, place: Path) -> Callable[[Any], dict]:
    """What runs it."""
    if find_spec("ai_edge_litert"):
        from ai_edge_litert.interpreter import Interpreter
    else:
        Interpreter = tf.lite.Interpreter  # noqa: N806
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # TensorFlow's own one will go
        runner = Interpreter(str(place)).get_signature_runner("serving_default")
    return lambda inputs: dict(runner(**job.feed(inputs)))
