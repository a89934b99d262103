"""What is wrong is said in one sentence, with exit code 2 before any work or 1 when it fails; what was there stays."""

import contextlib
import json
import resource
import signal

import click
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from corrupting import corrupted
from hypothesis import given
from hypothesis import strategies as st
from refusals import jsons, within

from bert_models import BertConfig, build_encoder
from bert_models.cli import config, main, places
from bert_models.cli.running import Failure
from bert_models.finetuning.evaluation import evaluate
from bert_models.finetuning.finetune import finetune
from bert_models.finetuning.heads import model_for
from bert_models.finetuning.tasks import TASKS, Example
from bert_models.text.tokenize import load_tokenizer
from bert_models.text.vocabulary import SPECIAL_TOKENS
from bert_models.training import curve

WORDS = [*(a + b for a in "abcdefgh" for b in "klmn"), "."]
TINY = {"num_layers": 1, "hidden_size": 16, "num_heads": 2, "max_positions": 24}
REVIEWS = [Example("ak bl", None, 1), Example("cm dn", None, 0)] * 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a vocabulary, a corpus, a task, pretraining data, an encoder, and what is broken of each."""
    made = tmp_path_factory.mktemp("bad")
    (made / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *WORDS]) + "\n")
    draw = np.random.default_rng(0)
    documents = ("\n".join(" ".join(draw.choice(WORDS[:-1], 6)) + " ." for _ in range(4)) for _ in range(15))
    (made / "corpus.txt").write_text("\n\n".join(documents))
    (made / "empty.txt").write_text("\n \n")
    (made / "latin.txt").write_bytes("ak.\n\ncaf\u00e9".encode("latin1"))
    for name, label in (("sst2", "1"), ("labels", "2")):
        (made / name).mkdir()
        (made / name / "train.tsv").write_text(f"sentence\tlabel\nak\t0\nbl\t{label}\n")
        (made / name / "dev.tsv").write_text("sentence\tlabel\nak\t0\nbl\t1\n")
    (made / "latin").mkdir()
    (made / "latin" / "train.tsv").write_bytes("sentence\tlabel\ncaf\u00e9\t1\n".encode("latin1"))
    (made / "latin" / "dev.tsv").write_text("sentence\tlabel\nak\t0\n")
    (made / "none").mkdir()
    for name in ("data", "cut"):
        given = {**words_of_data(made), "out": made / name}
        assert call("pretrain-data", made / "corpus.txt", *words(given)).exit_code == 0
    shard = sorted((made / "cut").glob("*.tfrecord"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    keras.utils.set_random_seed(0)
    build_encoder(BertConfig(vocab_size=len(SPECIAL_TOKENS) + len(WORDS), **TINY)).save(made / "encoder.keras")
    return made


@pytest.fixture(scope="module")
def encoder(place):
    return places.open_encoder(str(place / "encoder.keras"), {})


@pytest.fixture(scope="module")
def tokenizer(place):
    return load_tokenizer(place)


def words_of_data(place):
    return {"max-length": 16, "num-shards": 2, "duplicates": 2, "tokenizer": place}


def words(options):
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def call(*typed):
    result = CliRunner().invoke(main, [str(word) for word in typed])
    assert "Traceback" not in result.stderr
    if result.exit_code:
        last = result.stderr.splitlines()[-1]
        assert last.startswith("Error: ")
        assert result.stdout == ""
    return result


DATA = {"tokenizer": "{place}", "out": "{place}/new"}
TRAIN = {"encoder": "{place}/encoder.keras", "data": "{place}/data", "out": "{place}/new"}
TUNE = {"encoder": "{place}/encoder.keras", "task": "sst2", "data": "{place}/sst2", "out": "{place}/new"}
LOOK = {"model": "{place}/encoder.keras", "task": "sst2", "data": "{place}/sst2"}
GOES_ON = "Pretraining goes on from its last checkpoint if the command is given again."
WRONG = [
    (["pretrain-data", "{place}/empty.txt"], DATA, "the corpus is empty: none of the files has a line of text"),
    (["pretrain-data", "{place}/latin.txt"], DATA, "latin.txt is not UTF-8 text: byte 8 (0xe9), in line 3"),
    (["pretrain-data", "{place}/no.txt"], DATA, "No file '{place}/no.txt'"),
    (["pretrain-data"], DATA, "give one text file or more"),
    (["pretrain-data", "{place}/corpus.txt"], {**DATA, "out": "{place}/data"}, "data exists; choose another name"),
    (["pretrain-data", "{place}/corpus.txt"], {**DATA, "tokenizer": "{place}/none"}, "lacks tokenizer.json or vocab"),
    (["pretrain-data", "{place}/corpus.txt"], {**DATA, "tokenizer": "{place}/latin.txt"}, "is not UTF-8 text"),
    (["pretrain-data", "{place}/corpus.txt"], {**DATA, "mask-rate": 2}, "mask_rate must be above 0 and at most 1"),
    (["pretrain-data", "{place}/corpus.txt"], {**DATA, "beam-option": "--a"}, "--beam-option needs --beam"),
    (["pretrain"], {**TRAIN, "data": "{place}/cut"}, "it was cut or changed; copy it again"),
    (["pretrain"], {**TRAIN, "data": "{place}/none"}, "none is no finished pretraining data"),
    (["pretrain"], {**TRAIN, "encoder": "tnbert"}, "no file or folder 'tnbert', and no preset is called 'tnbert'; the"),
    (
        ["pretrain"],
        {**TRAIN, "set": "num_layers=2"},
        "--set changes presets only, but '{place}/encoder.keras' is a path",
    ),
    (["pretrain"], {**TRAIN, "encoder": "tn_bert", "set": "layers=2"}, "BertConfig has no 'layers'; its fields are"),
    (["pretrain"], {**TRAIN, "encoder": "tn_bert", "set": "layers"}, "'layers' should be name=value"),
    (
        ["pretrain"],
        {**TRAIN, "encoder": "tn_bert", "set": "num_layers=x"},
        "num_layers must be a whole number, got 'x'",
    ),
    (["pretrain"], {**TRAIN, "peak": "high"}, "'high' is not a valid float"),
    (["pretrain"], {**TRAIN, "seed": -1}, "-1 is not in the range 0<=x<=4294967295"),
    (["pretrain"], {**TRAIN, "batch-size": 0}, "batch_size must be at least 1, got 0"),
    (["pretrain"], {**TRAIN, "batch-size": 8, "accumulate": 3}, "accumulate must divide the batch of 8, got 3"),
    (["pretrain"], {"data": "{place}/data"}, "Missing option '--encoder'"),
    (["finetune"], {**TUNE, "data": "{place}/none"}, "sst2 needs train.tsv, dev.tsv in '{place}/none' or its folder"),
    (["finetune"], {**TUNE, "data": "{place}/labels"}, "labels/train.tsv, line 3: label must be one of 0, 1, got '2'"),
    (["finetune"], {**TUNE, "data": "{place}/latin"}, "latin/train.tsv: byte 18 (line 2) is not UTF-8"),
    (["finetune"], {**TUNE, "task": "sst"}, "there is no task 'sst'; did you mean sst2"),
    (["finetune"], {**TUNE, "out": "{place}/data"}, "data exists; choose another name for --out"),
    (["finetune"], {**TUNE, "out": "{place}/no/new"}, "no does not exist; make it first"),
    (["finetune"], {**TUNE, "encoder": "tn_bert"}, "no tokenizer lies with 'tn_bert': give --tokenizer"),
    (["finetune"], {**TUNE, "epochs": 0}, "epochs must be a whole number from 1, got 0"),
    (["distil"], {**TUNE, "teacher": "{place}/none"}, "there is no model '{place}/none': give a .keras file, or"),
    (["distil"], {**TUNE, "teacher": "{place}/encoder.keras"}, "the teacher gives several outputs, as an encoder does"),
    (["evaluate"], LOOK, "the model gives several outputs, as an encoder does; fine-tune it on sst2 first"),
    (["evaluate"], {**LOOK, "model": "{place}/no"}, "there is no model '{place}/no'"),
    (["evaluate"], {**LOOK, "split": "test"}, "sst2 has no split 'test'; it has train, dev"),
    (["evaluate"], {**LOOK, "model": "{place}/corpus.txt"}, "corpus.txt is not a .keras file, or is damaged"),
    (["evaluate"], {**LOOK, "batch-size": 0}, "batch_size must be a whole number from 1, got 0"),
    (["train"], {}, "No such command 'train'"),
]


@pytest.mark.parametrize(("command", "options", "message"), WRONG, ids=[f"{c[0][0]}: {c[2][:40]}" for c in WRONG])
def test_what_is_wrong_is_said_in_a_sentence(place, command, options, message):
    typed = [str(word).replace("{place}", str(place)) for word in (*command, *words(options))]
    before = sorted(place.rglob("*"))
    result = call(*typed)
    assert result.exit_code == 2
    assert message.replace("{place}", str(place)) in result.stderr
    assert sorted(place.rglob("*")) == before


# -- options in files ------------------------------------------------------------------------------

LONG_NAME = ".".join("a" * 20)
EVIL = {
    "deep lists": ("x.toml", "a = " + "[" * 100_000, "is not TOML: "),
    "deep tables": ("x.json", '{"a":' * 100_000, "is not JSON: "),
    "rather deep": ("x.json", '{"a":' * 30 + "1" + "}" * 30, "is nested deeper than 20 tables or lists"),
    "deep in parts": ("x.toml", f"[{LONG_NAME}]\n{LONG_NAME} = 1", "is nested deeper than 20 tables or lists"),
    "name of 300,000 parts": ("x.toml", "a." * 300_000 + "a = 1", "a name has more than 20 parts"),
    "name of quoted parts": ("x.toml", r'"\"" . ' * 30 + "a = 1", "a name has more than 20 parts"),
    "table of 300,000 parts": ("x.toml", f"[{'a.' * 300_000}a]", "a name has more than 20 parts"),
    "long name": ("x.json", json.dumps({"a" * 900_000: 1}), "has no option 'aaa"),
    "name of two lines": ("x.json", json.dumps({"a\nb": 1}), r"has no option 'a\nb'"),
    "long value": ("x.json", json.dumps({"steps": "1" * 900_000}), "steps must have at most 10,000 letters or digits"),
    "long number": ("x.json", '{"steps": ' + "1" * 900_000 + "}", "is not JSON: "),
    "long number in 16s": ("x.toml", "steps = 0x" + "f" * 900_000, "steps must have at most 10,000 letters or digits"),
    "lists in a list": ("x.json", '{"data": [["a"]]}', "data must be a list of values, got"),
    "empty list": ("x.json", '{"data": []}', "data must be one value or more, got an empty list"),
    "long table": ("x.json", json.dumps({"pretrain": "a" * 900_000}), "pretrain must be a table of options, got 'aaa"),
    "zeros": ("x.toml", "\0" * 900_000, "is not TOML: "),
}


@pytest.mark.parametrize(("name", "text", "words"), EVIL.values(), ids=EVIL)
def test_evil_files_of_options_are_refused_at_once(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with within(seconds=2):
        result = call("pretrain", "--config", tmp_path / name)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr) < 4000


def test_a_file_of_options_without_end_is_not_read(tmp_path):
    (tmp_path / "x.toml").symlink_to("/dev/zero")
    with within():
        assert "has more than 1,000,000 bytes" in call("pretrain", "--config", tmp_path / "x.toml").stderr


SEED = """[pretrain]
encoder = "tn_bert"
data = ["one", "two"]
steps = 10
peak = 1e-3
quiet = true
[pretrain.set]
num_layers = 4
feed_forward = {kind = "low_rank", rank = 4}
[finetune]
seed = [1, 2]
"""


def understood(folder, name):
    """Options as a file has them, None if they are refused."""
    with contextlib.suppress(click.ClickException):
        return config.options_of(config.read(folder / "x.toml"), main.commands[name], main.commands, "x.toml")


def test_a_hundred_damaged_files_of_options_are_understood_or_refused(tmp_path):
    (tmp_path / "x.toml").write_text(SEED)
    assert understood(tmp_path, "pretrain")["steps"] == "10"
    found = 0
    for data in corrupted(SEED.encode(), 100):
        (tmp_path / "x.toml").write_bytes(data)
        found += any(understood(tmp_path, name) for name in main.commands)
    assert 0 < found < 100


@given(st.sampled_from(sorted(main.commands)), st.integers(0, 50), jsons)
def test_any_value_of_an_option_is_understood_or_refused(name, number, value):
    command = main.commands[name]
    params = [param for param in command.params if param.name != "config"]
    flag = config._flag(params[number % len(params)])
    with contextlib.suppress(click.ClickException):
        values = config.options_of({flag: value}, command, main.commands, "x.json")
        command.make_context(name, [], default_map=values)


# -- while it trains -------------------------------------------------------------------------------


def pretrain(place, out, *more, encoder=None):
    given = {"encoder": encoder or place / "encoder.keras", "data": place / "data", "out": place / out}
    given |= {"batch-size": 8, "every": 1, "steps": 3}
    return call("pretrain", *words(given), *more)


@contextlib.contextmanager
def files_of_at_most(size):
    """The system refuses to write more into a file, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_checkpoint_and_another_model_is_refused(place):
    assert pretrain(place, "full", "--stop-at", 1).exit_code == 0
    (old,) = (place / "full").glob("checkpoint-*")
    content = old.read_bytes()
    with files_of_at_most(len(content) // 2):
        result = pretrain(place, "full")
    assert result.exit_code == 1
    assert "the checkpoint of step 2, " in result.stderr
    assert f"could not be written to {place / 'full'}" in result.stderr
    assert f"{old.name} is whole; training can go on from there" in result.stderr
    assert old.read_bytes() == content
    keras.utils.set_random_seed(1)
    vocab_size = len(SPECIAL_TOKENS) + len(WORDS)
    build_encoder(BertConfig(vocab_size=vocab_size, **{**TINY, "hidden_size": 8})).save(place / "other.keras")
    refused = pretrain(place, "full", encoder=place / "other.keras")
    assert refused.exit_code == 2
    assert f"{old.name} is of another model: it has" in refused.stderr
    assert old.read_bytes() == content
    went_on = pretrain(place, "full")
    assert went_on.exit_code == 0
    assert [row["step"] for row in curve.read(place / "full" / "curve.jsonl")] == [1, 2, 3]


def test_data_and_models_for_which_the_disk_is_too_small_leave_nothing(place, encoder, tokenizer, tmp_path):
    from bert_models.cli.finetune import _write

    with files_of_at_most(1000):
        given = {**words_of_data(place), "out": tmp_path / "data"}
        result = call("pretrain-data", place / "corpus.txt", *words(given))
        with pytest.raises(
            OSError, match=r"model could not be written \(File too large\). The scores: dev: accuracy 91.5"
        ):
            _write(encoder, tokenizer, {"mean": {"dev": {"accuracy": 91.5}}}, tmp_path / "model")
    assert result.exit_code == 1
    assert "data could not be written (File too large). While it is written" in result.stderr
    assert not list(tmp_path.iterdir())


def test_models_that_find_no_room_are_written_by_the_same_command_later(place, monkeypatch):
    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", full)
        result = pretrain(place, "late")
    assert result.exit_code == 1
    assert "could not be written (No space left on device). The checkpoint is whole: with more room," in result.stderr
    assert sorted(file.suffix for file in (place / "late").iterdir()) == [".jsonl", ".safetensors", ".safetensors"]
    assert pretrain(place, "late").exit_code == 0
    assert places.open_encoder(str(place / "late"), {}).config.hidden_size == 16


def test_a_loss_that_is_nan_stops_with_the_step_and_keeps_the_last_checkpoint(place):
    result = pretrain(place, "nan", "--peak", 1e37, "--warmup-steps", 0, "--global-clipnorm", 0)
    assert result.exit_code == 1
    assert "the loss is nan at step 2: lower the learning rate" in result.stderr
    assert "checkpoint-00000001.safetensors is kept, from which training can go on" in result.stderr
    assert [file.name for file in (place / "nan").glob("*.safetensors")] == ["checkpoint-00000001.safetensors"]


def test_finetuning_that_fails_says_at_which_step_and_leaves_nothing_half(place, monkeypatch):
    given = {**TUNE, "learning-rate": 0.99, "batch-size": 1, "epochs": 1, "clip": 0}
    typed = [str(word).replace("{place}", str(place)) for word in words(given)]
    monkeypatch.setattr(keras.optimizers.Optimizer, "learning_rate", float("nan"))
    result = call("finetune", *typed)
    assert result.exit_code == 1
    assert "seed 0: the loss is nan at step 2: lower the learning rate" in result.stderr
    assert not (place / "new").exists()


# -- through Python --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_runs_before_one_that_fails_are_told(encoder, tokenizer, monkeypatch):
    from bert_models.finetuning import finetune as module

    run = module._run

    def second_fails(model, lesson, splits, recipe, seed, *rest):
        if seed == 1:
            raise FloatingPointError("the loss is nan at step 7.")
        return run(model, lesson, splits, recipe, seed, *rest)

    monkeypatch.setattr(module, "_run", second_fails)
    data = {"train": REVIEWS, "dev": REVIEWS}
    with pytest.raises(
        FloatingPointError, match=r'seed 1: the loss is nan at step 7. Runs before it: seed 0 {"dev": {"a'
    ):
        finetune(encoder, "sst2", data, tokenizer=tokenizer, seeds=(0, 1))


@pytest.mark.parametrize(
    ("made_for", "task", "examples", "message"),
    [
        ("sst2", "mnli", [Example("ak", "bl", 2)], r"not of the task mnli: .* \[batch, 3\], but gives \[batch, 2\]"),
        ("mnli", "sst2", REVIEWS, r"not of the task sst2: it should give \[batch, 2\], but gives \[batch, 3\]"),
        ("squad1", "sst2", REVIEWS, r"should give \[batch, 2\], but gives \[batch, tokens, 2\]"),
        ("sst2", "stsb", [Example("ak", "bl", 2.0)], r"should give \[batch, 1\], but gives \[batch, 2\]"),
    ],
)
def test_models_of_other_tasks_are_refused(encoder, tokenizer, made_for, task, examples, message):
    other = model_for(TASKS[made_for], encoder)
    with pytest.raises(ValueError, match=f"the model is {message}" if "is not" in message else message):
        evaluate(other, task, {"dev": examples}, tokenizer=tokenizer, splits=["dev"])
    with pytest.raises(ValueError, match="the teacher is not of the task"):
        finetune(encoder, task, {"train": examples, "dev": examples}, tokenizer=tokenizer, teacher=other)


def test_a_teacher_must_be_a_model_and_numbers_make_sense(encoder, tokenizer):
    given = {"task": "sst2", "data": {"train": REVIEWS, "dev": REVIEWS}, "tokenizer": tokenizer}
    with pytest.raises(TypeError, match="the teacher must be a Keras model, got str"):
        finetune(encoder, **given, teacher="bert")
    with pytest.raises(ValueError, match="label_share must be from 0 to 1, got 2"):
        finetune(encoder, **given, teacher=model_for(TASKS["sst2"], encoder), label_share=2)


def test_long_rows_are_cut_to_what_the_encoder_takes(encoder, tokenizer):
    assert tokenizer.max_length > encoder.config.max_positions
    long = [Example(" ".join(["ak"] * 60), None, 1), *REVIEWS]
    found = evaluate(model_for(TASKS["sst2"], encoder), "sst2", {"dev": long}, tokenizer=tokenizer)
    cut = [Example(" ".join(["ak"] * 22), None, 1), *REVIEWS]  # and [CLS] and [SEP]
    assert found == evaluate(model_for(TASKS["sst2"], encoder), "sst2", {"dev": cut}, tokenizer=tokenizer)


# -- how failures are told -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("a"), 2),
        (FileNotFoundError("a"), 2),
        (ImportError("a"), 2),
        (PermissionError(13, "no", "a"), 2),
        (OSError(28, "No space left on device"), 1),
        (FloatingPointError("a"), 1),
        (MemoryError(), 1),
        (RuntimeError("a\n\n b"), 1),
        (KeyError("a"), 3),
    ],
)
def test_codes_of_failures(error, code):
    assert Failure(error).exit_code == code
    assert "\n" not in Failure(error).message
    assert Failure(error).message


def test_debug_shows_where(place):
    typed = ["--debug", "evaluate", "--model", place / "no", "--task", "sst2", "--data", place / "sst2"]
    result = CliRunner().invoke(main, [str(word) for word in typed])
    assert "Traceback (most recent call last)" in result.stderr
    assert result.exit_code == 2


@pytest.mark.parametrize(
    ("command", "options", "place_of_it", "told"),
    [
        ("evaluate", LOOK, "bert_models.cli.evaluate.files_of", ["Stopped."]),
        ("pretrain", TRAIN, "bert_models.pretraining.loop.pretrain", [GOES_ON, "Stopped."]),
    ],
)
def test_a_stop_by_hand_is_told(monkeypatch, place, command, options, place_of_it, told):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(place_of_it, stopped)
    typed = [str(word).replace("{place}", str(place)) for word in words(options)]
    result = CliRunner().invoke(main, [command, *typed])
    assert result.exit_code == 130
    assert [line for line in result.stderr.splitlines() if line] == told


def test_what_appeared_at_the_place_while_it_trained_stays(encoder, tokenizer, tmp_path):
    from bert_models.cli.finetune import _written

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "results.json").write_text("of another run")
    with pytest.warns(UserWarning, match=r"model is there by now, .* see .*model-2"):
        found = _written(encoder, tokenizer, {"mean": {"dev": {"accuracy": 91.5}}}, tmp_path / "model")
    assert found["out"] == str(tmp_path / "model-2")
    assert json.loads((tmp_path / "model-2" / "results.json").read_text()) == found
    assert [file.read_text() for file in (tmp_path / "model").iterdir()] == ["of another run"]


def test_what_appears_while_the_model_is_written_stays_too(monkeypatch, encoder, tokenizer, tmp_path):
    from bert_models.cli import finetune as module

    monkeypatch.setattr(module.places, "save_tokenizer", lambda *_: (tmp_path / "model").mkdir(exist_ok=True))
    with pytest.warns(UserWarning, match="is there by now"):
        found = module._written(encoder, tokenizer, {"mean": {"dev": {"accuracy": 91.5}}}, tmp_path / "model")
    assert found["out"] == str(tmp_path / "model-2")
    assert (tmp_path / "model-2" / "model.keras").is_file()
    assert not list((tmp_path / "model").iterdir())


@pytest.mark.parametrize(("there", "overwrite"), [("file", True), ("file", False), ("saved_model.pb", False)])
def test_a_new_folder_leaves_what_is_there(tmp_path, there, overwrite):
    from bert_models.folders import new_folder

    def write():
        with new_folder(tmp_path / "out", overwrite):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / there).write_text("text")

    with pytest.raises(FileExistsError, match="exists"):
        write()
    assert [file.name for file in tmp_path.rglob("*")] == ["out", there]


def test_a_teacher_of_another_vocabulary_is_refused(place, tmp_path):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "model.keras").write_bytes((place / "encoder.keras").read_bytes())
    (tmp_path / "teacher" / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *reversed(WORDS)]) + "\n")
    given = {**TUNE, "teacher": tmp_path / "teacher"}
    result = call("distil", *(str(word).replace("{place}", str(place)) for word in words(given)))
    assert result.exit_code == 2
    assert "has other tokens than the one in use" in result.stderr


def test_no_run_that_converged_is_a_code_of_its_own(place):
    given = {**TUNE, "learning-rate": 1e-9, "batch-size": 2, "epochs": 1, "out": "{place}/chance"}
    typed = [str(word).replace("{place}", str(place)) for word in words(given)]
    result = CliRunner().invoke(main, ["finetune", *typed, "--json"])
    assert result.exit_code == 1
    assert "Warning: sst2, seed 0: this run has not converged" in result.stderr
    assert json.loads(result.stdout)["runs"][0]["trouble"]
    assert (place / "chance" / "model.keras").exists()
