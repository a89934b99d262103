"""Layers of other packages that are a network, each with the `Spec` of the same map; for `peer_latency.py`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tncompress.forms import low_rank, tt_matrix
from tncompress.network.spec import Spec


@dataclass(frozen=True)
class Peer:
    """A peer's layer, and what it is.

    Args:
        name: package and network.
        spec: of the same map, bias left out.
        make: a new layer `[rows, in_dim] -> [rows, out_dim]`, and its weights as the cores of `spec`.
    """

    name: str
    spec: Spec
    make: Callable[[], tuple[Callable[[Any], Any], list[np.ndarray]]]


def tn_keras() -> Iterator[Peer]:
    """The Keras layers that come with `tensornetwork`; they carry a network out vector by vector (`vectorized_map`)."""
    from tensornetwork.tn_keras.layers import DenseDecomp, DenseMPO

    for rank in (32, 128):
        yield Peer(
            f"tn_keras DenseDecomp, 768 -> 3072, rank {rank}",
            low_rank.spec(768, 3072, rank),
            lambda rank=rank: _built(DenseDecomp(3072, rank, use_bias=False), 768, lambda core: core),
        )
    for count, side in ((3, 16), (4, 8)):
        for rank in (8, 32):
            spec = tt_matrix.spec((side,) * count, (side,) * count, rank)
            yield Peer(
                f"tn_keras DenseMPO, 4096 -> 4096, {count} cores, rank {rank}",
                spec,
                lambda count=count, rank=rank: _built(
                    DenseMPO(4096, num_nodes=count, bond_dim=rank, use_bias=False), 4096, _mpo_core
                ),
            )


def _built(layer: Any, in_dim: int, core: Callable[[np.ndarray], np.ndarray]) -> tuple[Any, list[np.ndarray]]:
    layer.build((None, in_dim))
    cores = [core(np.array(weight)) for weight in layer.trainable_variables]
    if len(cores) > 2:  # the last one has its bond before the output, as the first one; ours has it in front
        cores[-1] = np.moveaxis(np.array(layer.trainable_variables[-1]), 1, 0)
    return layer, cores


def _mpo_core(core: np.ndarray) -> np.ndarray:
    """`[in, bond, out]` of the first to `[in, out, bond]`, `[in, left, right, out]` to `[left, in, out, right]`."""
    return core.transpose(0, 2, 1) if core.ndim == 3 else core.transpose(1, 0, 3, 2)


def tensorly_torch() -> Iterator[Peer]:
    """tensorly-torch's `FactorizedLinear` in the implementation that does not multiply its factors out."""
    from tltorch import FactorizedLinear

    outs, ins = (16, 16, 12), (8, 8, 12)
    for rank in (8, 32):

        def make(rank=rank):
            import torch

            torch.manual_seed(0)
            layer = FactorizedLinear(
                ins, outs, bias=False, factorization="blocktt", rank=[1, rank, rank, 1], implementation="factorized"
            )
            # Theirs is [left, out, in, right], with outer bonds of size 1.
            cores = (weight.detach().numpy().transpose(0, 2, 1, 3) for weight in layer.weight.parameters())
            first, middle, last = cores
            return layer, [first[0], middle, last[..., 0]]

        yield Peer(f"tensorly-torch BlockTT, 768 -> 3072, rank {rank}", tt_matrix.spec(ins, outs, rank), make)
