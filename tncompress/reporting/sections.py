"""The page's sections of pictures, each a function of the report's JSON. What is not known is said."""

from collections.abc import Mapping
from typing import Any

from tncompress.reporting.charts import bars, front, shares, spectra
from tncompress.reporting.grouping import kind_of
from tncompress.reporting.markup import folded, known, paragraph, section, shown, table

Data = Mapping[str, Any]

COSTS = {  # unit, style and what is added up, by the kind of the budget
    "flops": ("FLOPs a token", "count"),
    "latency": ("seconds, estimated", "short"),
}
LOSSES = {  # what a loss is of: its name, style
    "objective": ("predicted change of the objective, of its variance", "percent"),
    "outputs": ("lost energy of the outputs, layers added up", "short"),
    "weights": ("lost energy of the weights, layers added up", "short"),
}


def heading(data: Data) -> str:
    """Name and totals."""
    replaced = data["replaced"]["layers"]
    tiles = [
        ("Parameters of the model", _change(data, "params_before", "params_after"), _smaller(data)),
        ("Layers that are networks", f"{shown(data, 'replaced/layers')} of {shown(data, 'replaced/of')}", ""),
    ]
    if replaced:
        kept = f"{shown(data, 'keep', 'percent')} kept"
        of = "replaced/params_before", "replaced/params_after"
        tiles.append(("Parameters of those layers", _change(data, *of), kept))
        of = "replaced/flops_before", "replaced/flops_after"
        tiles.append(("FLOPs a token of those layers", _change(data, *of), "a multiply-add counts as two"))
        tiles.append(("Change of the objective, of its variance", *_objective(data)))
    boxes = "".join(f"<div><dt>{title}</dt><dd>{value}<small>{note}</small></dd></div>" for title, value, note in tiles)
    warnings = (
        paragraph("Warning:", shown(data, f"warnings/{k}", "text"), kind="warning")
        for k in range(len(data["warnings"]))
    )
    what = "What became of its layers" if replaced else "This model is not compressed; what it has"
    title = shown(data, "model", "text")
    return (
        f'<header><h1>{title}</h1><p class="soft">{what}.</p><dl class="tiles">{boxes}</dl>{"".join(warnings)}</header>'
    )


def _change(data: Data, before: str, after: str) -> str:
    return f"{shown(data, before)} &rarr; {shown(data, after)}"


def _smaller(data: Data) -> str:
    return f"{shown(data, 'smaller', 'times')} times smaller" if data["replaced"]["layers"] else ""


def _objective(data: Data) -> tuple[str, str]:
    if data["predicted_loss"] is None:
        return "not known", "compressed without an objective"
    is_known = data["measured_loss"] is not None
    measured = f"{shown(data, 'measured_loss', 'percent')} measured" if is_known else "not checked"
    return f"{shown(data, 'predicted_loss', 'percent')} predicted", f"{measured} on held-out inputs"


def parameters(data: Data) -> str:
    """Where the parameters were and are."""
    whens = {"params_before": "before", "params_after": "now"}
    if not data["replaced"]["layers"]:
        whens = {"params_after": "now"}
    pictures = "".join(f"<span>{word}</span>{shares(data, when)}" for when, word in whens.items())
    rows = [
        [
            f'<span class="swatch b{k}"></span><code>{shown(data, f"kinds/{k}/kind", "text")}</code>',
            "" if kind["layers"] is None else shown(data, f"kinds/{k}/layers"),
            *(shown(data, f"kinds/{k}/{when}") for when in whens),
        ]
        for k, kind in enumerate(data["kinds"])
    ]
    head = ["kind of layer", "layers", *whens.values()]
    note = (
        "A * stands for a number; “everything else” is what no dense layer of the list has, such as norms and biases."
    )
    return section(
        "Where the parameters are",
        f'<div class="bars">{pictures}</div>',
        table("Parameters by kind of layer", head, rows),
        paragraph(note, kind="soft"),
    )


def errors(data: Data) -> str:
    """Error and predicted loss of every layer, as bars."""
    replaced = [number for number, row in enumerate(data["rows"]) if row["form"]]
    if not replaced:
        return ""
    of_outputs, predicted = (known(data, replaced, field) for field in ("output_error", "predicted_loss"))
    charts = []
    if of_outputs:
        charts.append(
            bars(data, "Relative error of the outputs, on calibration inputs", "output_error", "short", of_outputs)
        )
    else:
        charts.append(bars(data, "Relative error of the weights", "weight_error", "short", replaced))
    if predicted:
        title = "Predicted change of the objective, of its variance"
        charts.append(bars(data, title, "predicted_loss", "percent", predicted))
    notes = [] if of_outputs else ["Errors of outputs are not known: there was no calibration data."]
    notes += [] if predicted else ["Predicted losses are not known: there was no objective."]
    colours = "Colours are those of the kinds of layers above; the numbers are in the table of all layers below."
    return section(
        "Error and predicted loss by layer",
        f'<div class="grid2">{"".join(charts)}</div>',
        *(paragraph(note) for note in notes),
        paragraph(colours, kind="soft"),
    )


def trade(data: Data) -> str:
    """The front of size against loss, and what was chosen."""
    title = "Size against loss"
    if not data["replaced"]["layers"]:
        return ""
    if data["front"] is None:
        return section(
            title, paragraph("There is no front to show: every layer had its own budget, or a recipe chose.")
        )
    unit, cost_style = COSTS.get(data["front"]["budget"], ("parameters of the layers in the budget", "count"))
    name, style = LOSSES[data["front"]["loss"]]
    at = f"{shown(data, 'front/chosen/0', cost_style)} {unit}, at {shown(data, 'front/chosen/1', style)} {name}"
    chosen = paragraph(
        f"Chosen: {at}.",
        "The curve is the least loss that was possible at each size, before the networks were fitted.",
    )
    rows = [
        [shown(data, f"front/points/{k}/0", cost_style), shown(data, f"front/points/{k}/1", style)]
        for k in range(len(data["front"]["points"]))
    ]
    points = folded("The points of the curve", table(f"Least {name}", [unit, "loss"], rows, numbers_from=0))
    picture = front(data, f"{name[0].upper()}{name[1:]}", unit, style)
    return section(title, f'<div class="grid2">{picture}<div>{chosen}{points}</div></div>')


def cuts(data: Data) -> str:
    """Singular spectra of the low-rank layers, by kind, with their cuts."""
    if not data["replaced"]["layers"]:
        return ""
    kinds: dict[str, list[int]] = {}
    for number, row in enumerate(data["rows"]):
        if row["form"] and row["spectrum"] and row["rank"]:
            kinds.setdefault(kind_of(row["layer"]), []).append(number)
    if not kinds:
        return section(
            "Singular spectra and their cuts",
            paragraph("No spectra are known: no layer was cut to a rank, or all that were are too large to note one."),
        )
    note = (
        "Singular values of each kernel as its inputs (and the objective, if there was one) weight them, as fractions "
        "of the whole. The dot is the rank that was kept; what lies right of it is lost. Layers of other forms have no "
        "one spectrum and are not drawn."
    )
    pictures = "".join(spectra(data, kind, rows) for kind, rows in kinds.items())
    return section("Singular spectra and their cuts", paragraph(note), f'<div class="grid2">{pictures}</div>')
