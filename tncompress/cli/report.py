"""`tncompress report`: what became of every layer of a compressed model."""

import json
from pathlib import Path

import click

from tncompress.cli.app import Output, with_output
from tncompress.cli.models import CONFIG, Found, model_argument, open_model
from tncompress.cli.plan import checked_file
from tncompress.cli.wanted import FILE


@click.command(short_help="What became of every layer of a model.")
@model_argument()
@click.option("--html", type=FILE, metavar="FILE", help="Also as one page with pictures, that needs no network.")
@click.option("--recipe", type=FILE, metavar="FILE", help="Also the recipe, for compress --recipe.")
@CONFIG
@with_output
def report(model: Found, html: Path | None, recipe: Path | None, config: str | None, output: Output) -> None:
    """Show what became of every dense layer of MODEL; of a model that was not compressed, what it has.

    Example: tncompress report small.keras --html small.html
    """
    from tncompress.cli.plan import write_text

    for file in (html, recipe):
        if file is not None:
            checked_file(file)
    keras_model = open_model(model, config=config)
    from tncompress.reporting.report import report as reported

    found = reported(keras_model)
    if html is not None:
        found.save_html(html)
    if recipe is not None:
        write_text(recipe, json.dumps(found.recipe, indent=1) + "\n")
    written = [f"Written: {file}." for file in (html, recipe) if file is not None]
    output.show(json.loads(found.to_json()), found, *written)
