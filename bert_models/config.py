"""`BertConfig`: the sizes, rates and kinds that make one BERT encoder different from another.

Plain values without Keras, so that they can be read, compared, written as JSON and checked before anything is built.
What kind of attention and of feed-forward map a block has are values too: no name of a model decides anything.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from bert_models.kinds import (
    Attention,
    DenseMaps,
    FeedForwardMaps,
    MultiHead,
    attention_from_dict,
    feed_forward_from_dict,
)

ACTIVATIONS = ("gelu", "gelu_tanh", "relu")


@dataclass(frozen=True, slots=True, kw_only=True)
class BertConfig:
    """Architecture of a BERT encoder; the defaults are BERT-base, uncased, as on Hugging Face.

    Args:
        vocab_size: rows of the word embedding, V.
        hidden_size: width of a token's vector, H.
        num_layers: number of transformer blocks, L.
        num_heads: attention heads per block, N; divides H.
        intermediate_size: hidden width of the feed-forward part, F. None: 4 H, or what `feed_forward` says.
        max_positions: longest sequence in tokens, special tokens included.
        type_vocab_size: number of segments told apart.
        activation: "gelu" (exact, by erf), "gelu_tanh" (its tanh approximation, as in the first BERT and on the hub)
            or "relu".
        attention: `MultiHead()` or `TalkingHeads(...)`.
        feed_forward: what the feed-forward maps are made of: `DenseMaps()`, `ExpandCondense(...)`, `LowRank(...)` or
            `Networks(...)`.
        gated: multiply the activated hidden units by a second, linear map of the same input (GEGLU, with gelu).
        output_bias: add a bias after the feed-forward part. TN-BERT has none.
        hidden_dropout: dropout rate after embeddings, attention and feed-forward.
        attention_dropout: dropout rate of the attention probabilities.
        layer_norm_epsilon: added to the variance in every LayerNorm.
        init_stddev: standard deviation of the truncated normal that new weights are drawn from.

    Raises:
        TypeError: a size is not a whole number, a rate is not a number, or a kind is no such value.
        ValueError: a value is out of range, heads do not divide the hidden size, or a feed-forward kind does not fit
            the sizes.

    Source: Devlin et al. 2018, arXiv:1810.04805, section 3.

    >>> BertConfig(hidden_size=512, num_heads=8).head_size
    64
    >>> BertConfig(hidden_size=512, num_heads=8).intermediate_size
    2048
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int | None = None
    max_positions: int = 512
    type_vocab_size: int = 2
    activation: str = "gelu"
    attention: Attention = MultiHead()
    feed_forward: FeedForwardMaps = DenseMaps()
    gated: bool = False
    output_bias: bool = True
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_epsilon: float = 1e-12
    init_stddev: float = 0.02

    def __post_init__(self) -> None:
        for name, kinds in (("attention", Attention), ("feed_forward", FeedForwardMaps)):
            _check_kind(name, getattr(self, name), kinds)
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "max_positions", "type_vocab_size"):
            _check_size(name, getattr(self, name))
        if self.intermediate_size is None:
            object.__setattr__(self, "intermediate_size", self.feed_forward.hidden_width(self.hidden_size))
        _check_size("intermediate_size", self.intermediate_size)
        for field in fields(self):
            if field.type is float:
                _check_rate(field.name, getattr(self, field.name))
            if field.type is bool and not isinstance(getattr(self, field.name), bool):
                raise TypeError(f"{field.name} must be True or False, got {getattr(self, field.name)!r}.")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}.")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be shared out to {self.num_heads} heads; "
                "choose a num_heads that divides it."
            )
        self.feed_forward.specs(self.hidden_size, self.intermediate_size)  # refuses sizes that do not fit

    @property
    def head_size(self) -> int:
        """Features per attention head, K = H / N."""
        return self.hidden_size // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        """The fields as a plain dict that JSON can hold.

        >>> BertConfig.from_dict(BertConfig().to_dict()) == BertConfig()
        True
        """
        kinds = {"attention": self.attention.to_dict(), "feed_forward": self.feed_forward.to_dict()}
        return {**asdict(self), **kinds}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a config from what `to_dict` gave.

        Raises:
            ValueError: a name is not a field of the config.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"BertConfig has no {', '.join(map(repr, unknown))}; its fields are {', '.join(known)}.")
        values = dict(values)
        if isinstance(values.get("attention"), Mapping):
            values["attention"] = attention_from_dict(values["attention"])
        if isinstance(values.get("feed_forward"), Mapping):
            values["feed_forward"] = feed_forward_from_dict(values["feed_forward"])
        return cls(**values)


def _check_kind(name: str, value: Any, kinds: Any) -> None:
    if not isinstance(value, kinds):
        names = ", ".join(f"{kind.__name__}(...)" for kind in kinds.__args__)
        raise TypeError(f"{name} must be one of {names}, got {value!r}.")


def _check_size(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}.")


def _check_rate(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, got {value}.")
