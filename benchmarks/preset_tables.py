"""What `param_count.py` and `flop_count.py` share: the presets asked for, and the ways out, a table or JSON."""

import argparse
import fnmatch
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from measure import environment, write_json

from bert_models.presets import PRESETS, Preset, preset

BASE = "bert_en_uncased_L-12_H-768_A-12"
FAMILY = "small_bert/bert_en_uncased_"
WIDTH = 100  # columns; in a narrower terminal a table breaks, but loses no digits


class Parser(argparse.ArgumentParser):
    """Preset names and `--json`; a wrong argument is answered with one sentence and exit code 2."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("presets", nargs="*", metavar="PRESET", help='name or pattern, e.g. "small_bert/*" (all)')
        self.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write JSON; without FILE, print it")

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\n")

    def read(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """The options, with `presets` as a list of `Preset`."""
        options = self.parse_args(arguments)
        try:
            options.presets = chosen(options.presets)
            _check_file(options.json)
        except ValueError as error:
            self.error(str(error))
        return options


def chosen(names: Sequence[str]) -> list[Preset]:
    """The presets of these names and patterns, each once, in the order of `PRESETS`; all if there is no name.

    Raises:
        ValueError: a name or a pattern that fits no preset.

    >>> [item.name for item in chosen(["*L-2_H-128*", "google/tn_bert/1"])]
    ['tn_bert', 'small_bert/bert_en_uncased_L-2_H-128_A-2']
    """
    found: set[str] = set()
    for name in names:
        fitting = fnmatch.filter(PRESETS, name) if set("*?[") & set(name) else [preset(name).name]
        if not fitting:
            raise ValueError(f"no preset fits the pattern {name!r}; bert_models.PRESETS holds all {len(PRESETS)}.")
        found.update(fitting)
    return [item for item in PRESETS.values() if not names or item.name in found]


def _check_file(file: str | None) -> None:
    if file in (None, "-"):
        return
    if file in PRESETS or set("*?[") & set(file):
        raise ValueError(f"--json {file} names a preset, not a file; write the presets before --json.")
    if not Path(file).absolute().parent.is_dir() or Path(file).is_dir():
        raise ValueError(f"--json {file}: no file can be written there, its folder is missing or it is a folder.")


def deliver(file: str | None, name: str, rows: list[dict], wrong: Sequence[str], print_tables: Callable) -> int:
    """Print the rows as tables, or print or write them with machine and versions as JSON; then what is wrong with them.

    Returns:
        The exit code.
    """
    if file == "-":
        print(json.dumps({"benchmark": name, "environment": environment(), "results": rows}, indent=2))
    else:
        print_tables(rows)
        if file:
            write_json(file, name, rows)
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


def console():
    """Where tables are printed."""
    from rich.console import Console

    return Console(width=WIDTH, highlight=False)


def tight_table(title: str, label: str, columns: Sequence[str]):
    """A table with one column of labels and columns of right-aligned figures, one blank between them."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, collapse_padding=True)
    table.add_column(label, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
