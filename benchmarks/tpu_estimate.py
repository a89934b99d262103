"""What does XLA's TPU compiler expect of the forms and ranks? Where does alignment pay, and which encoder is fastest?

Estimates by the compiler, in cycles of one chip, not measurements; no TPU is needed.

    python benchmarks/tpu_estimate.py                         BERT-base's feed-forward and encoder on a v5e; ten minutes
    python benchmarks/tpu_estimate.py --device tpu-v6e --no-encoder
    python benchmarks/tpu_estimate.py --json tpu.json --picture docs/tpu.svg

Needs jax and libtpu (`pip install 'tncompress[tpu]'`). What was compiled once is remembered in the user's cache folder.
The exit code is 2 after a wrong argument, 1 where there is no compiler.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from measure import write_json

from tncompress.forms import expand_condense, low_rank, monarch
from tncompress.hardware.aligned import fills
from tncompress.hardware.device import device as device_of
from tncompress.hardware.tpu import CHIPS, Encoder, Maps, TPUCompilerError, estimated_cycles, missing
from tncompress.hardware.tune import sizes_of
from tncompress.hardware.tune_encoder import tune_encoder
from tncompress.network.cost import dense_spec
from tncompress.network.spec import Spec

HIDDEN, WIDTH, HEADS, LAYERS = 768, 3072, 12, 12  # BERT-base
SHAPES = ((8, 128), (32, 128), (8, 512))  # batch, tokens
TN_BERT = (expand_condense.expand(HIDDEN, WIDTH, 6, 128), expand_condense.condense(WIDTH, HIDDEN, 6, 128))
OUTSIDE = 24_427_776  # parameters of BERT-base's embeddings (23,837,184) and pooler (590,592)
BUDGETS = (44_150_784, 30_000_000, 19_000_000)  # of the layers; the first is TN-BERT's own
RANKS = (32, 64, 96, 112, 128, 136, 144, 160, 176, 192, 224, 248, 256, 264, 288, 320, 352, 384, 392, 416, 448, 512)

Pair = tuple[Spec, Spec]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, print, write. Returns the exit code."""
    options = _arguments(arguments)
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    try:
        results = {"device": options.device, "maps": feed_forward_rows(options.device, options.tokens, options.ranks)}
        if not options.no_encoder:
            results["encoders"] = [row for shape in options.shapes for row in encoder_rows(options.device, *shape)]
    except TPUCompilerError as error:
        print(error, file=sys.stderr)
        return 1
    print_tables(results)
    if options.json:
        write_json(options.json, "tpu_estimate", results)
    if options.picture:
        from tpu_plot import picture

        picture(options.picture, results, device_of(options.device).tile("bfloat16"))
    return 0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=lines[0], formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=CHIPS, default="tpu-v5e", help="chip to compile for (tpu-v5e)")
    parser.add_argument("--tokens", type=int, default=1024, help="of the feed-forward table, in sequences of 128")
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS, help="of low rank")
    parser.add_argument("--shapes", type=_shape, nargs="+", default=SHAPES, help="of the encoders, e.g. 8x128 8x512")
    parser.add_argument("--no-encoder", action="store_true", help="the feed-forward table only")
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--picture", help="file for the picture (svg, png, pdf); needs matplotlib")
    options = parser.parse_args(arguments)
    if options.tokens < 128 or options.tokens % 128:
        parser.error(f"--tokens is a multiple of 128, got {options.tokens}.")
    if not all(0 < rank < HIDDEN for rank in options.ranks):
        parser.error(f"--ranks are between 1 and {HIDDEN - 1}, got {' '.join(map(str, options.ranks))}.")
    return options


def _shape(text: str) -> tuple[int, int]:
    batch, _, tokens = text.partition("x")
    if not (batch.isdecimal() and tokens.isdecimal() and int(batch) and int(tokens)):
        raise argparse.ArgumentTypeError(f"a shape is batch x tokens, e.g. 8x128, got {text!r}")
    return int(batch), int(tokens)


def pairs(ranks: Sequence[int]) -> Iterator[tuple[str, Pair]]:
    """Feed-forward parts by form, dense first."""
    yield "dense", narrow(WIDTH)
    for units in range(128, 1281, 128):
        yield "narrow", narrow(units)
    for rank in ranks:
        yield "low_rank", (low_rank.spec(HIDDEN, WIDTH, rank), low_rank.spec(WIDTH, HIDDEN, rank))
    for bond in (64, 96, 128, 160, 192, 256):
        into = expand_condense.expand(HIDDEN, WIDTH, 6, bond)
        yield "expand_condense", (into, expand_condense.condense(WIDTH, HIDDEN, 6, bond))
    for blocks in (6, 12, 24):
        yield "monarch", (monarch.spec(HIDDEN, WIDTH, blocks, blocks), monarch.spec(WIDTH, HIDDEN, blocks, blocks))


def narrow(units: int) -> Pair:
    """Dense maps to so many hidden units and back."""
    return dense_spec(HIDDEN, units), dense_spec(units, HIDDEN)


def feed_forward_rows(device: str, tokens: int, ranks: Sequence[int]) -> list[dict[str, Any]]:
    """Estimates of one feed-forward part, with speed-ups over dense."""
    forms, specs = zip(*pairs(ranks), strict=True)
    cycles = estimated_cycles([Maps(pair, tokens // 128, 128) for pair in specs], device)
    tile = device_of(device).tile("bfloat16")
    return [
        {
            "form": form,
            "sizes": sizes_of(pair[0]),
            "params": sum(spec.num_params for spec in pair),
            "aligned": all(fills(spec, tile) for spec in pair),
            "cycles": count,
            "speedup": cycles[0] / count,
        }
        for form, pair, count in zip(forms, specs, cycles, strict=True)
    ]


def encoder_rows(device: str, batch: int, tokens: int) -> list[dict[str, Any]]:
    """Dense BERT-base, TN-BERT, and the tuner's own choices within several budgets."""
    dense = Encoder.dense(HIDDEN, WIDTH, heads=HEADS, layers=LAYERS, batch=batch, tokens=tokens)
    named = {"BERT-base": dense, "TN-BERT": dense.with_maps(feed_forward=TN_BERT)}
    named["low rank 128, feed-forward"] = dense.with_maps(
        feed_forward=(low_rank.spec(HIDDEN, WIDTH, 128), low_rank.spec(WIDTH, HIDDEN, 128))
    )
    for budget in BUDGETS:
        best = tune_encoder(dense, budget, device, judge="compiler").best
        named[f"tuned, {(budget + OUTSIDE) / 1e6:.1f} M: {best.form}; {best.sizes}"] = best.program
    cycles = estimated_cycles(list(named.values()), device)
    return [
        {
            "encoder": name,
            "shape": f"{batch} x {tokens}",
            "params": encoder.num_params + OUTSIDE,
            "cycles": count,
            "speedup": cycles[0] / count,
        }
        for (name, encoder), count in zip(named.items(), cycles, strict=True)
    ]


def print_tables(results: Mapping[str, Any]) -> None:
    """Both tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    title = f"Estimated by the compiler for one {results['device']}: feed-forward {HIDDEN} - {WIDTH} - {HIDDEN}"
    columns = {"form": "form", "sizes": "sizes of the first map", "params": "parameters", "cycles": "cycles"}
    _print(console, Table(title=title), {**columns, "speedup": "speed-up"}, results["maps"])
    if "encoders" in results:
        columns = {"encoder": "encoder", "shape": "batch x tokens", "params": "parameters, in all", "cycles": "cycles"}
        title = f"{LAYERS}-layer encoder without embeddings"
        _print(console, Table(title=title), {**columns, "speedup": "speed-up"}, results["encoders"])


def _print(console: Any, table: Any, columns: Mapping[str, str], rows: Sequence[Mapping]) -> None:
    for key, heading in columns.items():
        table.add_column(heading, justify="left" if isinstance(rows[0][key], str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[key]) for key in columns))
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
