"""Which axis of each feed-forward core is split between devices, from the config alone. Needs no Keras."""

from collections.abc import Mapping

from bert_models.config import BertConfig
from tncompress.network.spec import Spec

Axes = tuple[str | None, ...]


def core_layouts(config: BertConfig, parts: int, axis: str = "model") -> Mapping[str, Axes]:
    """The axes of the feed-forward kernels and cores, for `keras.distribution.LayoutMap`; what is not named is whole.

    The hidden side F is split: the maps from H to F in their outputs, the map from F to H in its inputs. So the devices
    need each other's results once in a feed-forward part, after the last map. Of several modes the first is taken that
    can be split; if that is the first of all, each device has features that follow each other and exchanges no more.

    Args:
        config: of the encoder.
        parts: devices between which cores are split.
        axis: name of the axis of the mesh.

    Returns:
        Regular expression over paths of variables -> for each of their axes, the name of the mesh's axis or None.

    Raises:
        ValueError: the hidden side cannot be split into so many parts.

    Source: Shoeybi et al. 2019, arXiv:1909.08053, section 3, for dense kernels; here for cores.

    >>> from bert_models.kinds import ExpandCondense
    >>> for path, axes in core_layouts(BertConfig(feed_forward=ExpandCondense()), 2).items():
    ...     print(path, axes)
    .*feed_forward/(intermediate|gate)/core_0 (None, 'model', None)
    .*feed_forward/output_dense/core_1 ('model', None, None)
    """
    widen, narrow = config.feed_forward.specs(config.hidden_size, config.intermediate_size)
    found = {}
    for place, spec, dense, side in (
        (".*feed_forward/(intermediate|gate)", widen, (None, axis), "outputs"),
        (".*feed_forward/output_dense", narrow, (axis, None), "inputs"),
    ):
        if spec is None:
            _check(config.intermediate_size, parts)
            found[f"{place}/kernel"] = dense
            continue
        mode = _mode(spec, getattr(spec, side), parts)
        for number, core in enumerate(spec.cores):
            if mode in core:
                found[f"{place}/core_{number}"] = tuple(axis if m == mode else None for m in core)
    return found


def _mode(spec: Spec, modes: tuple[str, ...], parts: int) -> str:
    for mode in modes:
        if spec.size[mode] % parts == 0:
            return mode
    sizes = ", ".join(f"{mode}={spec.size[mode]}" for mode in modes)
    raise ValueError(f"cores cannot be split into {parts} parts: it divides none of {sizes} in {str(spec)!r}.")


def _check(size: int, parts: int) -> None:
    if size % parts:
        raise ValueError(f"kernels cannot be split into {parts} parts: it does not divide intermediate_size={size}.")
