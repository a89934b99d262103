"""FLOP counts: the figures measured on the original models, and the arithmetic against the dots of XLA's programs."""

import doctest
import json
from dataclasses import replace

import pytest
from bert_configs import bert_configs
from hypothesis import HealthCheck, given, settings

from bert_models.config import BertConfig
from bert_models.counts import FlopCounts, flops_per_token
from bert_models.kinds import ExpandCondense, LowRank, Networks, TalkingHeads
from bert_models.presets import PRESETS
from tncompress import Spec, plan
from tncompress.layers import fast_paths

BASE = "bert_en_uncased_L-12_H-768_A-12"
SMALL = "small_bert/bert_en_uncased_L-12_H-512_A-8"
TALKING = "talkheads_ggelu_bert_en_base"
LAMBERT = "lambert_en_uncased_L-24_H-1024_A-16"

# Counted in the XLA programs of TensorFlow Model Garden's own models: feed-forward, layer at 128, layer at 512.
FIGURES = {
    BASE: (9_437_184, 14_548_992, 15_728_640),
    "tn_bert": (3_932_160, 9_043_968, 10_223_616),
    SMALL: (4_194_304, 6_553_600, 7_340_032),
    TALKING: (14_155_776, 19_341_312, 20_742_144),
    LAMBERT: (16_777_216, 25_690_112, 27_262_976),
}


@pytest.fixture(autouse=True, scope="module")
def _fewest_flops():
    """What is counted; as small as here, layers may be faster in orders with others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_paths, "network_plan", lambda spec, tokens: plan(spec))
        yield


@pytest.mark.parametrize("name", FIGURES)
def test_presets_have_the_flops_of_the_original_models(name):
    short, long = (flops_per_token(PRESETS[name].config, length) for length in (128, 512))
    assert (short.feed_forward, short.layer, long.layer) == FIGURES[name]
    assert long.feed_forward == short.feed_forward
    assert short.layers == PRESETS[name].config.num_layers * short.layer
    assert short.once == 0


def test_networks_cost_what_their_plan_says():
    config = BertConfig(hidden_size=768, feed_forward=LowRank(rank=64), gated=True)
    widen, narrow = config.feed_forward.specs(768, 3072)
    planned = 2 * plan(widen, 1024).flops + plan(narrow, 1024).flops
    assert flops_per_token(config, 128).feed_forward * 1024 == planned


def merging() -> BertConfig:
    """Two thin cores of each map are multiplied with each other first, whatever the number of tokens."""
    widen = Spec.parse("i, i r, r s, s o -> o", i=16, r=2, s=16, o=64)
    narrow = Spec.parse("i, i r, r s, s o -> o", i=64, r=2, s=16, o=16)
    return BertConfig(vocab_size=9, hidden_size=16, num_heads=2, num_layers=2, feed_forward=Networks(widen, narrow))


def test_cores_multiplied_with_each_other_count_once():
    counts = flops_per_token(merging(), 8)
    assert counts.once == 2 * 2 * 16 * 64 + 2 * 2 * 16 * 16
    widen, narrow = merging().feed_forward.specs(16, 64)
    assert counts.feed_forward * 1024 + counts.once == plan(widen, 1024).flops + plan(narrow, 1024).flops


@pytest.mark.parametrize("length", [0, 513])
def test_a_length_without_positions_is_refused(length):
    with pytest.raises(ValueError, match=f"from 1 to max_positions 512, got {length}"):
        flops_per_token(BertConfig(), length)


def whole_program(config: BertConfig, counts: FlopCounts, length: int, rows: int) -> int:
    """FLOPs of an encoder's forward pass over rows of that length, with the pooler."""
    tokens = rows * length
    pooler = 2 * config.hidden_size**2 * rows
    return tokens * counts.layers + config.num_layers * counts.once + pooler


TINY = BertConfig(vocab_size=9, hidden_size=32, num_heads=4, num_layers=2)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, feed_forward=ExpandCondense(block_size=8), output_bias=False),
        replace(TINY, attention=TalkingHeads(), gated=True),
        replace(TINY, attention=TalkingHeads(key_heads=2, value_heads=3), feed_forward=LowRank(5), num_layers=1),
        merging(),
    ],
    ids=["dense", "tn_bert", "talking heads, gated", "unequal heads, low rank", "merged cores"],
)
def test_the_arithmetic_is_what_xla_runs(config):
    import flop_count

    found = flop_count.flops_of_program(config, 8)
    expected = whole_program(config, flops_per_token(config, 8), 8, flop_count.ROWS_OF_BATCH)
    assert found == dict.fromkeys(flop_count.STAGES, expected)


@given(config=bert_configs(max_layers=2))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_encoder_has_the_dots_that_are_counted(config):
    import flop_count

    found = flop_count.flops_of_program.__wrapped__(config, 4, stages=("hlo",))  # XLA unrolls small dots into sums
    expected = whole_program(config, flops_per_token(config, 4), 4, flop_count.ROWS_OF_BATCH)
    assert found == {"hlo": expected}


def test_the_table_and_json_of_the_presets(capsys):
    import flop_count

    assert flop_count.main([]) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 100
    assert "…" not in table
    for figures in FIGURES.values():
        assert all(f"{figure:,}" in table for figure in figures)
    assert flop_count.main(["tn_bert", "--lengths", "128", "64", "128", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [row["seq_length"] for row in results] == [128, 64]
    assert results[0]["layer"] == 9_043_968


def test_a_program_that_differs_ends_in_one(monkeypatch, capsys):
    import flop_count

    monkeypatch.setattr(flop_count, "layer_in_hlo", lambda config, length: {"hlo": 9_043_968, "optimized_hlo": 9})
    assert flop_count.main(["tn_bert", "--lengths", "128", "--hlo"]) == 1
    said = capsys.readouterr()
    assert "at 128 tokens: a layer has 9 FLOPs per token in XLA's optimized_hlo, the count gives 9,043,968" in said.err
    assert "differs" in said.out


@pytest.mark.parametrize("arguments", [["--lengths", "0"], ["--lengths", "513"], ["--lengths", "8", "tn_bert"]])
def test_a_wrong_length_ends_in_two_with_one_sentence(arguments, capsys):
    import flop_count

    with pytest.raises(SystemExit) as ended:
        flop_count.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_the_compiled_presets_of_the_cards_have_these_flops(capsys):
    import flop_count

    assert flop_count.main([*FIGURES, "--hlo"]) == 0
    assert "10 of 10 agree exactly" in capsys.readouterr().out


# -- the dot counter -------------------------------------------------------------------------------------


def compiled(function, *shapes: tuple[int, ...]) -> dict[str, str]:
    """The program's text before and after XLA's optimisation."""
    import flop_count
    import tensorflow as tf

    inputs = [tf.ones(shape) for shape in shapes]
    with tf.device("CPU:0"):
        text_at = tf.function(function, jit_compile=True).experimental_get_compiler_ir(*inputs)
        return {stage: text_at(stage=stage) for stage in flop_count.STAGES}


@pytest.mark.parametrize(
    ("equation", "shapes", "flops"),
    [
        ("ab,bc->ac", [(6, 7), (7, 8)], 2 * 6 * 7 * 8),
        ("btnk,bsnk->bnts", [(2, 5, 3, 4), (2, 6, 3, 4)], 2 * 2 * 3 * 5 * 6 * 4),
        ("abc,cb->a", [(5, 6, 7), (7, 6)], 2 * 5 * 6 * 7),  # two axes are summed at once
        ("ba,cb->ca", [(7, 6), (8, 7)], 2 * 6 * 7 * 8),  # both transposed
    ],
)
def test_dots_of_einsums(equation, shapes, flops):
    import hlo
    import tensorflow as tf

    texts = compiled(lambda x, y: tf.einsum(equation, x, y), *shapes)
    assert {stage: hlo.dot_flops(text) for stage, text in texts.items()} == dict.fromkeys(texts, flops)


def test_a_fused_transposed_dot():
    import hlo
    import tensorflow as tf

    def layer(x, y, bias):
        return tf.nn.relu(tf.matmul(x, y, transpose_b=True) + bias)

    texts = compiled(layer, (1, 64), (48, 64), (48,))
    assert "fusion(" in texts["optimized_hlo"]
    assert {hlo.dot_flops(text) for text in texts.values()} == {2 * 64 * 48}


CALLED = """
HloModule calls
%product (x: f32[5,3], y: f32[3,4]) -> f32[5,4] {
  %x = f32[5,3]{1,0} parameter(0)
  %y = f32[3,4]{1,0} parameter(1)
  ROOT %dot.1 = f32[5,4] dot(f32[5,3] %x, f32[3,4] %y), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
ENTRY %main (a: f32[5,3], b: f32[3,4]) -> f32[5,4] {
  %a = f32[5,3]{1,0} parameter(0)
  %b = f32[3,4]{1,0} parameter(1)
  %first = f32[5,4]{1,0} OPERATION
  %second = f32[5,4]{1,0} call(%a, %b), to_apply=%product
  ROOT %sum = f32[5,4]{1,0} add(%first, %second)
}
"""


def test_a_computation_that_is_called_twice_counts_twice():
    import hlo

    text = CALLED.replace("OPERATION", "fusion(%a, %b), kind=kOutput, calls=%product")
    assert hlo.dot_flops(text) == 2 * 2 * 5 * 3 * 4
    assert hlo.dot_flops(CALLED.replace("OPERATION", "broadcast(%a), dimensions={}")) == 2 * 5 * 3 * 4


def test_a_dot_over_one_term_or_none_adds_nothing():
    import hlo

    dot = "dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    text = CALLED.replace("OPERATION", dot).replace("f32[5,3]", "f32[5,1]").replace("f32[3,4]", "f32[1,4]")
    assert hlo.dot_flops(text) == 2 * 5 * 4
    outer = "ENTRY main {\n x = f32[5] parameter(0)\n ROOT d = f32[5,5] dot(x, x), lhs_contracting_dims={}\n}"
    assert hlo.dot_flops(outer) == 25


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CALLED.replace("OPERATION", "while(%a), condition=%product, body=%product"), "dots inside a while"),
        (CALLED.replace("OPERATION", 'custom-call(%a, %b), custom_call_target="__cublas$gemm"'), "__cublas.gemm"),
        (CALLED.replace("OPERATION", "convolution(%a, %b), window={}"), "only dots are counted"),
        (CALLED.replace("= f32[5,4]{1,0} OPERATION", ": dot(%a, %b)"), "cannot be read"),
        ("module { }", "an HLO module has an ENTRY"),
    ],
)
def test_what_cannot_be_counted_is_refused(text, words):
    import hlo

    with pytest.raises(ValueError, match=words):
        hlo.dot_flops(text)


def test_examples_of_the_dot_counter():
    import hlo

    found = doctest.testmod(hlo)
    assert found.attempted
    assert not found.failed
