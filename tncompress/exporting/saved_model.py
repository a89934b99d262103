"""TensorFlow's SavedModel: `serve(inputs)` and the signature `serving_default`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tncompress.conversion.walking import walk
from tncompress.exporting.job import Job


def write(job: Job, place: Path) -> str:
    """Write the folder."""
    archive = keras.export.ExportArchive()
    # The endpoint brings the weights; a model that is tracked besides would have them in the file twice. Tables of
    # strings it does not bring.
    for layer in {id(layer): layer for _, layer in walk(job.model) if hasattr(layer, "save_assets")}.values():
        archive.track(layer)
    archive.add_endpoint(name="serve", fn=job.call, input_signature=[job.signature])
    archive.write_out(str(place), verbose=False)
    return f"SavedModel of TensorFlow {tf.__version__}"


def read(job: Job, place: Path) -> Callable[[Any], dict]:
    """What runs it."""
    loaded = tf.saved_model.load(str(place))
    return lambda inputs: {name: value.numpy() for name, value in loaded.serve(inputs).items()}
