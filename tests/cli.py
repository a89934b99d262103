"""The command line in this process, and small models in files to run it on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result
from encoders import config_of, randomised

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "cat",
    "dog",
    "sat",
    "ran",
    "on",
    "the",
    "mat",
    "big",
    "red",
)
TEXTS = [
    "a cat sat on the mat",
    "the dog ran",
    "a big red dog sat",
    "the cat ran on",
    "red mat",
    "a dog",
    "big cat sat on a mat",
]
SIZES = {"vocab_size": len(WORDS), "hidden_size": 32, "num_heads": 2, "num_layers": 2, "max_positions": 16}


def run(*args: Any) -> Result:
    """`tncompress` with these arguments."""
    from tncompress.cli import main

    return CliRunner().invoke(main, [str(arg) for arg in args], prog_name="tncompress")


def done(*args: Any) -> Result:
    """The same, which has to end well."""
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


def as_json(*args: Any) -> dict[str, Any]:
    """What it prints with `--json`."""
    return json.loads(done(*args, "--json").stdout)


def write_bert(folder: Path) -> Path:
    """A small Hugging Face folder with a vocabulary."""
    from bert_models import build_encoder, export_huggingface
    from bert_models.text.tokenize import Tokenizer
    from bert_models.text.vocabulary import to_backend

    encoder = randomised(build_encoder(config_of("dense", **SIZES)))
    export_huggingface(encoder, folder, tokenizer=Tokenizer(to_backend(WORDS, {})))
    return folder


def write_texts(file: Path, copies: int = 6) -> Path:
    """A few sentences, one a line; so many that a hundredth is held out."""
    file.write_text("\n".join(TEXTS * copies), "utf-8")
    return file


def write_stack(file: Path, widths: tuple[int, ...] = (16, 32, 16), seed: int = 0) -> Path:
    """A Sequential model of Dense layers."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(width, name=f"dense_{k}") for k, width in enumerate(widths[1:])]
    keras.Sequential([keras.Input((widths[0],)), *layers], name="stack").save(file)
    return file


def write_vectors(file: Path, rows: int = 200, width: int = 16) -> Path:
    """Input for such a stack."""
    np.save(file, np.random.default_rng(0).normal(size=(rows, width)).astype("float32"))
    return file
