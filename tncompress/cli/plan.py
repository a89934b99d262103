"""`tncompress plan`: what would become of every layer. Nothing is changed; the recipe is written."""

import json
from pathlib import Path
from typing import Any

import click

from tncompress.beside import beside
from tncompress.cli.app import Output, milliseconds, number, table, with_output
from tncompress.cli.models import CONFIG, Found, model_argument, open_model
from tncompress.cli.wanted import FILE, source, wanted, wanted_options, with_calibration
from tncompress.commands import told_if_full


@click.command(short_help="What compress would do; writes the recipe.")
@model_argument()
@click.option("--out", type=FILE, metavar="FILE", help="Where the recipe goes; else MODEL.recipe.json, here.")
@click.option("--overwrite", is_flag=True, help="Replace a recipe that is there.")
@wanted_options
@CONFIG
@with_output
def plan(model: Found, out: Path | None, overwrite: bool, config: str | None, output: Output, **options: Any) -> None:
    """Say what `compress` would make of every layer of MODEL: network, size, loss, time. MODEL stays as it is.

    The recipe, JSON that `compress --recipe` takes, is written; edit it by hand if you like. Without --calibration
    the loss is that of the weights; with --objective it is what the outputs lose. A preset's weights are random, so
    its losses are those of noise.

    Example: tncompress plan tn_bert --keep 0.5 --device tpu-v5e
    """
    arguments, data = wanted(options), source(options)
    out = checked_file(out or Path(f"{model.title}.recipe.json"), model, overwrite)
    keras_model = open_model(model, config=config)
    arguments = with_calibration(keras_model, model, data, arguments)
    from tncompress.conversion.preview import preview

    found = preview(keras_model, **arguments, progress=output.progress)
    write_text(out, json.dumps(found.recipe, indent=1) + "\n")
    output.show({**found.to_dict(), "recipe_file": str(out)}, *_parts(model, found))
    again = f" and the same --calibration{' and --objective' if found.objective else ''}" if data else ""
    output.hint(f"Recipe: {out}. Next: tncompress compress {model.name} OUT.keras --recipe {out}{again}")


def _parts(model: Found, found: Any) -> list[Any]:
    timed = found.device is not None
    columns = {"layer": False, "form": False, "sizes": False, "parameters": True, "FLOPs a token": True}
    columns |= {"ms": True} if timed else {}
    title = f"{model.title}: {len(found.replaced)} of {len(found.rows)} layers would be networks"
    columns["loss" if found.objective else "relative error"] = True
    rows = [
        [
            row.layer,
            row.form,
            row.sizes,
            f"{row.params_before:,} -> {row.params_after:,}",
            f"{row.flops_before:,} -> {row.flops_after:,}",
            *([f"{milliseconds(row.seconds_before)} -> {milliseconds(row.seconds_after)}"] if timed else []),
            number(row.loss if found.objective or row.loss is None else row.loss**0.5),
        ]
        for row in found.replaced
    ]
    return [table(title, columns, rows), *_left(found), *_totals(found)]


def _left(found: Any) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in found.rows:
        if not row.form:
            reasons.setdefault(row.reason, []).append(row.layer)
    return [f"Stays, {reason}: {', '.join(layers)}" for reason, layers in reasons.items()]


def _totals(found: Any) -> list[str]:
    from tncompress.reporting.table import percent

    smaller = found.params_before / max(found.params_after, 1)
    lines = [
        f"Whole model: {found.params_before:,} -> {found.params_after:,} parameters ({smaller:.2f}x smaller); "
        f"of the replaced layers {found.keep:.2%} stay."
    ]
    if found.device is not None:
        times = [sum(getattr(row, name) or 0.0 for row in found.rows) for name in ("seconds_before", "seconds_after")]
        lines.append(
            f"Dense layers on {found.device}, {' and '.join(map(str, found.tokens))} tokens at once, by estimate: "
            f"{milliseconds(times[0])} -> {milliseconds(times[1])} ms."
        )
    if found.predicted_loss is not None:
        lines.append(f"Objective: {percent(found.predicted_loss)} of its variance predicted to change.")
    return lines


def checked_file(path: Path, model: Found, overwrite: bool) -> Path:
    """A place where a file can be written, before any work.

    Args:
        path: of the file.
        model: whose files are never replaced.
        overwrite: whether another file may be.

    Raises:
        FileNotFoundError: its folder does not exist.
        IsADirectoryError: it is a folder itself.
        ValueError: it is a file of the model.
        FileExistsError: it exists.
    """
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} does not exist; make it first.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file.")
    if model.has(path):
        raise ValueError(f"{path} belongs to MODEL itself and stays as it is; choose another name.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name, or replace it with --overwrite.")
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place and rename it: there is never half of one."""
    with told_if_full(path), beside(path) as place:
        place.write_text(text, "utf-8")
