"""What becomes of a compressed model in other engines: size of the files, and how far their outputs are from Keras's.

all-MiniLM-L6-v2, as it is, with 28 % of its feed-forward kernels, and compressed throughout (dense layers and tables of
embeddings), is exported to every format, as float32 and int8. Outputs are compared on sentences of the documentation
that comes with Python, in batches of other sizes and lengths than the files were made with: the largest difference of
tokens' hidden states, and the cosine of sentence embeddings with those of the same model in Keras.

    pip install "tncompress[onnx,openvino]"
    python benchmarks/export.py [--formats onnx litert] [--sentences 256] [--json FILE]
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure

measure.use_one_thread()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import minilm  # noqa: E402
import numpy as np  # noqa: E402

ENGINES = ("savedmodel", "onnx", "litert", "openvino")
SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}
OUTPUT = "sequence_output"
CALIBRATION = 1000  # sentences


def main() -> None:
    """Compress, export, compare, print a table, and write JSON if asked."""
    args = _arguments()
    from demo import documentation_sentences

    import bert_models

    folder = minilm.folder()
    encoder, tokenizer = bert_models.load(folder), bert_models.load_tokenizer(folder)
    sentences = documentation_sentences()
    held_back = minilm.batches(tokenizer, sentences[: args.sentences], size=48)
    calibration = minilm.batches(tokenizer, sentences[args.sentences : args.sentences + CALIBRATION])
    results = {}
    for name, model in models(encoder, calibration):
        results[name] = {"parameters": model.count_params(), **rows(model, held_back, args.formats)}
    show(results)
    if args.json:
        measure.write_json(args.json, "export", results)


def models(encoder, calibration) -> Iterator[tuple[str, Any]]:
    """The model as it is, and compressed."""
    import tncompress

    yield "dense", encoder
    settings = {"calibration": calibration, "progress": False}
    yield (
        "28 % of the feed-forward kernels",
        tncompress.replace_dense(encoder, 0.28, include="feed_forward", **settings),
    )
    yield "half of everything", tncompress.replace_dense(encoder, 0.5, embeddings=True, **settings)


def rows(model, batches: list[dict], formats: list[str]) -> dict[str, dict[str, float]]:
    """Of every format, as float32 and, where it can, as int8."""
    from tncompress.exporting.formats import FORMATS

    wanted = [model(batch)[OUTPUT].numpy() for batch in batches]
    found = {}
    for to in formats:
        for int8 in (False, True)[: 1 + FORMATS[to].can_int8]:
            found[f"{to}, int8" if int8 else to] = row(model, to, int8, batches, wanted)
    return found


def row(model, to: str, int8: bool, batches: list[dict], wanted: list[np.ndarray]) -> dict[str, float]:
    """Bytes of the file, largest difference of hidden states, and mean and smallest cosine of sentence embeddings."""
    from tncompress.exporting.export import export
    from tncompress.exporting.formats import FORMATS
    from tncompress.exporting.job import Job, signature_of

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"model{SUFFIXES.get(to, '')}")
        made = export(model, path, to, int8=int8, outputs=[OUTPUT])
        run = FORMATS[to].load().read(Job(model, signature_of(model), (OUTPUT,)), path)
        found = [run(batch)[OUTPUT] for batch in batches]
    pairs = list(zip(found, wanted, batches, strict=True))
    cosines = np.concatenate([np.sum(embedding(a, batch) * embedding(b, batch), axis=-1) for a, b, batch in pairs])
    tokens = [np.abs(a - b) * batch["input_mask"][..., None] for a, b, batch in pairs]  # what stands in padding is free
    return {
        "bytes": made.num_bytes,
        "difference": max(float(part.max()) for part in tokens),
        "cosine": float(cosines.mean()),
        "smallest cosine": float(cosines.min()),
    }


def embedding(states: np.ndarray, batch: dict) -> np.ndarray:
    """Mean of the hidden states over tokens, of length one, `[batch, hidden]`."""
    mean = np.sum(states.astype("float64") * batch["input_mask"][..., None], axis=1)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def show(results: dict[str, Any]) -> None:
    """A table for every model."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)
    for name, (parameters, *found) in ((name, list(rows.items())) for name, rows in results.items()):
        table = Table(title=f"{name}: {parameters[1]:,} parameters", title_justify="left")
        for column in ("format", "MB", "largest difference", "mean cosine", "smallest"):
            table.add_column(column, justify="left" if column == "format" else "right")
        for to, row in found:
            table.add_row(
                to,
                f"{row['bytes'] / 1e6:.1f}",
                f"{row['difference']:.1e}",
                f"{row['cosine']:.6f}",
                f"{row['smallest cosine']:.6f}",
            )
        console.print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--sentences", type=int, default=256, help="256")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
