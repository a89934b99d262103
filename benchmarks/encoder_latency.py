"""How fast are whole encoders against dense BERT-base, in TensorFlow and, as int8, in ONNX Runtime?

Processor time of one thread, the encoders interleaved in one process, medians: ratios, not times, are what carries over
to other machines. In TensorFlow every encoder runs as a graph for inputs of a known shape. With --int8 the encoders are
exported to ONNX, quantised by ONNX Runtime's own dynamic quantisation, and their files compared too; that needs
`pip install onnx onnxruntime tf2onnx`.

    python benchmarks/encoder_latency.py [--inputs 1x128 8x128 8x512] [--int8] [--rounds 7] [--json FILE]
    python benchmarks/encoder_latency.py --layers 2 --hidden 128 --inputs 1x16
"""

import argparse
import gc
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure

measure.use_one_thread()

import numpy as np  # noqa: E402
from encoder_models import KINDS, encoder, erf_gelu, with_plain_matmuls  # noqa: E402

Inputs = tuple[int, int]  # texts, tokens of each


def main() -> None:
    """Measure, print a table for every engine, and write JSON if asked."""
    args = _arguments()

    results = in_tensorflow(args)
    if args.int8:
        results |= in_onnx_runtime(args)
    show(results)
    if args.json:
        measure.write_json(args.json, "encoder_latency", results)


def in_tensorflow(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a call by kind and inputs, and the parameters of every kind."""
    import tensorflow as tf

    models = {kind: encoder(kind, args.layers, args.hidden) for kind in KINDS}
    found: dict[str, Any] = {kind: {"parameters": model.count_params()} for kind, model in models.items()}
    for size in args.inputs:
        ids = {name: tf.constant(value) for name, value in token_ids(size).items()}
        graphs = {kind: _graph(model, size) for kind, model in models.items()}
        calls = {kind: lambda graph=graph, ids=ids: graph(ids) for kind, graph in graphs.items()}
        for kind, seconds in interleaved(calls, args.rounds).items():
            found[kind][_name(size)] = seconds
    return {"TensorFlow, float32": found}


def _graph(model, size: Inputs) -> Callable:
    import tensorflow as tf

    specs = {name: tf.TensorSpec(size, "int32") for name in token_ids(size)}
    return tf.function(model, input_signature=[specs]).get_concrete_function()


def in_onnx_runtime(args: argparse.Namespace) -> dict[str, Any]:
    """The same for encoders exported to ONNX and quantised to int8, with the sizes of the files."""
    found: dict[str, Any] = {kind: {} for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        paths = {kind: _exported(kind, args, Path(folder)) for kind in KINDS}
        sessions = {kind: _session(path) for kind, path in paths.items()}
        for kind, path in paths.items():
            found[kind]["megabytes"] = path.stat().st_size / 1e6
            found[kind]["megabytes without embeddings"] = found[kind]["megabytes"] - _embedding_megabytes(path)
        for size in args.inputs:
            ids = token_ids(size)
            calls = {
                kind: lambda session=session, ids=ids: session.run(None, ids) for kind, session in sessions.items()
            }
            for kind, seconds in interleaved(calls, args.rounds).items():
                found[kind][_name(size)] = seconds
    return {"ONNX Runtime, int8": found}


def _exported(kind: str, args: argparse.Namespace, folder: Path) -> Path:
    """The int8 file of an encoder."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    model = with_plain_matmuls(encoder(kind, args.layers, args.hidden))
    for layer in model._flatten_layers():
        if getattr(getattr(layer, "activation", None), "__name__", "").startswith("gelu"):
            layer.activation = erf_gelu
    plain, int8 = folder / "plain.onnx", folder / f"{kind.replace(' ', '_')}.onnx"
    model.export(plain, format="onnx", verbose=False)
    del model
    gc.collect()
    quantize_dynamic(plain, int8, weight_type=QuantType.QInt8)
    plain.unlink()
    return int8


def _embedding_megabytes(path: Path) -> float:
    """Of the tables: what has a row for every word, position or segment is looked up."""
    import onnx

    graph = onnx.load(path).graph
    sizes = {tensor.name: len(tensor.raw_data) for tensor in graph.initializer}
    gathered = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    return sum(sizes.get(name, 0) for name in gathered) / 1e6


def _session(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def token_ids(size: Inputs) -> dict[str, np.ndarray]:
    """Random inputs of that many texts and tokens, none of them padding."""
    draw = np.random.default_rng(0)
    ids = draw.integers(1000, 30000, size).astype("int32")
    ones = np.ones(size, "int32")
    return {"input_word_ids": ids, "input_mask": ones, "input_type_ids": 0 * ones}


def interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median processor time of one call of each, in turns."""
    tasks = {name: lambda call=call: measure.cpu_seconds(call) for name, call in calls.items()}
    return measure.interleaved_medians(tasks, rounds)


def show(results: dict[str, Any]) -> None:
    """A table for every engine: speed over dense."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)
    for engine, kinds in results.items():
        table = Table(title=f"{engine}: speed over dense (CPU ms)", title_justify="left")
        dense = kinds[KINDS[0]]
        columns = list(dense)
        table.add_column("encoder")
        for column in columns:
            table.add_column(column, justify="right")
        for kind, row in kinds.items():
            table.add_row(kind, *(_cell(column, row[column], dense[column]) for column in columns))
        console.print(table)


def _cell(column: str, value: float, dense: float) -> str:
    if column == "parameters":
        return f"{value / 1e6:.1f} M"
    if column.startswith("megabytes"):
        return f"{value:.1f} ({dense / value:.2f}x smaller)"
    return f"{dense / value:.2f}x ({1000 * value:.1f})"


def _name(size: Inputs) -> str:
    return f"{size[0]} x {size[1]}"


def size_of(text: str) -> Inputs:
    try:
        texts, tokens = map(int, text.split("x"))
        if texts < 1 or not 1 <= tokens <= 512:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"inputs are texts x tokens, e.g. 8x128, at most 512 tokens; got {text!r}"
        ) from None
    return texts, tokens


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", nargs="+", type=size_of, default=[(1, 128), (8, 128), (8, 512)], metavar="BxT")
    parser.add_argument("--layers", type=int, default=12, help="12")
    parser.add_argument("--hidden", type=int, default=768, help="768; a multiple of 128")
    parser.add_argument("--rounds", type=int, default=7, help="7")
    parser.add_argument("--int8", action="store_true", help="ONNX Runtime's dynamic quantisation too")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    main()
