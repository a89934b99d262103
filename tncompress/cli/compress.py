"""`tncompress compress`: a model in, a smaller model out."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from tncompress.cli.app import LimitError, Output, byte_size, with_output
from tncompress.cli.models import CONFIG, SUFFIX, Found, model_argument, open_model
from tncompress.cli.plan import checked_file
from tncompress.cli.wanted import FILE, source, wanted, wanted_options, with_calibration
from tncompress.commands import told_if_full


@click.command(short_help="A model in, a smaller model out.")
@model_argument()
@click.argument("out", type=FILE)
@wanted_options
@click.option("--refit", is_flag=True, help="Fit once more, layer after layer, on the calibration data.")
@click.option("--overwrite", is_flag=True, help="Replace OUT, once the new model is whole.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of random starts, and of a preset's weights.")
@CONFIG
@with_output
def compress(
    model: Found,
    out: Path,
    refit: bool,
    overwrite: bool,
    seed: int,
    config: str | None,
    output: Output,
    **options: Any,
) -> None:
    """Turn the dense layers of MODEL into tensor networks, and save the smaller model as OUT, a .keras file.

    Without a limit half of the parameters of the dense layers stay. Texts of the kind that the model will meet, given
    with --calibration, matter most for what is left of its quality. OUT appears once it is whole.

    Exit code 1: the limit cannot be met, or the loss measured afterwards is above --max-loss.

    Example: tncompress compress my-bert small.keras --keep 0.3 --include feed_forward --calibration texts.txt
    """
    arguments, data = wanted(options), source(options)
    if refit and data is None:
        raise ValueError("--refit goes over the calibration data: give --calibration.")
    _check_out(out, model, overwrite)
    keras_model = open_model(model, config=config, seed=seed)
    arguments = with_calibration(keras_model, model, data, arguments)
    from tncompress.conversion.replace import replace_dense
    from tncompress.reporting.report import report

    if refit and not sys.stderr.isatty():  # where no bar is shown
        output.hint(_begun(keras_model, arguments))
    small = replace_dense(keras_model, **arguments, refit=refit, seed=seed, progress=output.progress)
    with told_if_full(out):
        small.save(out)
    found, size = report(small), out.stat().st_size
    value = {**json.loads(found.to_json()), "file": str(out), "file_bytes": size}
    output.show(value, found, f"Saved: {out}, {byte_size(size)}.")
    if data is not None and not data.has_arrays:
        place = data.tokenizer or model.folder
        output.hint(f"Its tokenizer stays where it is: give --tokenizer {place} to compare or export on texts.")
    _check_limit(arguments, small, found)


def _check_out(out: Path, model: Found, overwrite: bool) -> None:
    if out.suffix != SUFFIX:
        raise ValueError(f"OUT is a {SUFFIX} file, such as {out.stem}{SUFFIX}; got {out}.")
    checked_file(out, model, overwrite)


def _begun(model: Any, arguments: dict[str, Any]) -> str:
    """What is to be waited for."""
    from tncompress.conversion.sites import find_sites

    sites = find_sites(model, arguments["include"], arguments["exclude"])
    count = sum(not site.reason for site in sites)
    return f"Compressing, then refitting up to {count} layers, one after the other; this can take minutes."


def _check_limit(arguments: dict[str, Any], small: Any, found: Any) -> None:
    """Refuse to call it done if what was asked for is not what came out."""
    if arguments["recipe"] is not None:
        return
    from tncompress.conversion.outcomes import ROOM

    budget = arguments["budget"]
    reached = {
        "keep": found.keep,
        "params": small.count_params(),
        "flops": sum(row.flops_after for row in found.rows if row.form or row.reason == ROOM),
        "max_loss": found.measured_loss,
    }.get(budget.kind)
    if reached is not None and reached > budget.limit * (1 + 1e-9):
        option, is_count = budget.kind.replace("_", "-"), budget.kind in ("params", "flops")
        limit, came_to = (
            (f"{budget.limit:.0f}", f"{reached:,}") if is_count else (f"{budget.limit:g}", f"{reached:.4g}")
        )
        raise LimitError(f"--{option} {limit} is not met: it came to {came_to}. The model was saved.")
