"""What was done to layers after they were made, and has to be done again before their weights are loaded."""

from collections.abc import Mapping
from typing import Any

import keras

from tncompress.conversion.walking import locate, walk
from tncompress.layers.quantized import is_int8


def adaptations_of(model: keras.Model) -> dict[str, dict[str, Any]]:
    """By path of a layer: `{"quantize": mode}` and `{"lora": [rank, alpha]}`, JSON-able; only layers that have one.

    >>> from tncompress import TNDense
    >>> from tncompress.forms import low_rank
    >>> model = keras.Sequential([keras.Input((8,)), TNDense(low_rank.spec(8, 4, rank=2), name="net")])
    >>> model.get_layer("net").enable_lora(3)
    >>> adaptations_of(model)
    {'net': {'lora': [3, 3]}}
    """
    found = {path: _of(layer) for path, layer in walk(model)}
    return {path: done for path, done in found.items() if done}


def _of(layer: keras.layers.Layer) -> dict[str, Any]:
    mode = "int8" if is_int8(layer) else getattr(layer.dtype_policy, "quantization_mode", None)
    lora = [layer.lora_rank, layer.lora_alpha] if getattr(layer, "lora_enabled", False) else None
    return {name: value for name, value in (("quantize", mode), ("lora", lora)) if value}


def adapt(model: keras.Model, adaptations: Mapping[str, Mapping[str, Any]]) -> None:
    """Do it to a new model of the same structure; its layers then take the weights that were saved.

    Raises:
        ValueError: there is no such layer, or it cannot be adapted so.
    """
    for path, layer in locate(model, list(adaptations)).items():
        done = adaptations[path]
        if "quantize" in done:
            layer.quantize(done["quantize"])
        if "lora" in done:
            rank, alpha = done["lora"]
            layer.enable_lora(rank, lora_alpha=alpha)
