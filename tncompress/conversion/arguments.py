"""What `replace_dense` is called with, checked before any work: wanted, got, what to do."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tncompress.conversion.gathered import are_moments
from tncompress.conversion.gradients import Objective
from tncompress.conversion.sites import Site
from tncompress.fitting.budget import Budget, Target
from tncompress.fitting.choice import NARROW, Bands, Choice
from tncompress.forms import Form, get_form
from tncompress.hardware.device import Device
from tncompress.hardware.device import device as find_device
from tncompress.hardware.machine import this_machine

# Leaving out hidden units is no factorisation of one kernel, but stands among the forms as an argument.
NARROW_FORM = Form(
    NARROW, lambda *_: iter(()), needs="layers that share hidden units", source="ZipLM, arXiv:2302.04089"
)


def checked_budget(keep: float | None, budget: Budget | None) -> Budget:
    """The one limit that was given; half of the parameters if none was."""
    if budget is None:
        return Budget(keep=0.5 if keep is None else keep)
    if not isinstance(budget, Budget):
        raise TypeError(f"budget is a tncompress.Budget, such as Budget(params=5e6), got {budget!r}.")
    if keep is not None:
        raise ValueError(f"keep={keep} and {budget} are two limits; give one of them.")
    return budget


def checked_target(device: str | Device | None, tokens: int | Sequence[int], recipe: Any) -> Target | None:
    """What the model is to run on; None if it was not said."""
    counts = (tokens,) if isinstance(tokens, int) else tuple(tokens) if isinstance(tokens, Sequence) else ()
    if not counts or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in counts):
        raise ValueError(
            f"tokens is the number of vectors at once, at least 1, or several such numbers; got {tokens!r}."
        )
    if device is None:
        return None
    if recipe is not None:
        raise ValueError("A recipe says what every layer becomes; leave device= away.")
    return Target(this_machine() if device == "this" else find_device(device), counts)


def check_objective_data(objective: Objective | None, calibration: Any) -> None:
    """Refuse an objective without data to look at it on."""
    if objective is None:
        return
    if calibration is None:
        raise ValueError("An objective needs inputs on which to look at it; give calibration= batches of real inputs.")
    if are_moments(calibration):
        raise ValueError("The moments are gathered already; give the objective to tncompress.calibrate instead.")


def checked_forms(form: str | Form | Sequence[str | Form]) -> list[Form]:
    """One or several forms, given by name or themselves."""
    given = [form] if isinstance(form, (str, Form)) else form
    if not isinstance(given, Collection) or not all(isinstance(one, (str, Form)) for one in given):
        raise TypeError(f"form is the name of a factorisation or a Form, or several of them, got {form!r}.")
    if not given:
        raise ValueError("form names no factorisation; give one such as 'low_rank', or several.")
    forms = [one if isinstance(one, Form) else NARROW_FORM if one == NARROW else get_form(one) for one in given]
    if len(forms) > 1 and any(one.fixed for one in forms):
        names = ", ".join(one.name for one in forms)
        raise ValueError(f"A form of fixed structure leaves nothing to choose: give it alone, not among {names}.")
    return forms


def wants_pairs(
    forms: Sequence[Form], choices: Mapping[str, Choice | Bands | None] | None, sites: Sequence[Site]
) -> bool:
    """Whether hidden units may be (or, by a recipe, are) left out."""
    if choices is None:
        return NARROW_FORM in forms
    dims = {site.path: (site.in_dim, site.out_dim) for site in sites}
    return any(choice is not None and choice.dims != dims[path] for path, choice in choices.items())


def check_elastic(elastic: bool, forms: Sequence[Form]) -> None:
    """Refuse what has no components that could be left out."""
    if elastic and not any(form.name == "low_rank" for form in forms):
        raise ValueError(f"elastic=True is for low rank, whose components have an order; got {listed(forms)}.")


def is_global(
    allocation: str | None,
    forms: Sequence[Form],
    calibration: Any,
    objective: Objective | None,
    budget: Budget,
    embeddings: bool,
    target: Target | None,
) -> bool:
    """Whether one budget goes over all layers.

    Raises:
        ValueError: the argument is another word, or something else that was asked for does not go with it.
    """
    if allocation not in (None, "uniform", "global"):
        raise ValueError(f"allocation is 'uniform' or 'global', got {allocation!r}.")
    gathered = calibration.values() if are_moments(calibration) else ()
    has_objective = objective is not None or any(seen.gradients is not None for seen in gathered)
    asked = {
        "form='narrow'": NARROW_FORM in forms,
        "embeddings=True": embeddings,
        f"{budget}": budget.kind not in ("keep", "params"),
        "device=": target is not None,
    }
    needs = [what for what, is_asked in asked.items() if is_asked]
    if calibration is None and (NARROW_FORM in forms or embeddings):
        what = "hidden units by what they do" if NARROW_FORM in forms else "ranks by how often tokens are seen"
        raise ValueError(f"{needs[0]} chooses {what}: give calibration= batches of real inputs.")
    if budget.kind == "max_loss" and not has_objective:
        raise ValueError(f"{budget} limits what happens to an objective: give objective=, and calibration.")
    if needs and allocation == "uniform":
        raise ValueError(f"{needs[0]} shares one budget out by itself; leave allocation='uniform' away.")
    if forms[0].fixed:
        if needs:
            raise ValueError(f"A form of fixed structure leaves nothing to choose; leave {needs[0]} away.")
        return False
    return bool(needs) or allocation == "global" or (allocation is None and has_objective)


def listed(forms: Sequence[Form]) -> str:
    """Their names, for messages."""
    return " or ".join(form.name for form in forms)
