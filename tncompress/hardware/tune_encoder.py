"""The fastest BERT encoder within a budget: attention and feed-forward chosen together, the same in every layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from tncompress.forms import FORMS, get_form
from tncompress.forms.form import Form
from tncompress.hardware.aligned import aligned_specs, seconds
from tncompress.hardware.device import Device
from tncompress.hardware.tpu import Encoder
from tncompress.hardware.tune import DENSE, Option, Tuning, checked, parameters, ranked, sizes_of
from tncompress.network.cost import dense_spec
from tncompress.network.spec import Spec

NARROW = "narrow"  # dense maps to fewer hidden units and back
SPEND = 0.9  # of the budget, at least: what is faster with less of it is the answer to a smaller budget
FRACTIONS = tuple(k / 16 for k in range(15, 0, -1))  # of a map's parameters that are tried

Named = tuple[str, tuple[Spec, ...]]


@dataclass(frozen=True)
class Part:
    """One choice for the projections of attention, or for the feed-forward part, of one layer."""

    form: str
    specs: tuple[Spec, ...]
    num_params: int
    seconds: float

    @property
    def sizes(self) -> str:
        """To be read; of dense maps there and back only the number of hidden units."""
        first = self.specs[0]
        return f"{first.out_dim}" if len(self.specs) == 2 and self.form in (DENSE, NARROW) else sizes_of(first)


def tune_encoder(
    dense: Encoder,
    budget: float,
    device: str | Device,
    judge: str = "roofline",
    dtype: str | None = None,
    forms: Sequence[str] | None = None,
) -> Tuning:
    """The fastest encoders that use a budget up, with aligned ranks and widths.

    The four projections of attention are alike, so are all layers. The feed-forward part is a pair of networks, or
    dense maps with fewer hidden units ("narrow").

    Args:
        dense: the encoder as it is, with batch and tokens.
        budget: parameters of its layers (embeddings and pooler are not among them), or a fraction of them up to 1. What
            uses less than nine tenths of it is left out, if anything uses more.
        device: a name, see `tncompress.hardware.device.DEVICES`, or a `Device`.
        judge: "roofline"; or "compiler": the TPU's own compiler estimates the last candidates, see `hardware.tpu`.
        dtype: of weights and activations; None for the first that the device has figures for.
        forms: names; None for all.

    Raises:
        ValueError: if a name is unknown, a number is out of range, or nothing is small enough; the message says what
            could be had.
        TPUCompilerError: if the compiler is to judge and cannot.

    >>> base = Encoder.dense(768, 3072, heads=12, layers=12, batch=32, tokens=128)
    >>> found = tune_encoder(base, 0.52, "tpu-v5e", forms=["low_rank"])
    >>> found.best.form, found.best.sizes
    ('dense + narrow', 'attention i=768, o=768; feed-forward 640')
    """
    vectors = dense.batch * dense.tokens
    device, dtype = checked(device, judge, vectors, dtype)
    known = [get_form(name) for name in forms] if forms is not None else list(FORMS.values())
    limit = parameters(budget, dense.num_params)
    tile = device.tile(dtype)

    def part(form: str, specs: tuple[Spec, ...]) -> Part:
        time = sum(seconds(spec, vectors, device, dtype) for spec in specs)
        return Part(form, specs, sum(spec.num_params + spec.out_dim for spec in specs), time)

    def option(attention: Part, pair: Part) -> Option:
        program = replace(dense, attention=attention.specs, feed_forward=pair.specs)
        sizes = f"attention {attention.sizes}; feed-forward {pair.sizes}"
        time = dense.layers * (attention.seconds + pair.seconds)
        return Option(f"{attention.form} + {pair.form}", sizes, program.num_params, time, program)

    projections = undominated([part(*each) for each in attentions(dense, known, tile)])
    pairs = undominated([part(*each) for each in feed_forwards(dense, known, tile)])
    norms = dense.num_params // dense.layers - sum(spec.num_params + spec.out_dim for spec in dense.maps)
    sizes = [(dense.layers * (norms + sum(p.num_params for p in both)), *both) for both in product(projections, pairs)]
    fitting = [each for each in sizes if each[0] <= limit]
    if not fitting:
        least = min(params for params, *_ in sizes)
        raise ValueError(
            f"No encoder of {', '.join(form.name for form in known)} has at most {limit:,} parameters in its layers; "
            f"the smallest that was tried has {least:,}, a budget of {least / dense.num_params:.3g}."
        )
    spent = min(SPEND * limit, max(params for params, *_ in fitting))
    found = [option(*both) for params, *both in fitting if params >= spent]
    shape = f"{dense.layers} layers, {dense.batch} x {dense.tokens} tokens"
    title = f"{shape} on {device.name} in {dtype}, estimated by {judge}"
    whole = option(part(DENSE, dense.attention), part(DENSE, dense.feed_forward))
    return ranked(title, whole, found, device, judge)


def undominated(parts: Sequence[Part]) -> list[Part]:
    """Without those that are slower than another of their form with no fewer parameters."""
    kept: list[Part] = []
    most: dict[str, int] = {}
    for part in sorted(parts, key=lambda part: (part.seconds, -part.num_params)):
        if part.num_params > most.get(part.form, -1):
            most[part.form] = part.num_params
            kept.append(part)
    return kept


def attentions(dense: Encoder, forms: Sequence[Form], tile: int) -> Iterator[Named]:
    """Maps for the projections of attention, the dense ones first."""
    spec = dense.attention[0]
    yield DENSE, dense.attention
    seen: set[Spec] = set()
    for form, fraction in product(forms, FRACTIONS):
        for tried in aligned_specs(form, spec.in_dim, spec.out_dim, int(fraction * spec.num_params), tile):
            if tried not in seen:
                seen.add(tried)
                yield form.name, (tried,) * 4


def feed_forwards(dense: Encoder, forms: Sequence[Form], tile: int) -> Iterator[Named]:
    """Pairs for the feed-forward part, the dense one first."""
    into = dense.feed_forward[0]
    hidden, width = into.in_dim, into.out_dim
    yield DENSE, dense.feed_forward
    for units in range(tile, width, tile):
        yield NARROW, (dense_spec(hidden, units), dense_spec(units, hidden))
    seen: set[tuple[Spec, Spec]] = set()
    for form, fraction in product(forms, FRACTIONS):
        limit = int(fraction * into.num_params)
        there, back = (aligned_specs(form, *dims, limit, tile) for dims in ((hidden, width), (width, hidden)))
        for pair in zip(there, back, strict=False):
            if pair not in seen:
                seen.add(pair)
                yield form.name, pair
