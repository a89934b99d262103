"""`tncompress report`: what became of every layer of a compressed model."""

import json
from pathlib import Path

import click

from tncompress.cli.app import Output, with_output
from tncompress.cli.models import CONFIG, Found, model_argument, open_model
from tncompress.cli.plan import checked_file, write_text
from tncompress.cli.wanted import FILE
from tncompress.commands import told_if_full


@click.command(short_help="What became of every layer of a model.")
@model_argument()
@click.option("--html", type=FILE, metavar="FILE", help="Also as one page with pictures, that needs no network.")
@click.option("--recipe", type=FILE, metavar="FILE", help="Also the recipe, for compress --recipe.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@CONFIG
@with_output
def report(
    model: Found, html: Path | None, recipe: Path | None, overwrite: bool, config: str | None, output: Output
) -> None:
    """Show what became of every dense layer of MODEL; of a model that was not compressed, what it has.

    Example: tncompress report small.keras --html small.html
    """
    files = [checked_file(file, model, overwrite) for file in (html, recipe) if file is not None]
    if len({file.resolve() for file in files}) < len(files):
        raise ValueError(f"--html and --recipe are the same file, {html}; give two names.")
    keras_model = open_model(model, config=config)
    from tncompress.reporting.report import report as reported

    found = reported(keras_model)
    if html is not None:
        with told_if_full(html):
            found.save_html(html)
    if recipe is not None:
        write_text(recipe, json.dumps(found.recipe, indent=1) + "\n")
    output.show(json.loads(found.to_json()), found, *(f"Written: {file}." for file in files))
