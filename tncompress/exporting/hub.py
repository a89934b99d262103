"""A SavedModel as on TF Hub: `bert_models.export`, for its encoders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tncompress.exporting.job import Job, leaves


def write(job: Job, place: Path) -> str:
    """Write the folder.

    Raises:
        TypeError: not a model of `bert_models`.
    """
    import bert_models

    mlm = job.model if isinstance(job.model, bert_models.MaskedLM) else None
    bert_models.export(job.model.encoder if mlm else job.model, place, mlm=mlm)
    return "SavedModel, common interface for text encoders"


def read(job: Job, place: Path) -> Callable[[Any], dict]:
    """What runs it."""
    import tensorflow as tf

    import bert_models

    loaded = tf.saved_model.load(str(place))
    run = loaded.mlm if isinstance(job.model, bert_models.MaskedLM) else loaded

    def outputs(inputs: Any) -> dict:
        return leaves(run({name: tf.convert_to_tensor(value) for name, value in inputs.items()}))

    outputs.loaded = loaded  # TensorFlow forgets the variables of what nobody holds
    return outputs
