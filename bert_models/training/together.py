"""Where processes that train together meet: they agree before the first step, and notice when one is lost."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from bert_models.training.distribute import place
from bert_models.training.leaving import LostProcess
from tncompress.conversion.surgery import first_line

# What errors of JAX say, in any case of letters, when another process does not answer: of Gloo (CPU), NCCL (GPU), and
# of the service through which processes find each other.
_LOST = ("gloo", "nccl", "coordination", "heartbeat", "closed by peer", "reset by peer", "socket closed", "barrier")


def agree(values: Mapping[str, Any]) -> None:
    """Refuse to train where processes were started with different values. All have to call this, with the same names.

    Args:
        values: what it is -> what JSON can hold.

    Raises:
        LostProcess: one of them ended before.
        ValueError: in all processes: which process has another value than process 0, and of what.
    """
    if place().processes == 1:
        return
    from jax.experimental import multihost_utils

    texts = [json.dumps(value, sort_keys=True).encode() for value in values.values()]
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts)
    with in_step():
        found = multihost_utils.process_allgather(np.frombuffer(digests, "int32").reshape(-1, 2))  # [processes, n, 2]
    for number, name in enumerate(values):
        if len(others := np.flatnonzero((found[:, number] != found[0, number]).any(-1))):
            raise ValueError(f"process {others[0]} was started with other {name} than process 0; start all alike.")


def wait() -> None:
    """Wait until all processes are here.

    Raises:
        LostProcess: one of them ended before.
    """
    if place().processes > 1:
        from jax.experimental import multihost_utils

        with in_step():
            multihost_utils.sync_global_devices("bert_models.training.distribute.wait")


@contextmanager
def in_step(kept: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Where processes wait for each other, and a dataset holds the rows of this process: round every `fit`.

    Args:
        kept: gives a sentence on what is there if training ends here, e.g. `Record.kept`.

    Raises:
        LostProcess: another process ended.
    """
    where, found = place(), keras.distribution.distribution()
    if where.processes == 1:
        yield
        return
    # Keras would else split what is split already.
    split, found.auto_shard_dataset = found.auto_shard_dataset, False
    try:
        yield
    except Exception as error:
        if not is_loss(error):
            raise
        raise LostProcess(
            f"process {where.process} of {where.processes} stops since another one ended or cannot be reached: look at "
            f"what that one said, and start all again with the same command. JAX says: {first_line(error)}. "
            f"{kept()}".rstrip()
        ) from error
    finally:
        found.auto_shard_dataset = split


def is_loss(error: BaseException | None) -> bool:
    """Whether JAX says with this error that another process does not answer.

    >>> is_loss(ValueError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")), is_loss(ValueError("bad"))
    (True, False)
    """
    if error is None or isinstance(error, FloatingPointError | OSError):
        return False
    text = str(error).lower()
    return any(word in text for word in _LOST) or is_loss(error.__cause__ or error.__context__)
