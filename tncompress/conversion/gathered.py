"""What is known of the sites before anything is fitted: their moments, and which of them share hidden units."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np

from tncompress.conversion.calibrate import Calibration, calibrate, groups_of
from tncompress.conversion.dense_maps import kernel_of
from tncompress.conversion.gradients import Objective
from tncompress.conversion.masks import Mask
from tncompress.conversion.pairs import Pair, find_pairs
from tncompress.conversion.sites import Site
from tncompress.conversion.walking import locate
from tncompress.fitting.frequencies import TokenCounts
from tncompress.fitting.moments import Moments
from tncompress.fitting.packed import Packed

Seen = Moments | TokenCounts
MOMENTS_BYTES = 0.9e9  # of all layers together; of larger models they are gathered in groups


class Streamed(Mapping[str, Seen]):
    """Moments that are gathered when they are asked for, a group of layers at a time; those of one group are held.

    What takes layers in order, as planning and fitting do, goes over the data once for every group: those of earlier
    groups wait in temporary files, or are gathered again if there is no room for these.

    Args:
        model: a built Keras model.
        groups: of paths of its layers.
        data: batches that can be gone over again.
        options: of `calibrate`.
    """

    def __init__(self, model: keras.Model, groups: Sequence[Sequence[str]], data: Any, options: Mapping[str, Any]):
        self._model, self._data, self._options = model, data, options
        self._group_of = {path: group for group in groups for path in group}
        self._folder = TemporaryDirectory(prefix="tncompress-", ignore_cleanup_errors=True)
        self._away: dict[str, Path | TokenCounts] = {}
        self._held_out: dict[str, np.ndarray] = {}  # of the layer that was last read from a file
        self._held = calibrate(model, groups[0], data, **options)

    def __getitem__(self, path: str) -> Seen:
        if path in self._held:
            return self._held[path]
        self._put_away()
        if path not in self._away:
            self._held.clear()
            self._held.held_out.clear()
            self._held = calibrate(self._model, self._group_of[path], self._data, **self._options)
            return self._held[path]
        waiting = self._away[path]
        seen, held_out = _read(waiting) if isinstance(waiting, Path) else (waiting, None)
        self._held_out = {} if held_out is None else {path: held_out}
        return seen

    def __iter__(self) -> Iterator[str]:
        return iter(self._group_of)

    def __len__(self) -> int:
        return len(self._group_of)

    @property
    def held_out(self) -> Mapping[str, np.ndarray]:
        """See `Calibration`; of the layers of one group, and of the one that was last asked for."""
        return {**self._held.held_out, **self._held_out}

    def __getattr__(self, name: str) -> Any:
        if name not in ("sample", "energy", "probe"):  # what every calibration has besides
            raise AttributeError(name)
        return getattr(self._held, name)

    def _put_away(self) -> None:
        for path, seen in list(self._held.items()):
            file = Path(self._folder.name) / f"{len(self._away)}.npz"
            if isinstance(seen, Moments) and path not in self._away:
                try:
                    _write(file, seen, self._held.held_out.get(path))
                except OSError:  # no room: gathered again when it is asked for
                    file.unlink(missing_ok=True)
                    return
            self._away.setdefault(path, file if isinstance(seen, Moments) else seen)
            del self._held[path]
            self._held.held_out.pop(path, None)


def _write(file: Path, seen: Moments, held_out: np.ndarray | None) -> None:
    arrays = {} if held_out is None else {"held_out": held_out}
    for name, moments in (("inputs", seen), ("gradients", seen.gradients)):
        if moments is not None:
            assert isinstance(moments.scatter, Packed)  # as they are gathered
            arrays |= {f"{name}_count": moments.count, f"{name}_mean": moments.mean}
            arrays[f"{name}_scatter"] = moments.scatter.numbers
    np.savez(file, **arrays)


def _read(file: Path) -> tuple[Moments, np.ndarray | None]:
    with np.load(file) as arrays:
        found = {}
        for name in ("inputs", "gradients"):
            if f"{name}_count" in arrays:
                count, mean, numbers = (arrays[f"{name}_{field}"] for field in ("count", "mean", "scatter"))
                found[name] = Moments(int(count), mean, Packed(len(mean), numbers))
        held_out = arrays.get("held_out")
    return replace(found["inputs"], gradients=found.get("gradients")), held_out


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
            stacklevel=4,
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
