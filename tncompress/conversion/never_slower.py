"""Networks timed against the dense layers that they would replace, here and now; those that lose are left dense."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import keras

from tncompress.conversion.outcomes import Times
from tncompress.conversion.pairs import Pair
from tncompress.conversion.planning import Plan
from tncompress.conversion.sites import Site
from tncompress.conversion.surgery import network_for
from tncompress.conversion.timing import time_layers
from tncompress.conversion.walking import locate
from tncompress.fitting.budget import BudgetError
from tncompress.fitting.choice import Bands, Choice
from tncompress.progress import progress_bar

PlanFor = Callable[[Sequence[Site], Sequence[Pair]], Plan]


def settled(
    model: keras.Model,
    sites: Sequence[Site],
    pairs: Sequence[Pair],
    tokens: Sequence[int],
    plan_for: PlanFor,
    again: bool,
    progress: bool | None,
) -> tuple[Plan, dict[str, Times], list[Site]]:
    """A plan by which no layer loses time: made and measured, then without those that lose.

    Args:
        model: with the dense layers.
        sites: those with a reason stay dense.
        pairs: layers that share hidden units.
        tokens: numbers of vectors at once.
        plan_for: makes the plan for some of the sites and pairs.
        again: make and measure plans for the rest until none loses, as a budget asks for that the rest has to meet.
            Else it keeps the networks of the first: those that lose would take their share of a fraction with them,
            and leave what was not to be cut much to be cut instead.
        progress: show bars.

    Returns:
        the plan; what was measured, also of those that lost; the sites, those that lost with their reason.

    Raises:
        ValueError: if no layer is left.
    """
    asked = sum(not site.reason for site in sites)
    sites, measured = list(sites), {}
    while True:
        chosen = {site.path for site in sites if not site.reason}
        left = [pair for pair in pairs if pair.second in chosen]
        try:
            plan = plan_for([site for site in sites if site.path in chosen], left)
        except BudgetError as error:
            raise BudgetError(f"{error} ({_dense(chosen, asked)}.)" if len(chosen) < asked else str(error)) from None
        times = timed(model, plan.choices, tokens, progress)
        measured |= times
        together = [(*pair.first, pair.second) for pair in left]
        alone = [(path,) for path in times if not any(path in group for group in together)]
        lost = slower(times, [*together, *alone])
        sites = [replace(site, reason=lost.get(site.path, site.reason)) for site in sites]
        stay = chosen - lost.keys()
        networks = stay if again else {path for path in stay if plan.choices[path]}  # another plan may make any of them
        if lost and not networks:
            raise ValueError(
                f"No layer would be faster as a network here at {' and '.join(map(str, tokens))} tokens (the last: "
                f"{next(iter(lost.values()))}); keep less, or leave device='this' away if size is what counts."
            )
        if lost and again:
            continue
        if len(stay) < asked:
            others = "the budget is met all the same" if again else "the others are as planned with them"
            warnings.warn(f"{_dense(stay, asked)}; {others}. The report has the times.", stacklevel=4)
        return _without(lost, plan), measured, sites


def _dense(left: Collection[str], asked: int) -> str:
    return f"{asked - len(left)} of {asked} layers stay dense, because they are slower here as networks"


def _without(lost: Collection[str], plan: Plan) -> Plan:
    choices, units, losses = (
        {path: value for path, value in values.items() if path not in lost}
        for values in (plan.choices, plan.units, plan.losses)
    )
    return replace(plan, choices=choices, units=units, losses=losses)


def timed(
    model: keras.Model, choices: Mapping[str, Choice | Bands | None], tokens: Sequence[int], progress: bool | None
) -> dict[str, Times]:
    """Every layer that gets a network, and that network, measured here: seconds over all numbers of tokens together.

    Layers and networks of the same shapes are measured once. Tables of embeddings are not: a row is looked up anyway.

    Args:
        model: with the dense layers.
        choices: by path.
        tokens: numbers of vectors at once.
        progress: show a bar.
    """
    asked = {path: choice for path, choice in choices.items() if isinstance(choice, Choice)}
    layers = locate(model, list(asked))
    known: dict[tuple, Times] = {}
    found = {}
    for path, choice in progress_bar(list(asked.items()), "Timing", shown=progress):
        layer = layers[path]
        kind = (choice, _kind(layer))
        if kind not in known:
            both = {"dense": layer, "network": network_for(layer, choice)}
            counts = [time_layers(both, count) for count in tokens]
            known[kind] = Times(*(sum(count[name] for count in counts) for name in ("dense", "network")))
        found[path] = known[kind]
    return found


def slower(times: Mapping[str, Times], groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """The layers that lose time, by path, with the reason to leave them dense.

    Args:
        times: by path.
        groups: layers that are replaced together or not at all.

    >>> slower({"a": Times(1e-3, 2e-3), "b": Times(1e-3, 0.5e-3)}, [("a",), ("b",)])
    {'a': 'slower than dense here: 2 ms against 1 ms'}
    """
    found = {}
    for group in groups:
        members = [path for path in group if path in times]
        dense, network = (sum(getattr(times[path], name) for path in members) for name in ("dense", "network"))
        if network > dense:
            reason = f"slower than dense here: {1e3 * network:.3g} ms against {1e3 * dense:.3g} ms"
            together = f", with {len(members) - 1} that it shares hidden units with" if len(members) > 1 else ""
            found |= dict.fromkeys(group, reason + together)
    return found


def _kind(layer: keras.layers.Layer) -> tuple:
    """What the time of a dense layer depends on."""
    activation = getattr(layer.activation, "__name__", repr(layer.activation))
    return (
        type(layer),
        tuple(layer.kernel.shape),
        getattr(layer, "equation", None),
        activation,
        layer.bias is None,
        layer.compute_dtype,
    )
