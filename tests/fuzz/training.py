"""Targets: what training reads: checkpoints, learning curves, options from a file, the record beside its data."""

import functools
import json
from types import SimpleNamespace

from fuzz import mutators
from fuzz.target import FOLDER, Target, only_own_errors, written


def run_checkpoint(data: bytes) -> None:
    """A checkpoint of training, of the format with a checksum and of that without."""
    from bert_models.training.checkpointing import restore_checkpoint

    file = written("run/checkpoint-00000003.safetensors", data)
    with only_own_errors():
        restore_checkpoint(file, trained(), {"batch": 8})


def run_curve(data: bytes) -> None:
    """A learning curve: what cannot be read is neither trimmed."""
    from bert_models.training import curve

    file = written("run/curve.jsonl", data)
    with only_own_errors():
        rows = curve.read(file)
        curve.trim(file, 10)
        assert curve.read(file) == [row for row in rows if row["step"] <= 10]


def run_options(data: bytes) -> None:
    """`--config`: TOML or JSON for the commands."""
    import click

    from bert_models.cli import main
    from bert_models.cli.config import options_of, read

    for name in ("config.toml", "config.json"):
        file = written(name, data)
        for command in main.commands.values():
            with only_own_errors():
                try:
                    options_of(read(file), command, main.commands, name)
                except click.UsageError as error:
                    raise ValueError(error.message) from None


def run_info(data: bytes) -> None:
    """What lies beside pretraining data."""
    from bert_models.pretraining.info import read_info

    file = written("data/pretraining_data.json", data)
    written("data/examples-00000-of-00001.tfrecord", bytes(1000))
    with only_own_errors():
        read_info(file.parent)


@functools.cache
def trained():
    """A model with an optimizer's state, the same every time."""
    import keras

    from bert_models.training.optimizers import LAMB

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(LAMB(0.01), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def checkpoint_seeds() -> list[bytes]:
    from safetensors import safe_open
    from safetensors.numpy import save

    from bert_models.training.checkpointing import save_checkpoint

    file = save_checkpoint(FOLDER / "seed", 3, trained(), {"batch": 8})
    with safe_open(file, "np") as opened:
        arrays = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
        metadata = {name: text for name, text in opened.metadata().items() if name != "sha256"}
    return [file.read_bytes(), save(arrays, {**metadata, "format": "1"})]


def info_seeds() -> list[bytes]:
    from bert_models.pretraining.info import make_info, to_text
    from bert_models.pretraining.settings import DataSettings

    shards = [{"name": "examples-00000-of-00001.tfrecord", "records": 2, "bytes": 1000}]
    pieces = SimpleNamespace(size=9, digest="x")
    made = make_info(DataSettings(max_length=16), pieces, {"documents": 2}, shards)
    earlier = {name: value for name, value in made.items() if name != "sha256"}
    return [to_text(made).encode(), json.dumps(earlier).encode()]


CURVE = b'{"step": 5, "loss": 2.5}\n{"step": 10, "loss": null, "learning_rate": 1e-3}\n{"step": 15, "lo'
OPTIONS = [
    b'encoder = "bert"\n[pretrain]\nsteps = 10\n"batch-size" = 8\nset = {num_layers = 2}\n[finetune]\nseed = [0, 1]\n',
    b'{"pretrain": {"steps": 10, "peak": 1e-3}, "finetune": {"seed": [0, 1], "task": "cola", "quiet": true}}',
]

TRAINING = {
    "checkpoint": Target(run_checkpoint, checkpoint_seeds, mutators.tensors),
    "curve": Target(run_curve, lambda: [CURVE]),
    "options": Target(run_options, lambda: OPTIONS, mutators.json_text),
    "info": Target(run_info, info_seeds, mutators.json_text),
}
