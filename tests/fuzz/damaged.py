"""The table of docs/hard_shell.md: what becomes of 100 damaged copies of each kind of saved model.

`PYTHONPATH=tests:. python tests/fuzz/damaged.py`
"""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from checkpoint_files import tf1_tensors, write_tf1
from corrupting import corrupted
from encoders import masked_lm_of
from keras import ops

import bert_models
import tncompress
from bert_models.text.vocabulary import to_backend

COPIES = 100
TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "##s", "b", "c", "d", "e", "f", "g")
TEXTS = ["a cat", "cats and é", "g"]


def counts(file: Path, read: Callable[[], Any], values: Callable[[Any], list[np.ndarray]]) -> tuple[int, int, int]:
    """How many copies are refused, are read as the whole file is, and are read with other values."""
    content, wanted = file.read_bytes(), values(read())
    refused = same = other = 0
    for data in corrupted(content, COPIES):
        file.write_bytes(data)
        try:
            found = values(read())
        except (ValueError, FileNotFoundError):
            refused += 1
            continue
        is_same = len(found) == len(wanted) and all(map(np.array_equal, found, wanted))
        same, other = same + is_same, other + (not is_same)
    file.write_bytes(content)
    return refused, same, other


def weights_of(model: keras.Model) -> list[np.ndarray]:
    return [ops.convert_to_numpy(weight) for weight in model.weights]


def main() -> None:
    place = Path(tempfile.mkdtemp())
    kinds: dict[str, tuple] = {}
    for kind in ("compressed", "elastic"):
        model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(16)])
        file = place / f"{kind}.keras"
        tncompress.replace_dense(model, keep=0.75, elastic=kind == "elastic").save(file)
        kinds[f"{kind} `.keras`"] = (file, lambda file=file: tncompress.load(file), weights_of)
    mlm = masked_lm_of("dense", num_layers=1)
    bert_models.export_huggingface(mlm.encoder, place / "hf")
    kinds["`model.safetensors`"] = (
        place / "hf" / "model.safetensors",
        lambda: bert_models.load(place / "hf"),
        weights_of,
    )
    prefix = write_tf1(place / "tf", tf1_tensors(mlm), mlm.encoder.config)
    for ending in (".index", ".data-00000-of-00001"):
        file = prefix.with_name(prefix.name + ending)
        kinds[f"TensorFlow's `{ending}`"] = (file, lambda: bert_models.load(prefix), weights_of)
    (place / "text").mkdir()
    to_backend(TOKENS, {}).save(str(place / "text" / "tokenizer.json"))
    kinds["`tokenizer.json`"] = (
        place / "text" / "tokenizer.json",
        lambda: bert_models.load_tokenizer(place / "text"),
        lambda tokenizer: list(tokenizer(TEXTS).values()),
    )
    warnings.simplefilter("ignore")
    for kind, arguments in kinds.items():
        print(f"| {kind} | {' | '.join(map(str, counts(*arguments)))} |", flush=True)


if __name__ == "__main__":
    main()
