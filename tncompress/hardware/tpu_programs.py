"""What the TPU compiler can be asked about, as values: a few maps, or an encoder."""

from dataclasses import dataclass, replace

from tncompress.network.cost import dense_spec
from tncompress.network.spec import Spec


@dataclass(frozen=True)
class Maps:
    """Linear maps one after the other, each with a bias, with GELU between them; bfloat16.

    Args:
        specs: the maps.
        batch: sequences.
        tokens: of each sequence.
    """

    specs: tuple[Spec, ...]
    batch: int
    tokens: int

    def to_config(self) -> dict:
        """A JSON-able value, from which `tpu_compiler` makes the program."""
        specs = [spec.to_config() for spec in self.specs]
        return {"kind": "maps", "specs": specs, "batch": self.batch, "tokens": self.tokens}


@dataclass(frozen=True)
class Encoder:
    """A BERT encoder: attention, feed-forward and their LayerNorms, without embeddings; bfloat16.

    Args:
        attention: query, key, value and output projection.
        feed_forward: the map to the hidden units and the one back.
        heads: of the attention.
        layers: all alike.
        batch: sequences.
        tokens: of each sequence.

    >>> Encoder.dense(768, 3072, heads=12, layers=12, batch=8, tokens=128).num_params
    85054464
    """

    attention: tuple[Spec, Spec, Spec, Spec]
    feed_forward: tuple[Spec, Spec]
    heads: int
    layers: int
    batch: int
    tokens: int

    @classmethod
    def dense(cls, hidden: int, width: int, *, heads: int, layers: int, batch: int, tokens: int) -> "Encoder":
        """An encoder as it is before compression."""
        attention, pair = dense_spec(hidden, hidden), (dense_spec(hidden, width), dense_spec(width, hidden))
        return cls((attention, attention, attention, attention), pair, heads, layers, batch, tokens)

    def with_maps(self, attention: Spec | None = None, feed_forward: tuple[Spec, Spec] | None = None) -> "Encoder":
        """With other maps: one for all four projections, and a pair."""
        attention_maps = self.attention if attention is None else (attention,) * 4
        return replace(self, attention=attention_maps, feed_forward=feed_forward or self.feed_forward)

    @property
    def num_params(self) -> int:
        """Of all layers: maps, their biases, and two LayerNorms a layer."""
        norms = 4 * self.attention[0].in_dim
        return self.layers * (norms + sum(spec.num_params + spec.out_dim for spec in self.maps))

    @property
    def maps(self) -> tuple[Spec, ...]:
        """All of a layer."""
        return (*self.attention, *self.feed_forward)

    def to_config(self) -> dict:
        """A JSON-able value, from which `tpu_compiler` makes the program."""
        return {
            "kind": "encoder",
            "attention": [spec.to_config() for spec in self.attention],
            "feed_forward": [spec.to_config() for spec in self.feed_forward],
            **{name: getattr(self, name) for name in ("heads", "layers", "batch", "tokens")},
        }
