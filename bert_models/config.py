"""`BertConfig`: the sizes and rates that make one BERT encoder different from another.

A plain value without Keras, so that it can be read, compared, written as JSON and checked before
anything is built.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

ACTIVATIONS = ("gelu", "gelu_tanh", "relu")


@dataclass(frozen=True, slots=True, kw_only=True)
class BertConfig:
    """Architecture of a BERT encoder; the defaults are BERT-base, uncased.

    Args:
        vocab_size: rows of the word embedding, V.
        hidden_size: width of a token's vector, H.
        num_layers: number of transformer blocks, L.
        num_heads: attention heads per block, N; divides H.
        intermediate_size: hidden width of the feed-forward part, F.
        max_positions: longest sequence in tokens, special tokens included.
        type_vocab_size: number of segments told apart.
        activation: "gelu" (exact, by erf), "gelu_tanh" (its tanh approximation, as in the first
            BERT) or "relu".
        hidden_dropout: dropout rate after embeddings, attention and feed-forward.
        attention_dropout: dropout rate of the attention probabilities.
        layer_norm_epsilon: added to the variance in every LayerNorm.
        init_stddev: standard deviation of the truncated normal that new weights are drawn from.

    Raises:
        TypeError: a size is not a whole number, or a rate is not a number.
        ValueError: a value is out of range, or heads do not divide the hidden size.

    Source: Devlin et al. 2018, arXiv:1810.04805, section 3.

    >>> BertConfig(hidden_size=512, num_heads=8).head_size
    64
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 512
    type_vocab_size: int = 2
    activation: str = "gelu"
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    layer_norm_epsilon: float = 1e-12
    init_stddev: float = 0.02

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type is int:
                _check_size(field.name, getattr(self, field.name))
            if field.type is float:
                _check_rate(field.name, getattr(self, field.name))
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}.")
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be shared out to {self.num_heads} heads; "
                "choose a num_heads that divides it."
            )

    @property
    def head_size(self) -> int:
        """Features per attention head, K = H / N."""
        return self.hidden_size // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        """The fields as a plain dict that JSON can hold.

        >>> BertConfig.from_dict(BertConfig().to_dict()) == BertConfig()
        True
        """
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make a config from what `to_dict` gave.

        Raises:
            ValueError: a name is not a field of the config.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"BertConfig has no {', '.join(map(repr, unknown))}; its fields are {', '.join(known)}.")
        return cls(**values)


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
