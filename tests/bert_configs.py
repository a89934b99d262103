"""Small encoders of every kind, drawn by hypothesis."""

from itertools import islice

from hypothesis import strategies as st

from bert_models.config import BertConfig
from bert_models.kinds import DenseMaps, ExpandCondense, LowRank, MultiHead, Networks, TalkingHeads, nearest_divisor
from tncompress import FORMS


@st.composite
def bert_configs(draw: st.DrawFn, max_layers: int = 3) -> BertConfig:
    """Any combination of attention, feed-forward maps, gate and biases, with sizes of at least two."""
    heads, size = draw(st.integers(2, 4)), draw(st.integers(2, 6))
    hidden = heads * size
    maps = draw(feed_forwards(hidden))
    dense = isinstance(maps, DenseMaps | LowRank)
    return BertConfig(
        vocab_size=draw(st.integers(2, 40)),
        hidden_size=hidden,
        num_layers=draw(st.integers(1, max_layers)),
        num_heads=heads,
        intermediate_size=draw(st.none() | st.integers(2, 40)) if dense else None,
        max_positions=draw(st.integers(4, 20)),
        type_vocab_size=draw(st.integers(1, 3)),
        attention=draw(attentions()),
        feed_forward=maps,
        gated=draw(st.booleans()),
        output_bias=draw(st.booleans()),
    )


def attentions() -> st.SearchStrategy:
    """Multi-head, or talking heads of any three numbers of heads."""
    heads = st.none() | st.integers(2, 5)
    return st.just(MultiHead()) | st.builds(TalkingHeads, key_heads=heads, value_heads=heads)


@st.composite
def feed_forwards(draw: st.DrawFn, hidden: int):
    """Every kind of maps; networks of any form that has one of these sizes."""
    kind = draw(st.sampled_from(["dense", "low_rank", "expand_condense", "networks"]))
    if kind == "low_rank":
        return LowRank(draw(st.integers(2, 8)))
    if kind == "expand_condense":
        block = nearest_divisor(hidden, draw(st.integers(2, hidden)))
        return ExpandCondense(block, draw(st.integers(2, 4)))
    if kind == "dense":
        return DenseMaps()
    return Networks(*(draw(networks(*dims)) for dims in ((hidden, 4 * hidden), (4 * hidden, hidden))))


@st.composite
def networks(draw: st.DrawFn, in_dim: int, out_dim: int):
    """A network of any form with these sizes."""
    found = {name: list(islice(form.candidates(in_dim, out_dim, in_dim * out_dim), 8)) for name, form in FORMS.items()}
    return draw(st.sampled_from(sorted(found[draw(st.sampled_from([n for n in sorted(found) if found[n]]))], key=str)))
