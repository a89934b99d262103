"""The table of docs/hard_shell.md: what becomes of 100 damaged copies of each kind of saved model.

`PYTHONPATH=tests:. python tests/fuzz/damaged.py`
"""

import json
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
from bert_models.pretraining.damage import told_in_words
from bert_models.pretraining.info import INFO_NAME, read_info
from bert_models.pretraining.pipeline import write_pretraining_data
from bert_models.pretraining.reading import dataset
from bert_models.pretraining.settings import DataSettings
from bert_models.text.vocabulary import Vocabulary, to_backend
from bert_models.training.checkpointing import restore_checkpoint, save_checkpoint
from bert_models.training.optimizers import LAMB

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


def preset_kinds(place: Path) -> dict[str, tuple]:
    """A folder as KerasHub's `save_to_preset` writes it."""
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(16)])
    model, folder = tncompress.replace_dense(model, keep=0.75), place / "preset"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(keras.saving.serialize_keras_object(model)))
    model.save_weights(folder / "model.weights.h5")
    read = lambda: tncompress.load(folder)  # noqa: E731
    return {f"KerasHub's `{name}`": (folder / name, read, weights_of) for name in ("config.json", "model.weights.h5")}


def training_kinds(place: Path) -> dict[str, tuple]:
    """What `pretrain` reads."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(16), keras.layers.Dense(2)])
    model.compile(LAMB(0.01), "mse")
    model.optimizer.build(model.trainable_variables)
    checkpoint = save_checkpoint(place / "run", 3, model, {"batch": 8})
    state = lambda _: [ops.convert_to_numpy(v.value) for v in (*model.variables, *model.optimizer.variables)]  # noqa: E731
    vocabulary = Vocabulary((*TOKENS, "."))
    (place / "corpus.txt").write_text("\n\n".join("a cat .\nb c d .\ne f g .\ncats g ." for _ in range(8)))
    write_pretraining_data(
        [place / "corpus.txt"], place / "data", vocabulary, DataSettings(max_length=12, num_shards=1)
    )
    shard = next((place / "data").glob("*.tfrecord"))

    def batches() -> list[dict]:
        with told_in_words(place / "data"):
            return list(dataset(place / "data", 8).as_numpy_iterator())

    return {
        "checkpoint of training": (checkpoint, lambda: restore_checkpoint(checkpoint, model, {"batch": 8}), state),
        "`pretraining_data.json`": (place / "data" / INFO_NAME, lambda: [read_info(place / "data")], list),
        "shard": (shard, batches, lambda found: [array for batch in found for array in batch.values()]),
    }


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
    kinds |= preset_kinds(place) | training_kinds(place)
    warnings.simplefilter("ignore")
    for kind, arguments in kinds.items():
        print(f"| {kind} | {' | '.join(map(str, counts(*arguments)))} |", flush=True)


if __name__ == "__main__":
    main()
