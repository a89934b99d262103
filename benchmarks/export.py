"""What becomes of a compressed model in other engines: size of the files, and how far their outputs are from Keras's.

all-MiniLM-L6-v2, as it is, with 28 % of its feed-forward kernels, and compressed throughout (dense layers and tables of
embeddings), is exported to every format, as float32 and int8. Outputs are compared on sentences of the documentation
that comes with Python, in batches of other sizes and lengths than the files were made with: the largest difference of
tokens' hidden states, and the cosine of sentence embeddings with those of the same model in Keras.

With `--preset` it is an encoder of `bert_models` instead, in full size, with random weights, as float32 only. All its
outputs are compared: hidden states of every block, and the pooled one.

    pip install "tncompress[onnx,openvino]"
    python benchmarks/export.py [--formats onnx litert] [--sentences 256] [--json FILE]
    python benchmarks/export.py --preset tn_bert --sentences 14 --batch 8
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
    tokenizer = bert_models.load_tokenizer(folder)
    sentences = documentation_sentences()
    held_back = minilm.batches(tokenizer, sentences[: args.sentences], size=args.batch)
    if args.preset:
        results = {args.preset: of_preset(args.preset, held_back, args.formats)}
    else:
        calibration = minilm.batches(tokenizer, sentences[args.sentences : args.sentences + CALIBRATION])
        results = {
            name: {"parameters": model.count_params(), **rows(model, held_back, args.formats, [OUTPUT])}
            for name, model in models(bert_models.load(folder), calibration)
        }
    show(results)
    if args.json:
        shapes = [batch["input_mask"].shape for batch in held_back]
        measure.write_json(args.json, "export", {"batches": shapes, "models": results})


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


def of_preset(name: str, batches: list[dict], formats: list[str]) -> dict[str, Any]:
    """Parameters and rows of a named encoder."""
    import bert_models

    encoder, draw = bert_models.build(name), np.random.default_rng(0)
    for weight in encoder.trainable_weights:  # so that no bias or gain has the value which leaving it out would have
        weight.assign(weight + draw.normal(0, 0.02, weight.shape).astype("float32"))
    return {"parameters": encoder.count_params(), **rows(encoder, batches, formats, [], float_only=True)}


def rows(model, batches: list[dict], formats: list[str], outputs: list[str], *, float_only: bool = False) -> dict:
    """Of every format, as float32 and, where it can, as int8; no `outputs`: all."""
    from tncompress.exporting.formats import FORMATS
    from tncompress.exporting.job import Job, signature_of

    job = Job(model, signature_of(model), tuple(outputs))
    wanted = [{name: value.numpy() for name, value in job.call(batch).items()} for batch in batches]
    found = {}
    for to in formats:
        for int8 in (False, True)[: 1 + (FORMATS[to].can_int8 and not float_only)]:
            found[f"{to}, int8" if int8 else to] = row(job, to, int8, batches, wanted)
    return found


def row(job, to: str, int8: bool, batches: list[dict], wanted: list[dict]) -> dict[str, float]:
    """Bytes of the file, largest difference of outputs, and mean and smallest cosine of sentence embeddings."""
    from tncompress.exporting.export import export
    from tncompress.exporting.formats import FORMATS

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"model{SUFFIXES.get(to, '')}")
        made = export(job.model, path, to, int8=int8, outputs=job.kept)
        run = FORMATS[to].load().read(job, path)
        found = [run(batch) for batch in batches]
    pairs = list(zip(found, wanted, batches, strict=True))
    cosines = np.concatenate(
        [np.sum(embedding(a[OUTPUT], batch) * embedding(b[OUTPUT], batch), axis=-1) for a, b, batch in pairs]
    )
    return {
        "bytes": made.num_bytes,
        "difference": float(np.max([difference(*pair) for pair in pairs])),  # a NaN stays one
        "cosine": float(cosines.mean()),
        "smallest cosine": float(cosines.min()),
    }


def difference(found: dict, wanted: dict, batch: dict) -> float:
    """The largest one of any output, where those with an axis of tokens are free in padding."""
    if found.keys() != wanted.keys():
        raise ValueError(f"Outputs {', '.join(wanted)} wanted, got {', '.join(found)}.")
    mask = batch["input_mask"][..., None]  # [batch, tokens, 1]
    parts = ((np.abs(found[name] - wanted[name]), mask if wanted[name].ndim == 3 else 1) for name in wanted)
    return float(np.max([np.max(part * weight) for part, weight in parts]))


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
    parser.add_argument("--preset", help="of bert_models, e.g. tn_bert")
    parser.add_argument("--sentences", type=int, default=256, help="256")
    parser.add_argument("--batch", type=int, default=48, help="sentences of a batch: 48")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
