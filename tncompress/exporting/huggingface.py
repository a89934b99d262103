"""A folder as Hugging Face's `transformers` reads it: `bert_models.export_huggingface`, for BERT without networks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tncompress.exporting.job import Job, leaves


def write(job: Job, place: Path) -> str:
    """Write the folder.

    Raises:
        TypeError: not a model of `bert_models`.
        ValueError: it is built in another way than BERT.
    """
    import bert_models

    bert_models.export_huggingface(job.model, place)
    return "Hugging Face BERT, safetensors"


def read(job: Job, place: Path) -> Callable[[Any], dict]:
    """What runs it: read back."""
    from keras import ops

    import bert_models

    load = bert_models.load_mlm if isinstance(job.model, bert_models.MaskedLM) else bert_models.load
    model = load(place)
    return lambda inputs: {name: ops.convert_to_numpy(value) for name, value in leaves(model(inputs)).items()}
