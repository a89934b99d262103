"""The options that `plan` and `compress` share: what is wanted of every layer, as arguments of `replace_dense`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tncompress.cli.data import Source, batches_for
from tncompress.cli.models import Found
from tncompress.cli.objectives import objective
from tncompress.naming import did_you_mean

LIMITS = ("keep", "params", "flops", "latency", "max_loss")
FILE = click.Path(path_type=Path)


class Named(click.ParamType):
    """One of some names, which are looked up, and completed, only when they are needed.

    Args:
        name: of the kind of thing.
        names: gives them.
    """

    def __init__(self, name: str, names: Callable[[], list[str]]):
        self.name, self.names = name, names

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if value not in (known := self.names()):
            near = did_you_mean(value, known)
            self.fail(f"there is no {self.name} {value!r}; choose from {', '.join(known)}.{near}", param, ctx)
        return value

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self.names() if name.startswith(incomplete)]


def form_names() -> list[str]:
    """Of all forms, and `narrow`."""
    from tncompress.forms import FORMS

    return [*sorted(FORMS), "narrow"]


def device_names() -> list[str]:
    """Of all devices, and `this`."""
    from tncompress.hardware.device import DEVICES

    return [*DEVICES, "this"]


FORM, DEVICE = Named("form", form_names), Named("device", device_names)
_TEXT = [
    click.option(
        "--column", "columns", multiple=True, metavar="NAME", help="Column of a .csv or .tsv: name or number."
    ),
    click.option("--tokenizer", type=FILE, metavar="PATH", help="Folder or vocab.txt; else what lies beside MODEL."),
    click.option("--most", type=int, default=3000, show_default=True, help="Texts or rows that are taken, spread out."),
]
_WANTED = [
    click.option("--keep", type=float, help="Fraction of the chosen layers' parameters that stays.  [0.5]"),
    click.option("--params", type=float, help="Instead: parameters of the whole model, such as 10.7e6."),
    click.option("--flops", type=float, help="Instead: operations a token of the chosen layers."),
    click.option("--latency", type=float, help="Instead: fraction of the chosen layers' time, estimated."),
    click.option("--max-loss", type=float, help="Instead: fraction of the objective's variance that may change."),
    click.option("--form", "forms", type=FORM, multiple=True, help="Factorisation; several: the best of them."),
    click.option("--include", multiple=True, metavar="REGEX", help="Only layers with this in their path."),
    click.option("--exclude", multiple=True, metavar="REGEX", help="No layers with this in their path."),
    click.option("--embeddings", is_flag=True, help="Large tables of embeddings too; needs --calibration."),
    click.option(
        "--calibration",
        "files",
        type=FILE,
        multiple=True,
        metavar="FILE",
        help="What the model will meet: texts, one a line, .csv, .tsv, or arrays, .npy, .npz.",
    ),
    *_TEXT,
    click.option(
        "--objective",
        metavar="NAME",
        help="What shall stay the same: sentence_embedding, logits, outputs, or the name of an output.",
    ),
    click.option("--device", type=DEVICE, help="What it is to run on, such as tpu-v5e, or this."),
    click.option("--tokens", type=int, multiple=True, default=(1024,), help="Vectors at once on it.  [1024]"),
    click.option("--recipe", type=FILE, metavar="FILE", help="What goes where, as plan writes it."),
    click.option("--allocation", type=click.Choice(["uniform", "global"]), help="One fraction, or one budget for all."),
    click.option("--elastic", is_flag=True, help="The file can be loaded at several sizes; low rank only."),
]


def text_options(command: Callable) -> Callable:
    """Which texts there are in files, and their tokenizer."""
    for option in reversed(_TEXT):
        command = option(command)
    return command


def wanted_options(command: Callable) -> Callable:
    """All options of `wanted` and `calibrated`."""
    for option in reversed(_WANTED):
        command = option(command)
    return command


def wanted(options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `replace_dense`, as far as they need no model; takes what it uses out of the options.

    Raises:
        ValueError: an option is wrong, or two do not go together.
    """
    from tncompress.fitting.budget import Budget

    limits = {name: value for name in LIMITS if (value := options.pop(name)) is not None}
    if len(limits) > 1:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in limits)
        raise ValueError(f"{given} are two limits; give one of them.")
    recipe, forms = options.pop("recipe"), options.pop("forms")
    include, exclude = list(options.pop("include")) or None, list(options.pop("exclude")) or None
    if recipe is not None:
        given = [*limits, *(["form"] if forms else []), *(["include"] if include else [])]
        if given or exclude:
            raise ValueError(f"--recipe says what every layer becomes; leave --{(given or ['exclude'])[0]} away.")
        if not recipe.is_file():
            raise FileNotFoundError(f"There is no recipe {recipe}; tncompress plan writes one.")
    found = {name: options.pop(name) for name in ("embeddings", "device", "allocation", "elastic")}
    return {
        **found,
        "budget": Budget(**(limits or {"keep": 0.5})),
        "form": forms or "low_rank",
        "include": include,
        "exclude": exclude,
        "recipe": recipe,
        "tokens": tuple(options.pop("tokens")),
        "objective": objective(options.pop("objective")),
    }


def source(options: dict[str, Any]) -> Source | None:
    """The calibration data that were named; None for none. Takes what it uses out of the options."""
    files, columns = options.pop("files"), options.pop("columns")
    found = Source(files, columns, options.pop("tokenizer"), options.pop("most"))
    if not files and (columns or found.tokenizer):
        raise ValueError("--column and --tokenizer are for texts: give these with --calibration.")
    return found if files else None


def with_calibration(model: Any, found: Found, data: Source | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments, with batches where there are calibration data."""
    return {**arguments, "calibration": None if data is None else batches_for(model, [found], data)}
