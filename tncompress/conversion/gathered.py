"""What is known of the sites before anything is fitted: their moments, and which of them share hidden units."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tncompress.conversion.calibrate import Calibration, Mask, calibrate
from tncompress.conversion.dense_maps import kernel_of
from tncompress.conversion.gradients import Objective
from tncompress.conversion.pairs import Pair, find_pairs
from tncompress.conversion.sites import Site
from tncompress.conversion.walking import locate
from tncompress.fitting.frequencies import TokenCounts
from tncompress.fitting.moments import Moments

Seen = Moments | TokenCounts


def pairs_of(model: keras.Model, sites: Sequence[Site], moments: Mapping[str, Seen]) -> list[Pair]:
    """Which of the sites share hidden units.

    Raises:
        ValueError: there are no inputs to try it on.
    """
    if not isinstance(moments, Calibration):
        raise ValueError(
            "Hidden units can be left out only where the model's inputs are known: give calibration= batches, or what "
            "tncompress.calibrate returned."
        )
    return find_pairs(model, sites, moments.sample)


def are_moments(calibration: Any) -> bool:
    """Whether moments were given in the place of data."""
    return isinstance(calibration, Mapping) and any(isinstance(given, Seen) for given in calibration.values())


def moments_of(
    model: keras.Model,
    sites: Sequence[Site],
    calibration: Any,
    objective: Objective | None,
    mask: Mask,
    progress: bool | None,
) -> Mapping[str, Seen]:
    """Moments of the sites' inputs: gathered now, gathered before, or none."""
    if calibration is None:
        return {}
    if are_moments(calibration):
        moments = calibration
        for site in sites:
            _check_moments(moments.get(site.path), site)
    else:
        paths = [site.path for site in sites]
        moments = calibrate(model, paths, calibration, objective=objective, mask=mask, progress=progress)
    few = [site for site in sites if not site.is_table and moments[site.path].count < site.in_dim]
    if few:
        warnings.warn(
            f"{len(few)} layers saw fewer vectors than they have features (e.g. {few[0].path!r}: "
            f"{moments[few[0].path].count} for {few[0].in_dim}); calibrate on more inputs.",
            stacklevel=3,
        )
    return moments


def _check_moments(seen: Seen | None, site: Site) -> None:
    if seen is None:
        raise ValueError(f"The calibration moments lack the layer {site.path!r}; gather them for all chosen layers.")
    if isinstance(seen, TokenCounts) != site.is_table:
        raise ValueError(f"The calibration moments of {site.path!r} are of another kind of layer; gather them again.")
    features = len(seen.counts if isinstance(seen, TokenCounts) else seen.mean)
    if features != site.in_dim or not seen.count:
        raise ValueError(
            f"The calibration moments of {site.path!r} are of {seen.count} vectors of {features} features, "
            f"but the layer takes {site.in_dim}; gather them on this model."
        )
    if seen.gradients is not None and len(seen.gradients.mean) != site.out_dim:
        raise ValueError(
            f"The calibration moments of {site.path!r} have gradients of {len(seen.gradients.mean)} features, but "
            f"the layer makes {site.out_dim}; gather them on this model."
        )
    moments = [m for m in (seen, seen.gradients) if isinstance(m, Moments)]
    if not all(np.isfinite(array).all() for m in moments for array in (m.mean, m.scatter)):
        raise ValueError(f"The calibration moments of {site.path!r} hold NaN or infinity; gather them again.")


def check_weights(model: keras.Model, sites: Sequence[Site]) -> None:
    """Refuse kernels and tables with numbers that are not finite."""
    layers = locate(model, [site.path for site in sites])
    for site in sites:
        layer = layers[site.path]
        weight = keras.ops.convert_to_numpy(layer.embeddings) if site.is_table else kernel_of(layer)
        if not np.isfinite(weight).all():
            what = "table" if site.is_table else "kernel"
            raise ValueError(f"The {what} of the layer {site.path!r} holds NaN or infinity; repair or exclude it.")
