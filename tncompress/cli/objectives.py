"""Objectives by name: what about a model's outputs shall stay the same."""

from collections.abc import Callable
from typing import Any


def sentence_embedding(outputs: Any, batch: Any) -> Any:
    """The mean of an encoder's last hidden states over tokens, of length one, `[batch, hidden]`.

    Source: Reimers & Gurevych 2019, arXiv:1908.10084, section 3 (MEAN strategy).
    """
    from keras import ops

    if not isinstance(outputs, dict) or "sequence_output" not in outputs or "input_mask" not in batch:
        raise ValueError(
            "--objective sentence_embedding needs a model with input_mask among its inputs and sequence_output among "
            "its outputs; 'outputs' takes all outputs of any model."
        )
    counts = ops.cast(batch["input_mask"], "float32")[..., None]  # [batch, tokens, 1]
    total = ops.sum(ops.cast(outputs["sequence_output"], "float32") * counts, axis=1)
    return ops.normalize(total, axis=-1, order=2)


OBJECTIVES: dict[str, Callable[[Any, Any], Any]] = {"sentence_embedding": sentence_embedding}


def objective(name: str | None) -> Any:
    """What `tncompress.calibrate` takes: a function, or the name of an output; `logits` is the only output of a model
    that has one without a name.

    >>> objective("pooled_output")
    'pooled_output'
    """
    if name == "logits":
        return _logits
    return OBJECTIVES.get(name, name) if name is not None else None


def _logits(outputs: Any, batch: Any) -> Any:
    if not isinstance(outputs, dict):
        return outputs
    named = [name for name in outputs if name.endswith("logits")]
    if len(named) != 1:
        raise ValueError(f"--objective logits: the model's outputs are {', '.join(outputs)}; name one of them.")
    return outputs[named[0]]
