"""Damaged shards, told by their names: TensorFlow notices one while it reads, but does not say which."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tensorflow as tf

from bert_models.pretraining.info import read_info
from bert_models.pretraining.reading import features, parsed
from bert_models.pretraining.records import INPUTS
from bert_models.pretraining.settings import DataSettings
from tncompress.limits import shown_error

_CHUNK = 1024  # records that are looked at together
_ABOUT_OPERATIONS = re.compile(r"\{\{.*?\}\}|\[(?:Op:|\[).*", re.DOTALL)  # what TensorFlow puts around a reason
_ERRORS = (tf.errors.DataLossError, tf.errors.InvalidArgumentError)


@contextmanager
def told_in_words(*folders: str | Path) -> Iterator[None]:
    """Round what reads batches of these folders: says in one sentence which shard is damaged.

    Every record has a checksum, which is compared when it is read. To find the shard, all are read again.

    Args:
        folders: of pretraining data.

    Raises:
        ValueError: a record was changed, or is of data with other settings.

    Example:
        with told_in_words("data"):
            model.fit(dataset("data", 32))
    """
    try:
        yield
    except _ERRORS as error:
        if isinstance(error, tf.errors.InvalidArgumentError) and "ParseExample" not in str(error):
            raise  # of the model
        for folder in folders:
            if damage := _damage(Path(folder)):
                raise ValueError(
                    f"{folder} has a damaged shard ({damage}); copy it again, or write it again."
                ) from None
        raise


def _damage(folder: Path) -> str | None:
    """The first shard that cannot be read, and why; None if all can."""
    info = read_info(folder)
    wanted = features(DataSettings(**info["settings"]))
    found = ((shard["name"], _reason(folder / shard["name"], shard["records"], wanted)) for shard in info["shards"])
    return next((f"{name}: {reason}" for name, reason in found if reason), None)


def _reason(file: Path, records: int, wanted: Mapping[str, Any]) -> str | None:
    """Why a shard cannot be read."""
    found = 0
    try:
        for batch in tf.data.TFRecordDataset(str(file)).batch(_CHUNK).map(lambda texts: parsed(texts, wanted)):
            found += len(batch[INPUTS[0]])
    except _ERRORS as error:
        return shown_error(ValueError(_ABOUT_OPERATIONS.sub("", error.message)))
    return None if found == records else f"it has {found:,} records, but {records:,} were written"
