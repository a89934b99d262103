"""One file, several sizes: low-rank networks whose components are in order of importance are cut shorter at loading."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tncompress.conversion.saving import Compression, Outcome, compression_of, put_choices, remember
from tncompress.conversion.structures import as_floats
from tncompress.conversion.surgery import classes_of, copy_weights, rebuilt
from tncompress.conversion.walking import locate
from tncompress.fitting.budget import Budget
from tncompress.fitting.choice import Choice
from tncompress.fitting.knapsack import Offer, knapsack
from tncompress.forms import low_rank


def shrunk(model: keras.Model, keep: float) -> keras.Model:
    """A smaller model from an elastic one: every network loses the components that matter least over all of them.

    Args:
        model: made by `replace_dense(..., elastic=True)`, or loaded from its file.
        keep: fraction of the replaced layers' original parameters that stays; never exceeded.

    Raises:
        ValueError: if the model is not elastic, or cannot be so large or so small.

    >>> from tncompress import replace_dense, report
    >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(64)])
    >>> small = replace_dense(model, keep=0.75, elastic=True)
    >>> round(report(small).keep, 2), round(report(shrunk(small, keep=0.5)).keep, 2)
    (0.75, 0.5)
    """
    compression = compression_of(model)
    outcomes = compression.outcomes if compression else ()
    elastic = {outcome.path: outcome for outcome in outcomes if outcome.losses}
    if compression is None or not elastic:
        raise ValueError(
            f"The model {model.name!r} has one size only; make it with replace_dense(..., elastic=True) to load it at "
            "several."
        )
    replaced = [outcome for outcome in outcomes if outcome.choice]
    total = sum(outcome.in_dim * outcome.out_dim for outcome in replaced)
    fixed = sum(outcome.choice.num_params for outcome in replaced if outcome.path not in elastic and outcome.choice)
    menus = [_sizes(outcome) for outcome in elastic.values()]
    largest, smallest = (fixed + sum(menu[end].cost for menu in menus) for end in (-1, 0))
    limit = Budget(keep=keep).limit * total
    if not smallest <= limit <= largest + 1:
        raise ValueError(
            f"The model {model.name!r} can keep from {smallest / total:.2%} to {largest / total:.2%} of what was "
            f"replaced, got keep={keep}."
        )
    ranks = {path: offer.what for path, offer in zip(elastic, knapsack(menus, limit - fixed), strict=True)}
    shorter = tuple(_cut(o, ranks[o.path]) if o.path in ranks else o for o in outcomes)
    small = rebuilt(compression.dense, classes_of(model), trusted=True)
    found = Compression(compression.dense, shorter, compression.params)
    put_choices(small, found.recipe)
    networks, wholes = locate(small, list(ranks)), locate(model, list(ranks))
    copy_weights(model, small, skip=wholes.values())
    for path, rank in ranks.items():
        _assign(networks[path], wholes[path], rank, np.array(elastic[path].codes, np.float64))
    return remember(small, found)


def components(left: np.ndarray, right: np.ndarray, metrics: tuple, unit: float, mean: np.ndarray | None) -> dict:
    """What each component `left[:, i] right[i]` of a low-rank kernel is worth, as fields of an `Outcome`.

    Args:
        left, right: `[in_dim, rank]` and `[rank, out_dim]`, orthogonal to each other under the metrics.
        metrics: C and S, of inputs and outputs, or None.
        unit: what a squared error is multiplied by to be a loss.
        mean: of the inputs `[in_dim]`, where a bias takes up the error at the mean.

    Returns:
        losses: what leaving out each component loses; codes: the mean of x left, what the bias takes over of each.
    """
    left, right = left.astype(np.float64), right.astype(np.float64)
    squares = [
        np.einsum("ri,ri->r", a if metric is None else a @ metric, a)
        for a, metric in zip((left.T, right), metrics, strict=True)
    ]
    codes = np.zeros(len(right)) if mean is None else mean @ left
    return {"losses": tuple((squares[0] * squares[1] * unit).tolist()), "codes": tuple(codes.tolist())}


def _sizes(outcome: Outcome) -> list[Offer]:
    """All ranks up to the one that there is."""
    assert isinstance(outcome.choice, Choice)
    rows, columns = outcome.choice.dims
    tails = np.append(np.cumsum(outcome.losses[::-1])[::-1][1:], 0.0)  # after the first, the second ... component
    return [Offer((k + 1) * (rows + columns), float(tail), k + 1) for k, tail in enumerate(tails)]


def _cut(outcome: Outcome, rank: int) -> Outcome:
    choice = outcome.choice
    assert isinstance(choice, Choice)
    lost = sum(outcome.losses[rank:])
    return replace(
        outcome,
        choice=Choice(choice.form, low_rank.spec(*choice.dims, rank)),
        predicted_loss=None if outcome.predicted_loss is None else outcome.predicted_loss + lost,
        # Those were measured at full rank.
        weight_error=None,
        output_error=None,
        loss_error=None,
        losses=outcome.losses[:rank],
        codes=outcome.codes[:rank],
    )


def _assign(network: Any, whole: Any, rank: int, codes: np.ndarray) -> None:
    left, right = (as_floats(core) for core in whole.cores)
    network.cores[0].assign(left[:, :rank])
    network.cores[1].assign(right[:rank])
    if network.bias is not None:
        shift = (codes[rank:] @ right[rank:].astype(np.float64)).astype("float32")
        bias = as_floats(whole.bias)
        network.bias.assign(bias + shift.reshape(bias.shape))
