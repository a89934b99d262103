"""The fastest shapes within a budget, for a device: of one map, or of an encoder.

A budget says how large a map may be, and no weights are looked at: of the maps that use the budget up, the fastest is
the best. Which of them loses least is for `replace_dense` to say, which has the weights.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tncompress.forms import FORMS, get_form
from tncompress.forms.form import Form
from tncompress.hardware import device as devices
from tncompress.hardware import tpu
from tncompress.hardware.aligned import aligned_specs, seconds
from tncompress.hardware.device import Device
from tncompress.hardware.machine import this_machine
from tncompress.network.cost import dense_spec
from tncompress.network.spec import Spec

DENSE = "dense"
TOKENS = 1024
SPEND = 0.5  # of the budget, at least: a smaller map lost more than it had to, and forms that come in steps take part
PER_FORM, SHOWN = 2, 10  # options that are kept, of a form and in all
FINALISTS = 6  # that the compiler is asked about
JUDGES = ("roofline", "compiler")


@dataclass(frozen=True)
class Option:
    """One way to compute what was tuned.

    Args:
        form: name of the form or forms; "dense" for what there was.
        sizes: of the networks, to be read.
        num_params: parameters.
        seconds: estimated by the roofline of the device.
        program: the networks, as a value that the TPU's compiler can be asked about.
        cycles: estimated by the compiler; None where it was not asked.
    """

    form: str
    sizes: str
    num_params: int
    seconds: float
    program: tpu.Maps | tpu.Encoder
    cycles: int | None = None

    @property
    def spec(self) -> Spec:
        """The network, where one map was tuned."""
        assert isinstance(self.program, tpu.Maps), "an encoder has several"
        return self.program.specs[0]

    @property
    def estimate(self) -> str:
        """The time in the unit of its judge."""
        return f"{self.seconds * 1e6:,.1f} us" if self.cycles is None else f"{self.cycles:,} cycles"

    def speedup(self, dense: "Option") -> float:
        """How many times as fast as dense, an estimate."""
        return dense.cycles / self.cycles if dense.cycles and self.cycles else dense.seconds / self.seconds


@dataclass(frozen=True)
class Tuning:
    """What was found; prints as a table.

    Args:
        title: what was tuned, for which device, and who judged.
        dense: what the options are compared with.
        options: within the budget, the fastest first.
    """

    title: str
    dense: Option
    options: tuple[Option, ...]

    @property
    def best(self) -> Option:
        """The fastest."""
        return self.options[0]

    def __str__(self) -> str:
        rows = [("form", "sizes", "parameters", "estimate", "speed-up")]
        for option in (self.dense, *self.options):
            speedup = f"{option.speedup(self.dense):.2f}"
            rows.append((option.form, option.sizes, f"{option.num_params:,}", option.estimate, speedup))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
            cells[:2] = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
            lines.append("  ".join(cells))
        return "\n".join([self.title, *lines])


def tune(
    in_dim: int,
    out_dim: int,
    budget: float,
    device: str | Device,
    judge: str = "roofline",
    tokens: int = TOKENS,
    dtype: str | None = None,
    forms: Sequence[str] | None = None,
) -> Tuning:
    """The fastest networks with aligned ranks within a budget.

    Args:
        in_dim: features in.
        out_dim: features out.
        budget: parameters, or up to 1 a fraction of the dense map's. What uses less than half of it is left out, if
            anything uses more.
        device: a name, see `tncompress.hardware.device.DEVICES`, "this" for this machine, or a `Device`.
        judge: "roofline"; or "compiler": the TPU's own compiler estimates the last candidates, see `hardware.tpu`.
        tokens: vectors at once.
        dtype: of weights and activations; None for the first that the device has figures for.
        forms: names; None for all.

    Raises:
        ValueError: if a name is unknown, a number is out of range, or nothing is small enough; the message says what
            could be had.
        TPUCompilerError: if the compiler is to judge and cannot.

    >>> print(tune(768, 3072, 0.3, "tpu-v5e", tokens=8192, forms=["low_rank", "cp"]))
    768 -> 3072 for 8,192 tokens on tpu-v5e in bfloat16, estimated by roofline
    form      sizes                           parameters  estimate  speed-up
    dense     i=768, o=3072                    2,359,296  197.2 us      1.00
    low_rank  i=768, o=3072, r=128               491,520   85.1 us      2.32
    cp        a=24, b=32, p=48, q=64, r=4096     688,128  419.8 us      0.47
    """
    device, dtype = checked(device, judge, tokens, dtype)
    known = [get_form(name) for name in forms] if forms is not None else list(FORMS.values())
    limit = parameters(budget, in_dim * out_dim)
    specs = [
        (form.name, spec) for form in known for spec in aligned_specs(form, in_dim, out_dim, limit, device.tile(dtype))
    ]
    if not specs:
        raise ValueError(_too_small(known, in_dim, out_dim, limit))

    def option(form: str, spec: Spec) -> Option:
        time = seconds(spec, tokens, device, dtype)
        return Option(form, sizes_of(spec), spec.num_params, time, tpu.Maps((spec,), 1, tokens))

    found = [option(form, spec) for form, spec in {spec: (form, spec) for form, spec in specs}.values()]
    found = [each for each in found if each.num_params >= SPEND * limit] or found
    dense = option(DENSE, dense_spec(in_dim, out_dim))
    title = f"{in_dim} -> {out_dim} for {tokens:,} tokens on {device.name} in {dtype}, estimated by {judge}"
    return ranked(title, dense, found, device, judge)


def ranked(title: str, dense: Option, options: Iterable[Option], device: Device, judge: str) -> Tuning:
    """The fastest of every form first by the roofline; of these the compiler judges a few, if it is the judge."""
    found: list[Option] = []
    for option in sorted(options, key=lambda option: (option.seconds, -option.num_params)):
        if sum(option.form == other.form for other in found) < PER_FORM:
            found.append(option)
    found = found[:SHOWN]
    if judge == "compiler":
        asked = [dense, *found[:FINALISTS]]
        cycles = tpu.estimated_cycles([option.program for option in asked], device.name)
        dense, *found = [replace(option, cycles=count) for option, count in zip(asked, cycles, strict=True)]
        found.sort(key=lambda option: (option.cycles, -option.num_params))
    return Tuning(title, dense, tuple(found))


def checked(device: str | Device, judge: str, tokens: int, dtype: str | None) -> tuple[Device, str]:
    """The device and the dtype, once all arguments are known to be good."""
    device = this_machine() if device == "this" else devices.device(device)
    if judge not in JUDGES:
        raise ValueError(f"judge is one of {', '.join(JUDGES)}, got {judge!r}.")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1:
        raise ValueError(f"tokens is the number of vectors at once, at least 1, got {tokens!r}.")
    if judge == "compiler":
        tpu.check(device.name)
        if dtype not in (None, tpu.DTYPE):
            raise ValueError(f"The TPU compiler is asked about {tpu.DTYPE}, not {dtype!r}; or use judge='roofline'.")
        dtype = tpu.DTYPE
    dtype = dtype or device.rates[0][0]
    device.rate(dtype)
    return device, dtype


def parameters(budget: float, dense: int) -> int:
    """A budget as a number of parameters.

    >>> parameters(0.5, 1000), parameters(300, 1000)
    (500, 300)
    """
    is_number = isinstance(budget, (int, float)) and not isinstance(budget, bool)
    if not (is_number and 0 < budget < math.inf):
        what = f"a number of parameters, or up to 1 a fraction of the {dense:,} there are"
        raise ValueError(f"budget is {what}, above 0, got {budget!r}.")
    return int(budget * dense) if budget <= 1 else int(budget)


def sizes_of(spec: Spec) -> str:
    """Of the modes, to be read."""
    return ", ".join(f"{mode}={size}" for mode, size in spec.sizes)


def _too_small(forms: Sequence[Form], in_dim: int, out_dim: int, limit: int) -> str:
    """What to say where nothing fits."""
    names = ", ".join(form.name for form in forms)
    low, high = limit, in_dim * out_dim
    if not any(True for form in forms for _ in form.candidates(in_dim, out_dim, high)):
        return f"None of {names} can be {in_dim} -> {out_dim}: {'; '.join(f'{f.name} needs {f.needs}' for f in forms)}."
    while low + 1 < high:
        middle = (low + high) // 2
        fits = any(True for form in forms for _ in form.candidates(in_dim, out_dim, middle))
        low, high = (low, middle) if fits else (middle, high)
    return (
        f"Nothing of {names} for {in_dim} -> {out_dim} has at most {limit:,} parameters; "
        f"the smallest has {high:,}, a budget of {high / (in_dim * out_dim):.3g}."
    )
