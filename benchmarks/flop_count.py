"""How many FLOPs does a token cost in every preset, and does the compiled program agree?

Matmuls only, a multiply-add counts as 2: the feed-forward part of a layer, the layer, all layers.

    python benchmarks/flop_count.py                        all presets at 128 and 512 tokens, without Keras
    python benchmarks/flop_count.py tn_bert --lengths 64
    python benchmarks/flop_count.py --hlo                  counts the dots in XLA's program too; two minutes
    python benchmarks/flop_count.py --json flops.json      without a file name: JSON instead of tables

With `--hlo` a model of two layers and one of one layer are compiled for the CPU (TensorFlow, jit_compile); the
difference is a layer's. Dots are counted before and after XLA's optimisation, and both must agree exactly with the
arithmetic: the exit code is 1 if they do not, 2 after a wrong argument.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any

import hlo
from preset_tables import BASE, FAMILY, Parser, console, deliver, tight_table

from bert_models.config import BertConfig
from bert_models.counts import flops_per_token
from bert_models.presets import PRESETS, Preset

LENGTHS = (128, 512)
STAGES = ("hlo", "optimized_hlo")  # before and after XLA's optimisation
ROWS_OF_BATCH = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, compare, print. Returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS, metavar="S", help="tokens (128 512)")
    parser.add_argument("--hlo", action="store_true", help="count the dots in XLA's program too")
    options = parser.read(arguments)
    try:
        rows = [counted(item, length) for item in options.presets for length in dict.fromkeys(options.lengths)]
    except ValueError as error:
        parser.error(str(error))
    if options.hlo:
        from tncompress.progress import progress_bar

        for row in progress_bar(rows, "compiling"):
            row["hlo"] = layer_in_hlo(PRESETS[row["preset"]].config, row["seq_length"])
    wrong = [sentence for row in rows for sentence in disagreements(row)]
    return deliver(options.json, "flop_count", rows, wrong, print_tables)


def counted(item: Preset, seq_length: int) -> dict[str, Any]:
    """FLOPs per token of one preset, as JSON can hold them."""
    counts, base = flops_per_token(item.config, seq_length), flops_per_token(PRESETS[BASE].config, seq_length)
    return {
        "preset": item.name,
        "seq_length": seq_length,
        "num_layers": item.config.num_layers,
        "hidden_size": item.config.hidden_size,
        "projections": counts.projections,
        "attention": counts.attention,
        "feed_forward": counts.feed_forward,
        "layer": counts.layer,
        "layers": counts.layers,
        "layer_of_bert_base": counts.layer / base.layer,
        "layers_of_bert_base": counts.layers / base.layers,
    }


def layer_in_hlo(config: BertConfig, seq_length: int) -> dict[str, float]:
    """FLOPs per token of one layer as XLA computes it: a model of two layers minus one of one layer, by stage."""
    tokens = ROWS_OF_BATCH * seq_length
    # Words are looked up, not multiplied, so a small table will do; the depth is set here.
    two, one = (flops_of_program(replace(config, num_layers=layers, vocab_size=2), seq_length) for layers in (2, 1))
    differences = {stage: two[stage] - one[stage] for stage in STAGES}
    return {stage: flops // tokens if flops % tokens == 0 else flops / tokens for stage, flops in differences.items()}


@cache
def flops_of_program(config: BertConfig, seq_length: int, stages: tuple[str, ...] = STAGES) -> dict[str, int]:
    """FLOPs of the dots in the whole encoder's program for a batch of two rows, by stage."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up notices
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(f"--hlo needs KERAS_BACKEND=tensorflow, got {keras.backend.backend()!r}; unset it.")
    import tensorflow as tf

    from bert_models.encoder import build_encoder

    keras.backend.clear_session()
    with tf.device("CPU:0"):
        encoder = build_encoder(config)

        @tf.function(jit_compile=True)
        def outputs(batch):
            found = encoder(batch, training=False)
            return found["sequence_output"], found["pooled_output"]

        batch = {name: tf.ones((ROWS_OF_BATCH, seq_length), tf.int32) for name in encoder.input}
        text_at = outputs.experimental_get_compiler_ir(batch)
        return {stage: hlo.dot_flops(text_at(stage=stage)) for stage in stages}


def disagreements(row: dict[str, Any]) -> list[str]:
    """A sentence for every stage of the program that has other FLOPs than counted."""
    return [
        f"{row['preset']} at {row['seq_length']} tokens: a layer has {flops:,} FLOPs per token in XLA's {stage}, "
        f"the count gives {row['layer']:,}."
        for stage, flops in row.get("hlo", {}).items()
        if flops != row["layer"]
    ]


# -- tables ----------------------------------------------------------------------------------------------


def print_tables(rows: list[dict[str, Any]]) -> None:
    """A table of the named models, and one of the small BERTs."""
    small = [row for row in rows if row["preset"].startswith(FAMILY)]
    named = [row for row in rows if row not in small]
    if named:
        console().print(flop_table("FLOPs per token", named, itemgetter("preset"), "preset"))
    if small:
        small.sort(key=lambda row: (row["hidden_size"], row["num_layers"]))
        title = f"FLOPs per token of {FAMILY}..."
        console().print(flop_table(title, small, "L-{num_layers} H-{hidden_size}".format_map, "hidden_size"))
    checked = [row for row in rows if "hlo" in row]
    if checked:
        agree = sum(not disagreements(row) for row in checked)
        console().print(f"{agree} of {len(checked)} agree exactly with the dots of XLA's program.")


def flop_table(title: str, rows: list[dict[str, Any]], label: Callable, section: str):
    """A row for every model and length; a line under every group of models with equal `section`."""
    checked = any("hlo" in row for row in rows)
    columns = ["S", "FFN", "layer", "/ base", "all layers", "/ base", *(["XLA"] if checked else [])]
    table = tight_table(title, "", columns)
    for _, group in groupby(rows, key=itemgetter(section)):
        for _, lengths in groupby(group, key=itemgetter("preset")):
            for k, row in enumerate(lengths):
                table.add_row("" if k else label(row), *cells(row), *([xla_cell(row)] if checked else []))
        table.add_section()
    return table


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The figures of a row; "/ base" is against BERT-base at the same length."""
    return (
        str(row["seq_length"]),
        f"{row['feed_forward']:,}",
        f"{row['layer']:,}",
        f"{row['layer_of_bert_base']:.4f}",
        f"{row['layers']:,}",
        f"{row['layers_of_bert_base']:.4f}",
    )


def xla_cell(row: dict[str, Any]) -> str:
    """Whether XLA agrees."""
    return "differs" if disagreements(row) else "equal"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ValueError as error:
        sys.exit(f"flop_count.py: {error}")
