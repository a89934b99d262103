"""`python -m bert_models`: the whole way from text to a distilled model, and how the commands and their files work."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bert_models.cli import main, places
from bert_models.finetuning.tasks import TASKS
from bert_models.text.vocabulary import SPECIAL_TOKENS

WORDS = ["good", "fine", "bad", "poor", "film", "the", "very", "is", *(a + b for a in "abcdefgh" for b in "klmn"), "."]
TINY = ["num_layers=1", "hidden_size=16", "num_heads=2", "init_stddev=0.2", "max_positions=24"]
TINY = [word for value in TINY for word in ("--set", value)]
# The feed-forward maps of TN-BERT, for a width of 16.
TN = [*TINY, "--set", 'feed_forward={"kind": "expand_condense", "block_size": 8}']
FAST = ["--learning-rate", "2e-2", "--epochs", "3", "--batch-size", "16", "--dropout", "0", "--output", "mean"]


def call(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert "Traceback" not in result.stderr
    return result


def done(*words):
    """The JSON results of a command that goes well."""
    result = call(*words, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def table(count, seed):
    """A film is good or bad by one word among others."""
    draw = np.random.default_rng(seed)
    lines = ["sentence\tlabel"]
    for _ in range(count):
        label = int(draw.integers(2))
        words = [*draw.choice(WORDS[4:8], draw.integers(1, 5)), draw.choice(WORDS[2 - 2 * label : 4 - 2 * label])]
        lines.append(f"{' '.join(draw.permutation(words))}\t{label}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with vocab.txt, corpus.txt, and the task folder sst2."""
    made = tmp_path_factory.mktemp("cli")
    (made / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *WORDS]) + "\n")
    draw = np.random.default_rng(0)
    sentences = [" ".join(draw.choice(WORDS[8:-1], 6)) + " ." for _ in range(60)]
    (made / "corpus.txt").write_text("\n\n".join("\n".join(part) for part in zip(*[iter(sentences)] * 4, strict=True)))
    (made / "sst2").mkdir()
    for name, count, seed in (("train", 128, 0), ("dev", 40, 1)):
        (made / "sst2" / f"{name}.tsv").write_text(table(count, seed))
    return made


@pytest.fixture(scope="module")
def data(place):
    given = ["--tokenizer", place / "vocab.txt", "--max-length", 16, "--num-shards", 2, "--duplicates", 2]
    return done("pretrain-data", place / "corpus.txt", "--out", place / "data", *given)


@pytest.fixture(scope="module")
def run(place, data):
    given = ["--tokenizer", place / "vocab.txt", "--steps", 4, "--batch-size", 8, "--every", 2, "--peak", 1e-2]
    return done("pretrain", "--encoder", "tn_bert", *TN, "--data", data["out"], "--out", place / "run", *given)


@pytest.fixture(scope="module")
def task(place):
    return ["--task", "sst2", "--data", place / "sst2"]


@pytest.fixture(scope="module")
def tuned(run, task, place):
    return done("finetune", "--encoder", run["out"], *task, *FAST, "--seed", 3, "--out", place / "tuned")


# -- the whole way ---------------------------------------------------------------------------------


def test_text_becomes_shards(data, place):
    info = json.loads((place / "data" / "pretraining_data.json").read_text())
    assert data["counts"] == info["counts"]
    assert data["counts"]["documents"] == 15
    assert data["settings"]["duplicates"] == 2
    assert data["shards"] == len(list((place / "data").glob("*.tfrecord"))) == 2


def test_shards_become_an_encoder(run, place):
    import bert_models
    from bert_models.training import curve
    from bert_models.training.checkpointing import newest_checkpoint

    assert run["last"] == curve.read(place / "run" / "curve.jsonl")[-1]
    assert run["last"]["step"] == 4
    assert newest_checkpoint(place / "run").name == "checkpoint-00000004.safetensors"
    encoder, mlm = bert_models.load(run["encoder"]), bert_models.load_mlm(place / "run" / "mlm.keras")
    assert encoder.config.vocab_size == len(SPECIAL_TOKENS) + len(WORDS)  # that of the data
    for a, b in zip(encoder.get_weights(), mlm.encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list((place / "run").glob(".saving-*"))


def test_an_encoder_becomes_a_model_of_a_task_and_is_measured(tuned, task, place):
    assert tuned["mean"]["dev"]["accuracy"] > 90
    assert [one["seed"] for one in tuned["runs"]] == [3]
    assert tuned["recipe"]["learning_rate"] == 2e-2
    assert json.loads((place / "tuned" / "results.json").read_text()) == tuned
    assert done("evaluate", "--model", place / "tuned", *task)["scores"] == tuned["mean"]
    both = done("evaluate", "--model", place / "tuned" / "model.keras", *task, "--split", "dev", "--split", "train")
    assert set(both["scores"]) == {"dev", "train"}


def test_a_small_model_learns_from_a_large_one_and_goes_on_with_its_head(tuned, task, place):
    student = ["--encoder", "bert_en_uncased_L-12_H-768_A-12", *TINY]
    given = [*task, *FAST, "--keep", "best", "--out", place / "student"]
    found = done("distil", "--teacher", tuned["out"], *student, *given)  # with the teacher's tokenizer
    assert found["teacher_scores"] == tuned["mean"]
    assert found["mean"]["dev"]["accuracy"] > 90
    # A learning rate of next to nothing: the head, and all else, is that of the distilled model.
    little = ["--epochs", 1, "--learning-rate", 1e-12, "--out", place / "final"]
    result = call("finetune", "--encoder", place / "student", *task, *little)
    assert result.exit_code == 0
    assert f"accuracy {found['mean']['dev']['accuracy']:.2f}" in result.stdout


def test_results_in_words_are_alone_on_standard_output(place, data, tmp_path):
    given = ["--tokenizer", place, "--max-length", 16, "--num-shards", 2, "--duplicates", 2]
    result = call("pretrain-data", place / "corpus.txt", "--out", tmp_path / "data", *given)
    examples, read = data["counts"]["examples"], data["counts"]["bytes"]
    made = f"{examples:,} examples of up to 16 tokens in 2 shards, from 15 documents of {read:,} bytes"
    assert result.stdout == f"{tmp_path / 'data'}: {made}\n"
    assert result.stderr == ""


def test_what_libraries_print_goes_to_standard_error(place, data, tmp_path, monkeypatch):
    def talkative(*files, **settings):
        print("a bar of a library")
        return json.loads((place / "data" / "pretraining_data.json").read_text())

    monkeypatch.setattr("bert_models.pretraining.pipeline.write_pretraining_data", talkative)
    result = call("pretrain-data", place / "corpus.txt", "--out", tmp_path / "data", "--tokenizer", place, "--json")
    assert json.loads(result.stdout)["counts"] == data["counts"]
    assert result.stderr == "a bar of a library\n"


@pytest.mark.slow
def test_the_command_trains_as_the_function_does(run, place):
    import keras

    from bert_models.pretraining.loop import pretrain
    from bert_models.pretraining.recipes import RECIPES
    from bert_models.pretraining.settings import DataSettings
    from bert_models.training import curve

    keras.utils.set_random_seed(0)
    settings = DataSettings(max_length=16, num_shards=2, duplicates=2)
    recipe = RECIPES["bert"].on(settings).scaled(4, batch_size=8, peak=1e-2)
    names = dict(name.split("=") for name in TINY[1::2])
    overrides = {name: json.loads(value) for name, value in names.items()}
    overrides |= {"feed_forward": {"kind": "expand_condense", "block_size": 8}, "vocab_size": 46}
    pretrain(places.open_encoder("tn_bert", overrides), place / "data", place / "by_function", recipe, every=2)
    found, wanted = (
        [row["loss"] for row in curve.read(place / name / "curve.jsonl")] for name in ("run", "by_function")
    )
    assert found == wanted


# -- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["pretrain-data", "pretrain", "finetune", "evaluate", "distil"])
def test_help_has_an_example_and_defaults(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"python -m bert_models {command} " in result.output
    assert "[default: " in result.output
    assert "[required]" in result.output
    every_option = [line for line in result.output.split("Options:")[1].splitlines() if line.startswith("  --")]
    assert all(len(line) < 81 for line in every_option)
    assert command in call("--help").output


def test_help_names_every_task():
    text = call("finetune", "--help").output
    assert all(name in text for name in TASKS)


def test_the_door_is_light():
    code = "import sys, bert_models.cli; sys.exit(any(name in sys.modules for name in ('keras', 'tensorflow', 'jax')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_a_command_help_is_shown():
    result = call()
    assert "Commands:" in result.output
    assert result.exit_code == 0


# -- options in files ------------------------------------------------------------------------------


def counts(*words):
    return done("pretrain-data", *words)["counts"]


def test_files_of_options_are_as_typed_and_what_is_typed_wins(place, data, tmp_path):
    values = {"tokenizer": str(place), "max-length": 16, "num_shards": 2, "duplicates": 2}
    files = {"files": [str(place / "corpus.txt")], "whole-words": False}
    (tmp_path / "run.json").write_text(json.dumps({**values, **files}))
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**files, "max-length": 99}.items()]
    tables = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    (tmp_path / "run.toml").write_text(
        "\n".join([*lines, "[pretrain-data]", *tables, "[finetune]", 'task = "of another command"'])
    )
    for name in ("run.json", "run.toml"):
        assert counts("--config", tmp_path / name, "--out", tmp_path / f"{name}-data") == data["counts"]
    typed = done("pretrain-data", "--config", tmp_path / "run.toml", "--out", tmp_path / "more", "--duplicates", 4)
    assert typed["settings"]["duplicates"] == 4
    assert typed["settings"]["max_length"] == 16  # the command's own table counts more
    assert typed["settings"]["whole_words"] is False


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.toml", "max-lenght = 16", "pretrain-data has no option 'max-lenght'; did you mean max-length"),
        ("run.toml", "zzz = 16", "pretrain-data has no option 'zzz'; there are files, out, tokenizer, recipe,"),
        ("run.toml", "max-length = 16.5", "'--max-length': '16.5' is not a valid integer"),
        ("run.toml", "max-length = true", "'--max-length': 'true' is not a valid integer"),
        ("run.toml", "max-length = [16]", "max-length must be one value, got a list"),
        ("run.toml", "max-length = {a = 1}", "max-length must be a value, got a table"),
        ("run.toml", 'packing = "pairs"', "'pairs' is not one of 'next_sentence', 'full_sentences'"),
        ("run.toml", "max-length = ", "run.toml is not TOML: "),
        ("run.json", "{", "run.json is not JSON: "),
        ("run.json", "[1]", "names and values were expected, got a list"),
        ("run.json", '{"a": ' * 100_000, "run.json is not JSON: "),
        ("run.json", '{"pretrain-data": 3}', "pretrain-data must be a table of options, got 3"),
        ("run.json", b"\xff{}", "run.json: byte 0 is not UTF-8"),
        ("run.yaml", "max-length: 16", "must be a .toml or a .json file"),
        ("run.json", " " * 1_000_001, "more than 1,000,000 bytes"),
    ],
)
def test_bad_files_of_options_are_refused(place, tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    given = ["--tokenizer", place, "--out", tmp_path / "data"]
    result = call("pretrain-data", place / "corpus.txt", *given, "--config", tmp_path / name)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "data").exists()


def test_a_table_sets_fields_of_a_preset(tmp_path):
    from bert_models.cli.config import options_of, read
    from bert_models.kinds import LowRank

    text = '[set]\nnum_layers = 2\nfeed_forward = {kind = "low_rank", rank = 4}\n'
    (tmp_path / "run.toml").write_text(text)
    values = options_of(read(tmp_path / "run.toml"), main.commands["pretrain"], main.commands, "run.toml")
    config = places._preset_config("tn_bert", dict(values["overrides"]))
    assert (config.num_layers, config.feed_forward) == (2, LowRank(4))


# -- what is written about it ----------------------------------------------------------------------


def commands_in(text):
    """The commands in a text, those over several lines too, as words."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line) for line in map(str.strip, lines) if line.strip().startswith("python -m bert_models ")]
    return [words[3:] for words in found if not words[3].startswith("-")]


@pytest.mark.parametrize("source", ["docs", *main.commands])
def test_written_commands_are_understood(source):
    page = Path(__file__).parents[2] / "docs" / "training_commands.md"
    text = page.read_text() if source == "docs" else main.commands[source].help
    found = commands_in(text)
    assert found
    for name, *words in found:
        main.commands[name].make_context(name, words)  # refuses unknown options, and lacks of those that are required


def test_the_file_in_the_docs_is_understood(tmp_path):
    from bert_models.cli.config import options_of, read

    page = (Path(__file__).parents[2] / "docs" / "training_commands.md").read_text()
    (tmp_path / "run.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    for name in ("pretrain-data", "pretrain"):
        assert options_of(read(tmp_path / "run.toml"), main.commands[name], main.commands, "run.toml")


def test_lines_stand_above_the_bar(capsys):
    from bert_models.cli import bars

    with bars.bar("Training", 2, shown=True) as update:
        update(1, "loss 1.5")
        bars.say("step 1", quiet=False)
        bars.say("not this", quiet=True)
    found = capsys.readouterr()
    assert "step 1\n" in found.err
    assert "not this" not in found.err
    assert found.out == ""
