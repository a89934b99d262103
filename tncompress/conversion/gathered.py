"""What is known of the sites before anything is fitted: their moments, and which of them share hidden units."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tncompress.conversion.calibrate import Calibration, Mask, calibrate, groups_of
from tncompress.conversion.dense_maps import kernel_of
from tncompress.conversion.gradients import Objective
from tncompress.conversion.pairs import Pair, find_pairs
from tncompress.conversion.sites import Site
from tncompress.conversion.walking import locate
from tncompress.fitting.frequencies import TokenCounts
from tncompress.fitting.moments import Moments

Seen = Moments | TokenCounts
MOMENTS_BYTES = 2e9  # of all layers together; of larger models they are gathered in groups


class Streamed(Mapping[str, Seen]):
    """Moments that are gathered when they are asked for, a group of layers at a time; those of one group are kept.

    What takes layers in order, as planning and fitting do, goes over the data once for every group.

    Args:
        model: a built Keras model.
        groups: of paths of its layers.
        data: batches that can be gone over again.
        options: of `calibrate`.
    """

    def __init__(self, model: keras.Model, groups: Sequence[Sequence[str]], data: Any, options: Mapping[str, Any]):
        self._model, self._data, self._options = model, data, options
        self._group_of = {path: group for group in groups for path in group}
        self._held = calibrate(model, groups[0], data, **options)

    def __getitem__(self, path: str) -> Seen:
        if path not in self._held:
            group = self._group_of[path]
            self._held.clear()
            self._held = calibrate(self._model, group, self._data, **self._options)
        return self._held[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._group_of)

    def __len__(self) -> int:
        return len(self._group_of)

    def __getattr__(self, name: str) -> Any:
        if name not in ("sample", "energy", "held_out", "probe"):  # what every calibration has besides
            raise AttributeError(name)
        return getattr(self._held, name)


def pairs_of(model: keras.Model, sites: Sequence[Site], moments: Mapping[str, Seen]) -> list[Pair]:
    """Which of the sites share hidden units.

    Raises:
        ValueError: there are no inputs to try it on.
    """
    if not isinstance(moments, (Calibration, Streamed)):
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
    *,
    in_order: bool,
) -> Mapping[str, Seen]:
    """Moments of the sites' inputs: gathered now, gathered before, or none.

    Args:
        model, sites: whose inputs.
        calibration, objective, mask, progress: as of `replace_dense`.
        in_order: they will be asked for in the order of the sites, so that those of large models may be streamed.
    """
    if calibration is None:
        if tables := [site.path for site in sites if site.is_table]:
            raise ValueError(f"The table {tables[0]!r} needs to know which tokens are frequent: give calibration=.")
        return {}
    if are_moments(calibration):
        moments = calibration
        for site in sites:
            _check_moments(moments.get(site.path), site)
    else:
        options = {"objective": objective, "mask": mask, "progress": progress}
        paths = [site.path for site in sites]
        groups = groups_of(model, paths, MOMENTS_BYTES, with_gradients=objective is not None)
        if in_order and len(groups) > 1 and not isinstance(calibration, Iterator):
            return Streamed(model, groups, calibration, options)
        moments = calibrate(model, paths, calibration, **options)
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
