"""How many parameters has every preset, part by part, against BERT-base and against what its card says?

    python benchmarks/param_count.py                       all of them, in a second, without Keras
    python benchmarks/param_count.py tn_bert "small_bert/*H-512*"
    python benchmarks/param_count.py tn_bert --build       build the Keras model too and count its weights
    python benchmarks/param_count.py --json counts.json    without a file name: JSON instead of tables

The exit code is 1 if a card's figure is not met or a built model has other counts, 2 after a wrong argument.
"""

import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from preset_tables import BASE, FAMILY, Parser, console, deliver, tight_table

from bert_models.config import BertConfig
from bert_models.counts import param_counts
from bert_models.presets import PRESETS, Preset

PARTS = {
    "embeddings": "embeddings",
    "attention": "attention",
    "feed_forward": "FFN",
    "norms": "norms",
    "pooler": "pooler",
    "mlm_head": "MLM head",
}
TOTALS = {"encoder": "encoder", "with_mlm_head": "+ MLM head"}
# What cards say, in their own rounding: the fact's name -> its figure from our parameters and BERT-base's.
CARD: dict[str, Callable[[int, int], str]] = {
    "parameters": lambda ours, base: f"{ours / 1e6:.0f}M",
    "fewer parameters than BERT-base": lambda ours, base: f"{100 * (1 - ours / base):.0f}%",
}
# The path of a weight in the encoder -> its part; the first that fits.
GROUPS = {
    r"norm/(gamma|beta)$": "norms",
    r"^embeddings/": "embeddings",
    r"^block_\d+/attention/": "attention",
    r"^block_\d+/feed_forward/": "feed_forward",
    r"^pooler/": "pooler",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, compare, print. Returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--build", action="store_true", help="build the Keras models too and count their weights")
    options = parser.read(arguments)
    rows = [counted(item) for item in options.presets]
    if options.build:
        from tncompress.progress import progress_bar

        for row, item in zip(rows, progress_bar(options.presets, "building"), strict=True):
            row["built"] = built_counts(item.config)
    wrong = [sentence for row in rows for sentence in disagreements(row)]
    return deliver(options.json, "param_count", rows, wrong, print_tables)


def counted(item: Preset) -> dict[str, Any]:
    """All that is said of one preset, as JSON can hold it; "encoder" is with pooler."""
    counts, base = param_counts(item.config), param_counts(PRESETS[BASE].config)
    return {
        "preset": item.name,
        "num_layers": item.config.num_layers,
        "hidden_size": item.config.hidden_size,
        **asdict(counts),
        "encoder": counts.encoder,
        "with_mlm_head": counts.with_mlm_head,
        "of_bert_base": counts.encoder / base.encoder,
        "percent_fewer": 100 * (1 - counts.encoder / base.encoder),
        "card": [
            {"fact": fact, "says": item.facts[fact], "counted": figure(counts.encoder, base.encoder)}
            for fact, figure in CARD.items()
            if fact in item.facts
        ],
    }


def built_counts(config: BertConfig) -> dict[str, int]:
    """`counts_by_path` of a new Keras model with masked-LM head."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's start-up notices
    import keras

    from bert_models.encoder import build_encoder
    from bert_models.heads import MaskedLM

    keras.backend.clear_session()
    return counts_by_path(MaskedLM(build_encoder(config)))


def counts_by_path(model) -> dict[str, int]:
    """Parameters of a `MaskedLM` by the paths of its encoder's weights; what fits no part is under "other"."""
    of_encoder = {id(weight) for weight in model.encoder.weights}
    counts = dict.fromkeys((*PARTS, "other"), 0)
    for weight in model.weights:
        part = part_of(weight.path) if id(weight) in of_encoder else "mlm_head"
        counts[part] += math.prod(weight.shape)
    return counts


def part_of(path: str) -> str:
    """The part of the encoder that a weight belongs to.

    >>> part_of("block_0/attention/query/kernel"), part_of("block_0/attention_norm/gamma"), part_of("adapter/kernel")
    ('attention', 'norms', 'other')
    """
    return next((part for pattern, part in GROUPS.items() if re.search(pattern, path)), "other")


def disagreements(row: dict[str, Any]) -> list[str]:
    """A sentence for every figure of the card, and for every part of the built model, that is not as counted."""
    card = [
        f"{row['preset']}: the card says {fact['says']} {fact['fact']}, the count gives {fact['counted']}."
        for fact in row["card"]
        if fact["says"] != fact["counted"]
    ]
    built = [
        f"{row['preset']}: the built model has {number:,} parameters in {part}, the count gives {row.get(part, 0):,}."
        for part, number in row.get("built", {}).items()
        if number != row.get(part, 0)
    ]
    return card + built


# -- tables ----------------------------------------------------------------------------------------------


def print_tables(rows: list[dict[str, Any]]) -> None:
    """One table with a column for every named model, and one with a row for every small BERT."""
    small = [row for row in rows if row["preset"].startswith(FAMILY)]
    named = [row for row in rows if row not in small]
    if named:
        console().print(named_table(named))
    if small:
        console().print(family_table(small))
    built = sum("built" in row for row in rows)
    if built:
        agree = sum("built" in row and not any("built model" in text for text in disagreements(row)) for row in rows)
        console().print(f"{agree} of {built} built Keras models have these parameters, part by part.")


def named_table(rows: list[dict[str, Any]]):
    """Parts down, models across."""
    names = ["\n".join(broken(row["preset"], 14)) for row in rows]
    table = tight_table("Parameters", "", names)
    for name, label in {**PARTS, **TOTALS}.items():
        table.add_row(label, *(f"{row[name]:,}" for row in rows), end_section=name in ("mlm_head", "with_mlm_head"))
    table.add_row("of BERT-base", *(f"{row['of_bert_base']:.4f}" for row in rows))
    table.add_row("", *(fewer(row["percent_fewer"]) for row in rows))
    table.add_row("card says", *("\n".join(map(card_line, row["card"])) or "-" for row in rows))
    return table


def family_table(rows: list[dict[str, Any]]):
    """The small BERTs by width, then by depth."""
    columns = {**PARTS, **TOTALS}
    table = tight_table(f"Parameters of {FAMILY}...", "", [*columns.values(), "/ base"])
    rows = sorted(rows, key=lambda row: (row["hidden_size"], row["num_layers"]))
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        table.add_row(
            f"L-{row['num_layers']} H-{row['hidden_size']}",
            *(f"{row[name]:,}" for name in columns),
            f"{row['of_bert_base']:.4f}",
            end_section=following is not None and following["hidden_size"] != row["hidden_size"],
        )
    return table


def fewer(percent: float) -> str:
    """A difference to BERT-base in words.

    >>> fewer(37.361), fewer(-25.9), fewer(0.0)
    ('37.36 % fewer', '25.90 % more', 'the same')
    """
    return f"{abs(percent):.2f} % {'fewer' if percent > 0 else 'more'}" if percent else "the same"


def card_line(fact: dict[str, str]) -> str:
    """A figure of the card, and whether the count meets it."""
    return f"{fact['says']} {'met' if fact['says'] == fact['counted'] else 'NOT MET: ' + fact['counted']}"


def broken(name: str, width: int) -> list[str]:
    """A name in lines of at most that width, broken behind underscores.

    >>> broken("bert_en_uncased_L-12_H-768_A-12", 14)
    ['bert_en_', 'uncased_L-12_', 'H-768_A-12']
    """
    lines = [""]
    for piece in re.findall(r"[^_]+_?", name):
        if lines[-1] and len(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines


if __name__ == "__main__":
    sys.exit(main())
