"""The kinds of attention and of feed-forward maps, as values without Keras.

A new kind of feed-forward map is one dataclass here: how wide its hidden side is, and which two networks it is made of.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tncompress.forms import expand_condense, low_rank
from tncompress.network.spec import Spec

# The two maps of a feed-forward part; None stands for an ordinary dense kernel.
Maps = tuple[Spec | None, Spec | None]


@dataclass(frozen=True, slots=True)
class MultiHead:
    """Attention in which every head goes its own way.  Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2."""

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "multi_head"}


@dataclass(frozen=True, slots=True)
class TalkingHeads:
    """Attention whose heads are mixed before and after the softmax.  Shazeer et al. 2020, arXiv:2003.02436.

    The paper's h heads of the softmax are `BertConfig.num_heads`.

    Args:
        key_heads: heads of queries and keys, h_k; None: as many as heads of the softmax.
        value_heads: heads of the values, h_v; None: likewise.

    >>> TalkingHeads(key_heads=6).sizes(num_heads=12)
    (6, 12)
    """

    key_heads: int | None = None
    value_heads: int | None = None

    def __post_init__(self) -> None:
        for name in ("key_heads", "value_heads"):
            value = getattr(self, name)
            if value is not None:
                _check_whole(name, value)

    def sizes(self, num_heads: int) -> tuple[int, int]:
        """h_k and h_v."""
        return self.key_heads or num_heads, self.value_heads or num_heads

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "talking_heads", **asdict(self)}


@dataclass(frozen=True, slots=True)
class DenseMaps:
    """Ordinary kernels [H, F] and [F, H]."""

    def hidden_width(self, hidden_size: int) -> int:
        return 4 * hidden_size

    def specs(self, hidden_size: int, intermediate_size: int) -> Maps:
        return None, None

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "dense"}


@dataclass(frozen=True, slots=True)
class ExpandCondense:
    """The pair of TN-BERT: H = blocks of `block_size`, each widened by one shared core to `multiplier * block_size`.

    Args:
        block_size: features per block; divides the hidden size. 128 fills a tile of a TPU.
        multiplier: hidden width of the feed-forward part as a multiple of the hidden size.

    Source: card of google/tn_bert; TensorFlow Model Garden, tn_expand_condense.py.

    >>> [spec.num_params for spec in ExpandCondense().specs(768, 3072)]
    [655360, 655360]
    >>> ExpandCondense().specs(300, 1200)
    Traceback (most recent call last):
    ValueError: block_size 128 does not divide hidden_size 300; the nearest that does is 150.
    """

    block_size: int = 128
    multiplier: int = 4

    def __post_init__(self) -> None:
        _check_whole("block_size", self.block_size)
        _check_whole("multiplier", self.multiplier)

    def hidden_width(self, hidden_size: int) -> int:
        return self.multiplier * hidden_size

    def specs(self, hidden_size: int, intermediate_size: int) -> Maps:
        if hidden_size % self.block_size:
            nearest = nearest_divisor(hidden_size, self.block_size)
            useful = f"the nearest that does is {nearest}" if 1 < nearest < hidden_size else "no block size of use does"
            raise ValueError(f"block_size {self.block_size} does not divide hidden_size {hidden_size}; {useful}.")
        if intermediate_size != self.multiplier * hidden_size:
            raise ValueError(
                f"intermediate_size {intermediate_size} is not multiplier {self.multiplier} x hidden_size "
                f"{hidden_size}; leave it out, or choose another multiplier."
            )
        blocks, bond = hidden_size // self.block_size, self.block_size
        return (
            expand_condense.expand(hidden_size, intermediate_size, blocks, bond),
            expand_condense.condense(intermediate_size, hidden_size, blocks, bond),
        )

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "expand_condense", **asdict(self)}


@dataclass(frozen=True, slots=True)
class LowRank:
    """Two thin kernels for each map: [H, rank] [rank, F] and [F, rank] [rank, H].

    >>> [spec.num_params for spec in LowRank(rank=64).specs(768, 3072)]
    [245760, 245760]
    """

    rank: int

    def __post_init__(self) -> None:
        _check_whole("rank", self.rank)

    def hidden_width(self, hidden_size: int) -> int:
        return 4 * hidden_size

    def specs(self, hidden_size: int, intermediate_size: int) -> Maps:
        return (
            low_rank.spec(hidden_size, intermediate_size, self.rank),
            low_rank.spec(intermediate_size, hidden_size, self.rank),
        )

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "low_rank", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Networks:
    """Any two tensor networks, for whoever tries a factorisation of their own.

    Args:
        widen: spec of the map from H to F features.
        narrow: spec of the map from F to H features.

    >>> from tncompress.forms import kronecker
    >>> Networks(Spec.parse("a b, a c, b d -> c d", a=8, b=8, c=16, d=16), Spec.parse(
    ...     "a b, a c, b d -> c d", a=16, b=16, c=8, d=8)).hidden_width(64)
    256
    """

    widen: Spec
    narrow: Spec

    def hidden_width(self, hidden_size: int) -> int:
        return self.widen.out_dim

    def specs(self, hidden_size: int, intermediate_size: int) -> Maps:
        wanted = {"widen": (hidden_size, intermediate_size), "narrow": (intermediate_size, hidden_size)}
        for name, (in_dim, out_dim) in wanted.items():
            spec = getattr(self, name)
            if (spec.in_dim, spec.out_dim) != (in_dim, out_dim):
                raise ValueError(
                    f"{name} must map {in_dim} features to {out_dim}, got {spec.in_dim} to {spec.out_dim} "
                    f"({str(spec)!r})."
                )
        return self.widen, self.narrow

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "networks", "widen": self.widen.to_config(), "narrow": self.narrow.to_config()}


Attention = MultiHead | TalkingHeads
FeedForwardMaps = DenseMaps | ExpandCondense | LowRank | Networks

_ATTENTIONS = {"multi_head": MultiHead, "talking_heads": TalkingHeads}
_FEED_FORWARDS = {"dense": DenseMaps, "expand_condense": ExpandCondense, "low_rank": LowRank, "networks": Networks}


def attention_from_dict(values: Mapping[str, Any]) -> Attention:
    """What `to_dict` of an attention gave, as a value again.

    >>> attention_from_dict(TalkingHeads(value_heads=4).to_dict())
    TalkingHeads(key_heads=None, value_heads=4)
    """
    kind, rest = _kind_of(values, _ATTENTIONS, "attention")
    return kind(**rest)


def feed_forward_from_dict(values: Mapping[str, Any]) -> FeedForwardMaps:
    """What `to_dict` of feed-forward maps gave, as a value again.

    >>> feed_forward_from_dict(ExpandCondense(64).to_dict())
    ExpandCondense(block_size=64, multiplier=4)
    """
    kind, rest = _kind_of(values, _FEED_FORWARDS, "feed_forward")
    if kind is Networks:
        rest = {name: Spec.from_config(config) for name, config in rest.items()}
    return kind(**rest)


def _kind_of(values: Mapping[str, Any], kinds: Mapping[str, Any], name: str) -> tuple[Any, dict[str, Any]]:
    rest = dict(values)
    kind = rest.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"{name} must be of kind {', '.join(kinds)}, got {kind!r}.")
    return kinds[kind], rest


def _check_whole(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}.")


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of `number` that is nearest to `wanted`; of two equally near, the larger.

    >>> nearest_divisor(300, 128), nearest_divisor(312, 128)
    (150, 104)
    """
    divisors = (d for d in range(1, number + 1) if number % d == 0)
    return min(divisors, key=lambda d: (abs(d - wanted), -d))
