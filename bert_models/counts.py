"""How many parameters an encoder has, and how many FLOPs a token costs it: arithmetic on a `BertConfig`, without Keras.

Letters: V words, P positions, T segments, H hidden size, L layers, F hidden width of the feed-forward part, N heads of
K = H / N features; h, h_k and h_v heads of talking-heads attention; S tokens in a row.
"""

import math
from dataclasses import dataclass

from bert_models.config import BertConfig
from bert_models.kinds import TalkingHeads
from tncompress.network.cost import dense_spec
from tncompress.network.plan import BATCH, plan
from tncompress.network.spec import Spec


@dataclass(frozen=True, slots=True)
class ParamCounts:
    """Parameters of an encoder, part by part.

    Attributes:
        embeddings: the three tables, (V + P + T) H.
        attention: of all layers, L (4 H^2 + 4 H). Talking heads: L (2 h_k A + h_v A + h_k h + h h_v + h_v K H + H) with
            A = (H + 1) K.
        feed_forward: of all layers. Dense: L (2 H F + F + H); a gate adds L (H F + F), a missing output bias takes off
            L H. A network has the parameters of its cores in the place of H F.
        norms: scales and offsets of all LayerNorms but that of the masked-LM head, (2 L + 1) 2 H.
        pooler: H^2 + H.
        mlm_head: what the masked-LM head has of its own, H^2 + H + 2 H + V; its table is that of the words.
    """

    embeddings: int
    attention: int
    feed_forward: int
    norms: int
    pooler: int
    mlm_head: int

    @property
    def encoder(self) -> int:
        """The encoder with its pooler."""
        return self.embeddings + self.attention + self.feed_forward + self.norms + self.pooler

    @property
    def with_mlm_head(self) -> int:
        """The encoder with its pooler and a masked-LM head."""
        return self.encoder + self.mlm_head


@dataclass(frozen=True, slots=True)
class FlopCounts:
    """FLOPs of a forward pass for one token, in one layer; matmuls only, a multiply-add counts as 2.

    A product over one term has nothing to add and counts as 1.

    Attributes:
        projections: queries, keys, values and the output of attention; multi-head: 8 H^2.
        attention: products of queries with keys and of weights with values; multi-head: 4 S H. Talking heads:
            2 S K (h_k + h_v) + 2 S h (h_k + h_v) with the two mixings.
        feed_forward: 4 H F; gated 6 H F; networks: by the order in which `TNDense` contracts them.
        once: FLOPs of a whole batch, however many tokens it has: cores that are multiplied with each other before
            they meet a token. 0 for every preset.
        num_layers: L.
    """

    projections: int
    attention: int
    feed_forward: int
    once: int
    num_layers: int

    @property
    def layer(self) -> int:
        """FLOPs per token in one layer."""
        return self.projections + self.attention + self.feed_forward

    @property
    def layers(self) -> int:
        """FLOPs per token in all layers; embeddings are looked up, the pooler sees one token a row."""
        return self.num_layers * self.layer


def param_counts(config: BertConfig) -> ParamCounts:
    """The parameters of `build_encoder(config)` and of a `MaskedLM` on it.

    >>> counts = param_counts(BertConfig())
    >>> print(f"{counts.encoder:,} and {counts.with_mlm_head:,}")
    109,482,240 and 110,104,890
    """
    _check(config)
    hidden, layers = config.hidden_size, config.num_layers
    rows = config.vocab_size + config.max_positions + config.type_vocab_size
    norm = 2 * hidden
    return ParamCounts(
        embeddings=rows * hidden,
        attention=layers * _attention_params(config),
        feed_forward=layers * _feed_forward_params(config),
        norms=(2 * layers + 1) * norm,
        pooler=_dense_params(hidden, hidden),
        mlm_head=_dense_params(hidden, hidden) + norm + config.vocab_size,
    )


def flops_per_token(config: BertConfig, seq_length: int) -> FlopCounts:
    """The FLOPs of one token among `seq_length`.

    Raises:
        ValueError: there are fewer positions than that, or no token at all.

    >>> counts = flops_per_token(BertConfig(), seq_length=128)
    >>> print(f"{counts.feed_forward:,} of {counts.layer:,} in a layer, {counts.layers:,} in all")
    9,437,184 of 14,548,992 in a layer, 174,587,904 in all
    """
    _check(config)
    if not isinstance(seq_length, int):
        raise TypeError(f"seq_length must be a whole number, got {seq_length!r}.")
    if not 1 <= seq_length <= config.max_positions:
        raise ValueError(f"seq_length must be from 1 to max_positions {config.max_positions}, got {seq_length}.")
    hidden, size, heads = config.hidden_size, config.head_size, config.num_heads
    key_heads, value_heads = _heads(config)
    to_heads = _matmul(hidden, 2 * key_heads * size + value_heads * size)
    attended = key_heads * _matmul(size, seq_length) + value_heads * _matmul(seq_length, size)
    if isinstance(config.attention, TalkingHeads):
        attended += seq_length * (_matmul(key_heads, heads) + _matmul(heads, value_heads))
    maps = [_network_flops(spec) for spec in _feed_forward_specs(config)]
    return FlopCounts(
        projections=to_heads + _matmul(value_heads * size, hidden),
        attention=attended,
        feed_forward=sum(per_token for per_token, _ in maps),
        once=sum(once for _, once in maps),
        num_layers=config.num_layers,
    )


def _check(config: BertConfig) -> None:
    if not isinstance(config, BertConfig):
        raise TypeError(f"config must be a BertConfig, got {config!r}; that of a preset is PRESETS[name].config.")


def _heads(config: BertConfig) -> tuple[int, int]:
    """Heads of queries and keys, and heads of values."""
    if isinstance(config.attention, TalkingHeads):
        return config.attention.sizes(config.num_heads)
    return config.num_heads, config.num_heads


def _dense_params(in_dim: int, out_dim: int) -> int:
    return in_dim * out_dim + out_dim


def _attention_params(config: BertConfig) -> int:
    hidden, size, heads = config.hidden_size, config.head_size, config.num_heads
    key_heads, value_heads = _heads(config)
    talking = isinstance(config.attention, TalkingHeads)
    return (
        2 * _dense_params(hidden, key_heads * size)
        + _dense_params(hidden, value_heads * size)
        + _dense_params(value_heads * size, hidden)
        + (heads * (key_heads + value_heads) if talking else 0)
    )


def _feed_forward_params(config: BertConfig) -> int:
    *widen, narrow = _feed_forward_specs(config)
    return (
        sum(spec.num_params + spec.out_dim for spec in widen)
        + narrow.num_params
        + (narrow.out_dim if config.output_bias else 0)
    )


def _feed_forward_specs(config: BertConfig) -> tuple[Spec, ...]:
    """The maps of a layer, in order: one or, with a gate, two that widen, and one that narrows."""
    hidden, wide = config.hidden_size, config.intermediate_size
    widen, narrow = config.feed_forward.specs(hidden, wide)
    widen, narrow = widen or dense_spec(hidden, wide), narrow or dense_spec(wide, hidden)
    return (widen, widen, narrow) if config.gated else (widen, narrow)


def _network_flops(spec: Spec) -> tuple[int, int]:
    """FLOPs for every token, and once a batch."""
    size = {**spec.size, BATCH: 1}
    per_token, once = 0, 0
    for step in plan(spec).steps:  # the order with the fewest; layers take the fastest
        flops = _matmul(math.prod(size[m] for m in step.summed), math.prod(size[m] for m in step.result))
        if BATCH in step.result:
            per_token += flops
        else:
            once += flops
    return per_token, once


def _matmul(summed: int, results: int) -> int:
    """FLOPs of so many results, each a sum of so many products."""
    return results * (2 * summed if summed > 1 else 1)
