"""Pretraining from shards: resumed exactly, also after kill -9; stopped in words where it cannot go on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest

from bert_models.config import BertConfig
from bert_models.encoder import build_encoder
from bert_models.heads import MaskedLM
from bert_models.kinds import ExpandCondense
from bert_models.pretraining.loop import Part, parts, pretrain
from bert_models.pretraining.pipeline import write_pretraining_data
from bert_models.pretraining.recipes import RECIPES
from bert_models.pretraining.settings import DataSettings
from bert_models.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from bert_models.training import curve

VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *(a + b for a in "abcdefgh" for b in "klmn"), "."))
PAIRS = DataSettings(max_length=16, duplicates=3, num_shards=2)
DYNAMIC = DataSettings("full_sentences", max_length=16, duplicates=1, masking="dynamic", num_shards=2)
ONE_MASK = DataSettings("full_sentences", max_length=16, duplicates=3, max_predictions=1, num_shards=2)
RECIPE = RECIPES["tn_bert"].on(PAIRS, 12).scaled(12, batch_size=8, peak=1e-2, warmup_steps=2)


def text(seed=0, documents=20):
    draw = np.random.default_rng(seed)
    words = np.array(VOCABULARY.tokens[5:-1])
    sentences = (" ".join(draw.choice(words, 6)) + " ." for _ in range(4 * documents))
    return "\n\n".join("\n".join(part) for part in zip(*[sentences] * 4, strict=True))


def encoder(seed=0, vocab_size=38, **fields):
    keras.utils.set_random_seed(seed)
    sizes = {"hidden_size": 16, "num_heads": 2, "num_layers": 1, "max_positions": 16}
    kinds = {"feed_forward": ExpandCondense(block_size=8), "output_bias": False}
    return build_encoder(BertConfig(vocab_size=vocab_size, **{**sizes, **kinds, **fields}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder with "pairs" and "one_mask", with static masks, and "dynamic", rows without masks."""
    place = tmp_path_factory.mktemp("data")
    (place / "corpus.txt").write_text(text())
    for name, settings in (("pairs", PAIRS), ("dynamic", DYNAMIC), ("one_mask", ONE_MASK)):
        write_pretraining_data([place / "corpus.txt"], place / name, VOCABULARY, settings)
    return place


def losses(folder):
    return [(row["step"], row["loss"]) for row in curve.read(folder / "curve.jsonl")]


def weights(model):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in model.trainable_variables]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


RUN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_pretraining_loop as tests
place = Path(sys.argv[1])
every = int(sys.argv[2])
tests.pretrain(tests.encoder(), place / "pairs", place / "killed", tests.RECIPE, every=every, held_out=place / "pairs")
"""


@pytest.mark.slow
def test_resumed_after_kill_9_as_without_it(data):
    whole = pretrain(encoder(), data / "pairs", data / "whole", RECIPE, every=1, held_out=data / "pairs")
    # The process is killed without a warning, wherever it is, once some lines are written.
    script = RUN.format(tests=str(Path(__file__).parent))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen([sys.executable, "-c", script, str(data), "1"], env=env)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline and len(losses(data / "killed")) < 3:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(losses(data / "killed"))
    assert 3 <= done < RECIPE.total_steps
    resumed = pretrain(encoder(seed=9), data / "pairs", data / "killed", RECIPE, every=1, held_out=data / "pairs")
    assert losses(data / "killed") == losses(data / "whole")
    assert [step for step, _ in losses(data / "whole")] == list(range(1, 13))
    assert same(whole, resumed)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_stopped_and_resumed_with_dynamic_masks(data, tmp_path, accumulate):
    recipe = RECIPE.on(DYNAMIC)
    given = {"tokenizer": VOCABULARY, "accumulate": accumulate}
    whole = pretrain(encoder(), data / "dynamic", tmp_path / "whole", recipe, every=6, **given)
    pretrain(encoder(), data / "dynamic", tmp_path / "run", recipe, every=6, steps=5, **given)
    resumed = pretrain(encoder(seed=9), data / "dynamic", tmp_path / "run", recipe, every=7, **given)
    assert same(whole, resumed)
    assert [step for step, _ in losses(tmp_path / "run")] == [5, 12]
    # Nothing is left to do: the model is as it was.
    assert same(pretrain(encoder(seed=3), data / "dynamic", tmp_path / "run", recipe, **given), whole)


@pytest.mark.slow
def test_accumulated_parts_give_the_whole_batch(data, tmp_path):
    # With one masked token in every row, the mean over the parts is that over the batch.
    recipe, rates = RECIPE.on(ONE_MASK), {"hidden_dropout": 0.0, "attention_dropout": 0.0}
    found = {}
    for parts_of_batch in (1, 4):
        run = tmp_path / str(parts_of_batch)
        model = pretrain(encoder(**rates), data / "one_mask", run, recipe, accumulate=parts_of_batch, every=2)
        assert int(model.optimizer.iterations) == 12
        found[parts_of_batch] = [loss for _, loss in losses(run)]
    assert found[1] == pytest.approx(found[4], rel=1e-4)


@pytest.mark.slow
def test_learns_what_there_is_to_learn(data, tmp_path):
    """Next-sentence labels apart, words here are random: what can be learnt is how often each is there."""
    recipe = RECIPE.scaled(60, warmup_steps=5, batch_size=16, peak=5e-3)
    pretrain(encoder(), data / "pairs", tmp_path, recipe, every=20, held_out=data / "pairs")
    rows = curve.read(tmp_path / "curve.jsonl")
    assert rows[0].keys() >= {"masked_loss", "masked_accuracy", "next_sentence_accuracy", "val_masked_accuracy"}
    assert rows[-1]["val_masked_loss"] < np.log(33)
    assert rows[-1]["learning_rate"] == pytest.approx(0.0, abs=1e-9)
    assert all(later["cpu_seconds"] > row["cpu_seconds"] for row, later in pairwise(rows))


@pytest.mark.slow
def test_stages_share_one_curve_of_the_rate(data, tmp_path):
    short = replace(RECIPES["bert"].scaled(10, warmup_steps=0), batch_size=8)
    pretrain(encoder(), [data / "pairs", data / "pairs"], tmp_path, short, every=4)
    rows = curve.read(tmp_path / "curve.jsonl")
    assert [row["step"] for row in rows] == [4, 8, 9, 10]
    assert [row["learning_rate"] for row in rows] == pytest.approx([6e-5, 2e-5, 1e-5, 0.0], abs=1e-9)


def test_parts_cover_every_step_once():
    recipe = RECIPES["bert"].scaled(1000)
    for every, first, last in ((7, 0, 1000), (1000, 3, 1000), (50, 899, 950), (1, 990, 1000), (10, 1000, 1000)):
        seen = [
            (part.stage, part.in_stage + i, part.first + i)
            for part in parts(recipe, every, first, last)
            for i in range(part.every * part.times)
        ]
        assert seen == [(int(i >= 900), i - 900 * (i >= 900), i) for i in range(first, last)]
    assert list(parts(recipe, 600, 0, 1000)) == [
        Part(0, 0, 0, 600, 1),
        Part(0, 600, 600, 300, 1),
        Part(1, 900, 0, 100, 1),
    ]


def test_nan_stops_with_the_step_and_keeps_the_last_checkpoint(data, tmp_path):
    model = pretrain(encoder(), data / "pairs", tmp_path, RECIPE, every=2, steps=4)
    kept = weights(model)

    class Spoil(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 1:
                bias = self.model.mlm.output_bias
                bias.assign(np.full(bias.shape, np.inf, "float32"))

    with pytest.raises(
        FloatingPointError, match=r"loss is nan at step 6: lower the learning rate.*00000004\.\w+ is kept"
    ):
        pretrain(encoder(), data / "pairs", tmp_path, RECIPE, every=4, callbacks=[Spoil()])
    again = pretrain(encoder(seed=5), data / "pairs", tmp_path, RECIPE, steps=4)
    for a, b in zip(kept, weights(again), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": {"hidden_size": 32}}, "is of another model: it has .* Build the model"),
        ({"recipe": replace(RECIPE, peak=0.5)}, "was trained with peak=0.01, now it is 0.5"),
        ({"seed": 7}, "was trained with seed=0, now it is 7"),
        ({"encoder": {"vocab_size": 400}}, "made with a vocabulary of 38 tokens, but the encoder has 400"),
        ({"encoder": {"vocab_size": 20}}, "build it with vocab_size=38"),
        ({"encoder": {"max_positions": 8}}, "has rows of 16 tokens, but the encoder has 8 positions"),
        ({"accumulate": 3}, "accumulate must divide the batch of 8, got 3"),
        ({"tokenizer": Vocabulary((*SPECIAL_TOKENS, "a"))}, "made with another vocabulary than the tokenizer's"),
        ({"recipe": "albert"}, "recipe must be a Recipe or one of bert, tn_bert, lambert, small_bert, got 'albert'"),
        ({"recipe": "bert"}, "the recipe has 2 stages, so it needs as many folders"),
        ({"recipe": replace(RECIPE, batch_size=4096)}, "fewer than a batch of 4096; lower batch_size"),
    ],
)
def test_refused_before_any_work(data, tmp_path_factory, changes, message):
    folder = tmp_path_factory.getbasetemp() / "refused"
    if not folder.exists():
        pretrain(encoder(), data / "pairs", folder, RECIPE, every=1, steps=1)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    given = {"recipe": RECIPE, **changes}
    made = encoder(**given.pop("encoder", {}))
    with pytest.raises(ValueError, match=message):
        pretrain(made, data / "pairs", folder, **given)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.slow
def test_another_teacher_is_noticed(data, tmp_path):
    teachers = [MaskedLM(encoder(seed)) for seed in (1, 1, 2)]
    for teacher in teachers[:2]:
        pretrain(encoder(), data / "pairs", tmp_path, RECIPE, every=1, steps=1, teacher=teacher)
    for other in (teachers[2], None):
        with pytest.raises(
            ValueError, match=r"was trained with .*(teacher|label_share)=.*, now it is .*: go on with the same"
        ):
            pretrain(encoder(), data / "pairs", tmp_path, RECIPE, every=1, steps=2, teacher=other)


def test_data_without_pairs_or_damaged(data, tmp_path):
    with pytest.raises(ValueError, match="has no next-sentence labels, which the recipe wants"):
        pretrain(encoder(), data / "dynamic", tmp_path / "run", RECIPE)
    for name in ("cut", "damaged"):
        shutil.copytree(data / "pairs", tmp_path / name)
    shards = [sorted((tmp_path / name).glob("*.tfrecord"))[0] for name in ("cut", "damaged")]
    content = shards[0].read_bytes()
    shards[0].write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="it was cut or changed; copy it again"):
        pretrain(encoder(), tmp_path / "cut", tmp_path / "run", RECIPE)
    shards[1].write_bytes(content[:100] + b"\xff" * 4 + content[104:])  # of the same length
    with pytest.raises(ValueError, match=r"damaged has a damaged shard \(.*copy it again, or write it again"):
        pretrain(encoder(), tmp_path / "damaged", tmp_path / "run", RECIPE)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_resumes_exactly_on_other_backends(data, backend):
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_pretraining_loop as tests
place = Path(sys.argv[1])
name = sys.argv[2]
whole = tests.pretrain(tests.encoder(), place / "pairs", place / f"{{name}}-whole", tests.RECIPE, every=2)
tests.pretrain(tests.encoder(), place / "pairs", place / f"{{name}}-run", tests.RECIPE, every=2, steps=6)
again = tests.pretrain(tests.encoder(seed=9), place / "pairs", place / f"{{name}}-run", tests.RECIPE, every=2)
assert tests.losses(place / f"{{name}}-run") == tests.losses(place / f"{{name}}-whole")
assert tests.same(whole, again)
print(tests.json.dumps(tests.losses(place / f"{{name}}-whole")))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "KERAS_BACKEND": backend}
    arguments = [sys.executable, "-c", code, str(data), backend]
    done = subprocess.run(arguments, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [step for step, _ in found] == [2, 4, 6, 8, 10, 12]
    assert all(np.isfinite(loss) for _, loss in found)
