"""`tncompress export`: a model as a file that another engine runs."""

from pathlib import Path
from typing import Any

import click

from tncompress.cli.app import Output, byte_size, with_output
from tncompress.cli.data import Source, batches_for
from tncompress.cli.models import CONFIG, Found, model_argument, open_model
from tncompress.cli.random_input import check_length, random_inputs
from tncompress.cli.wanted import FILE, Named, text_options
from tncompress.commands import told_if_full

ROWS = 2  # of random input; two, so that a batch of one is not built in


def format_names() -> list[str]:
    """Of all formats."""
    from tncompress.exporting.formats import FORMATS

    return list(FORMATS)


FORMAT = Named("format", format_names)


@click.command(short_help="Write a model for another engine.")
@model_argument()
@click.argument("out", type=FILE)
@click.option("--to", type=FORMAT, required=True, help="onnx, litert, openvino, savedmodel, ...")
@click.option("--int8", is_flag=True, help="Weights as int8, where the format has them.")
@click.option("--output", "outputs", multiple=True, metavar="NAME", help="Only this output; several. Else all.")
@click.option("--overwrite", is_flag=True, help="Replace an OUT that this made.")
@click.option(
    "--text", "--inputs", "files", type=FILE, multiple=True, metavar="FILE", help="Check on these texts or arrays."
)
@text_options
@click.option("--length", type=int, default=32, show_default=True, help="Tokens of the random input of the check.")
@CONFIG
@with_output
def export(
    model: Found,
    out: Path,
    to: str,
    int8: bool,
    outputs: tuple[str, ...],
    overwrite: bool,
    length: int,
    config: str | None,
    output: Output,
    **texts: Any,
) -> None:
    """Write MODEL as OUT for another engine, run it there, and say how far its outputs are from those in Keras.

    OUT is a file .onnx or .tflite, or a folder. It appears once it is whole.

    Example: tncompress export small.keras small.onnx --to onnx --int8
    """
    source = Source(**texts)
    from tncompress.exporting.formats import check_target, format_of

    check_target(format_of(to, int8=int8), out, overwrite=overwrite)
    keras_model = open_model(model, config=config)
    check = _check_inputs(keras_model, model, source, length)
    import tncompress.exporting.export as exporting

    with told_if_full(out):
        found = exporting.export(keras_model, out, to, int8=int8, check=check, outputs=outputs, overwrite=overwrite)
    size = f"{found.version}, {byte_size(found.num_bytes)}"
    checked = f"largest difference to Keras {found.max_difference:.2g}"
    checked += "" if found.mean_cosine is None else f", mean cosine {found.mean_cosine:.5f}"
    on = ", ".join(file.name for file in source.files) or "random input"
    output.show({**found.to_config(), "path": str(out)}, f"{out}: {size}; {checked} on {on}.")


def _check_inputs(model: Any, found: Found, source: Source, length: int) -> Any:
    if source.files:
        return batches_for(model, [found], source)[-1]  # the longest texts
    check_length(model, length)
    return random_inputs(model, ROWS, length)
