"""Options that several commands have, and tables of options for the fields of settings and recipes."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from bert_models.cli import config
from bert_models.cli.running import JSON

Decorator = Callable[[Callable], Callable]


def _use_file(ctx: click.Context, param: click.Parameter, file: str | None) -> None:
    if file is not None:
        commands = ctx.parent.command.commands if ctx.parent else {}  # type: ignore[union-attr]
        ctx.default_map = config.options_of(config.read(file), ctx.command, commands, file)


def _remember_json(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    ctx.meta[JSON] = wanted


# Of all commands; the last ones in each help.
COMMON = (
    click.option(
        "--config",
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_use_file,
        help="A .toml or .json file with options of this command; what is typed wins.",
    ),
    click.option("--json", is_flag=True, expose_value=False, callback=_remember_json, help="Print results as JSON."),
    click.option("--quiet", is_flag=True, help="No progress on standard error."),
)


def joined(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, in the order of the help."""

    def decorate(function: Callable) -> Callable:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def fields(table: Mapping[str, tuple[Any, str]], recipe: str, usual: Any) -> Decorator:
    """An option for each field of a recipe; one that is not given keeps the recipe's value.

    Args:
        table: field -> type for click, or bool, and help.
        recipe, usual: name of a recipe and the recipe, for the help.
    """
    made = []
    for name, (kind, text) in table.items():
        flag = name.replace("_", "-")
        names = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
        kinds = {} if kind is bool else {"type": kind}
        default = f"[default: the recipe's; of {recipe}: {getattr(usual, name)}]"
        made.append(click.option(names, name, default=None, help=f"{text} {default}", **kinds))
    return joined(*made)


def given(values: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a table that are given among a command's arguments."""
    return {name: values[name] for name in table if values.get(name) is not None}


SEED = click.IntRange(0, 2**32 - 1)  # what Keras takes
ENCODER = click.option(
    "--encoder",
    required=True,
    metavar="NAME|PATH",
    help="A preset such as tn_bert (new random weights), a Hugging Face folder, a TensorFlow checkpoint, a .keras "
    "file, or what pretrain, finetune or distil wrote.",
)
SET = click.option(
    "--set",
    "overrides",
    type=config.Setting(),
    multiple=True,
    help="Another value for a field of a preset, e.g. --set num_layers=2; may be repeated. In a file: a table.",
)
DTYPE = click.option(
    "--dtype", default=None, metavar="POLICY", help="mixed_bfloat16 or mixed_float16: compute in half precision."
)
TOKENIZER = click.option(
    "--tokenizer",
    metavar="PATH",
    help="Folder with tokenizer.json or vocab.txt, or a vocab.txt. [default: the encoder's folder]",
)
TASK = click.option(
    "--task", required=True, metavar="NAME", help="cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, squad1, squad2."
)
TASK_DATA = click.option(
    "--data", required=True, metavar="FOLDER", help="Folder with the task's own files, or that of all of GLUE."
)
OUT = click.option("--out", required=True, metavar="FOLDER", help="New folder for the model, its tokenizer and scores.")
