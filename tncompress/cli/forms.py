"""`tncompress forms`: the factorisations, and what each makes of a layer."""

from dataclasses import asdict, dataclass

import click

from tncompress.cli.app import Output, number, table, with_output
from tncompress.cli.wanted import FORM, form_names

NARROW = "narrow"  # no factorisation of one layer, but chosen like one
NARROW_NEEDS = "two layers with an activation between them, and --calibration"


@dataclass(frozen=True)
class Shown:
    """A form, and its largest network of a layer within a budget.

    Args:
        form: its name.
        equation, sizes, params, flops: of the network; None if there is none of these dimensions.
        needs: what dimensions it asks for.
        source: where it comes from.
    """

    form: str
    equation: str | None
    sizes: str | None
    params: int | None
    flops: int | None
    needs: str
    source: str


@click.command(short_help="The factorisations, and what they cost.")
@click.argument("names", metavar="[FORM]...", nargs=-1, type=FORM)
@click.option("--in", "in_dim", type=int, default=768, show_default=True, help="Features in of the layer.")
@click.option("--out", "out_dim", type=int, default=3072, show_default=True, help="Features out of the layer.")
@click.option("--keep", type=float, default=0.5, show_default=True, help="Fraction of its parameters that may stay.")
@with_output
def forms(names: tuple[str, ...], in_dim: int, out_dim: int, keep: float, output: Output) -> None:
    """List the factorisations: the equation, sizes and cost of the network that each has for a layer.

    In an equation x comes first, then the cores, all separated by commas; what the result does not have is summed
    over. FLOPs are for one token of many.

    Example: tncompress forms --in 512 --out 2048 --keep 0.25
    """
    if min(in_dim, out_dim) < 1 or not 0 < keep <= 1:
        raise ValueError(f"--in and --out are at least 1 and --keep is in (0, 1]; got {in_dim}, {out_dim} and {keep}.")
    rows = [shown(name, in_dim, out_dim, keep) for name in names or form_names()]
    value = {"in": in_dim, "out": out_dim, "params": in_dim * out_dim, "keep": keep, "forms": [*map(asdict, rows)]}
    columns = {"form": False, "equation": False, "sizes": False, "parameters": True, "FLOPs": True, "needs": False}
    cells = (
        (row.form, row.equation or "", row.sizes or "", number(row.params), number(row.flops), row.needs)
        for row in rows
    )
    title = f"{in_dim} -> {out_dim}: {in_dim * out_dim:,} parameters, {2 * in_dim * out_dim:,} FLOPs dense"
    output.show(value, table(title, columns, cells), *(f"{row.form}: {row.source}" for row in rows if names))


def shown(name: str, in_dim: int, out_dim: int, keep: float) -> Shown:
    """What a form makes of a layer.

    >>> shown("low_rank", 768, 3072, 0.5).sizes
    'i=768, o=3072, r=307'
    """
    from tncompress.fitting.budget import VECTORS
    from tncompress.fitting.choice import Choice
    from tncompress.forms import get_form

    if name == NARROW:
        return Shown(NARROW, None, None, None, None, NARROW_NEEDS, "ZipLM, arXiv:2302.04089")
    form = get_form(name)
    spec = next(iter(form.candidates(in_dim, out_dim, int(keep * in_dim * out_dim))), None)
    if spec is None:
        return Shown(name, None, None, None, None, form.needs, form.source)
    choice = Choice(name, spec)
    flops = choice.flops(VECTORS) // VECTORS  # cores may be multiplied with each other once for all tokens
    return Shown(name, spec.equation, choice.sizes, choice.num_params, flops, form.needs, form.source)
