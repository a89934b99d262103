"""The commands: what they tell is what the library computes; limits and mistakes end as they should."""

import errno
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from cli import TEXTS, as_json, done, run, write_bert, write_stack, write_texts, write_vectors
from click.shell_completion import BashComplete
from encoders import batch_of, encoder_of, randomised

import tncompress
from bert_models import PRESETS, param_counts
from bert_models.checkpoints.loading import load as load_bert
from tncompress.cli import main
from tncompress.cli.app import Output
from tncompress.cli.compare import differences
from tncompress.cli.models import find
from tncompress.cli.timing import time_models
from tncompress.forms import FORMS

COMMANDS = ("bench", "compare", "compress", "count", "export", "forms", "plan", "report")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Files: `bert` with a vocabulary, `stack.keras`, `small.keras` made of it, `texts.txt`, `x.npy`."""
    folder = tmp_path_factory.mktemp("cli")
    write_bert(folder / "bert")
    stack = write_stack(folder / "stack.keras")
    write_texts(folder / "texts.txt")
    write_vectors(folder / "x.npy")
    tncompress.replace_dense(tncompress.load(stack), keep=0.5).save(folder / "small.keras")
    return folder


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """The same, within an empty folder where results go."""
    monkeypatch.chdir(tmp_path)
    return place


# -- count -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_count_of_a_preset(preset):
    found = as_json("count", preset)
    assert found["params"] == param_counts(PRESETS[preset].config).encoder
    for key in ("params", "bytes", "flops"):
        sums = [sum(part[key] or 0 for part in found[parts]) for parts in ("layers", "kinds")]
        assert sums == [found[key]] * 2


def test_count_of_a_preset_loads_neither_keras_nor_tensorflow():
    code = """
import sys
from tncompress.cli import main
try:
    main(["count", "bert_en_uncased_L-24_H-1024_A-16", "--json"], prog_name="tncompress")
finally:
    import time
    heavy = [name for name in ("keras", "tensorflow", "jax", "torch") if name in sys.modules]
    print(heavy, time.process_time(), file=sys.stderr)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    loaded, seconds = told.split("] ")
    assert loaded == "["
    assert float(seconds) < 3


def test_count_of_files_is_that_of_the_model(here):
    encoder = load_bert(here / "bert")
    small = tncompress.replace_dense(encoder, keep=0.5, include="feed_forward")
    small.save("small.keras")
    encoder.save("encoder.keras")
    described, whole, compressed = (as_json("count", name) for name in (here / "bert", "encoder.keras", "small.keras"))
    assert described["params"] == whole["params"] == encoder.count_params()
    assert compressed["params"] == small.count_params()
    assert compressed["bytes"] == 4 * small.count_params()
    rows = {row.layer: row for row in tncompress.report(small).rows}
    for layer in compressed["layers"]:
        if layer["kind"] == "network":
            assert layer["flops"] == rows[layer["layer"]].flops_after


def test_bytes_are_those_of_the_dtypes():
    kinds = ("float16", "mixed_bfloat16", "float64")
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(8, dtype=kind) for kind in kinds)])
    model.layers[1].quantize("int8")
    rows = sys.modules["tncompress.cli.count"].counted(model)
    assert [row.bytes for row in rows] == [sum(np.asarray(w).nbytes for w in layer.weights) for layer in model.layers]


# -- plan ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ["--keep", "0.4"],
        ["--keep", "0.5", "--form", "kronecker", "--form", "low_rank"],
        ["--params", "700", "--allocation", "global"],
        ["--keep", "0.6", "--form", "narrow", "--form", "low_rank", "--objective", "outputs", "--calibration", "x.npy"],
        ["--keep", "0.5", "--device", "tpu-v5e"],
    ],
    ids=lambda options: " ".join(options[:6]),
)
def test_compress_does_what_plan_says(here, options):
    options = [here / "x.npy" if option == "x.npy" else option for option in options]
    before = (here / "stack.keras").read_bytes()
    expected = as_json("plan", here / "stack.keras", *options, "--out", "recipe.json")
    assert (here / "stack.keras").read_bytes() == before
    found = as_json("compress", here / "stack.keras", "out.keras", *options)
    assert found["params_after"] == expected["params_after"] == tncompress.load("out.keras").count_params()
    assert found["recipe"] == expected["recipe"] == json.loads(Path("recipe.json").read_text())
    for row, other in zip(found["rows"], expected["rows"], strict=True):
        assert [row[key] for key in ("layer", "form", "sizes", "flops_after")] == [
            other[key] for key in ("layer", "form", "sizes", "flops_after")
        ]


def test_the_loss_that_plan_tells_is_that_of_the_fit(here):
    expected = as_json("plan", here / "stack.keras", "--keep", "0.4")
    found = as_json("compress", here / "stack.keras", "weights.keras", "--keep", "0.4")
    for row, other in zip(found["rows"], expected["rows"], strict=True):
        assert other["loss"] == pytest.approx(row["weight_error"] ** 2, rel=1e-4)
    told = done("plan", here / "stack.keras", "--keep", "0.4", "--overwrite").stdout
    assert all(f"{row['loss'] ** 0.5:.3g}" in told for row in expected["rows"])
    calibrated = ["--keep", "0.4", "--calibration", here / "x.npy", "--objective", "outputs"]
    expected = as_json("plan", here / "stack.keras", *calibrated, "--overwrite")
    found = as_json("compress", here / "stack.keras", "objective.keras", *calibrated)
    assert expected["predicted_loss"] == pytest.approx(found["predicted_loss"], rel=1e-3)


def test_all_numbers_of_tokens_count(here):
    options = ["--device", "tpu-v5e", "--tokens", "8", "--tokens", "2048"]
    assert as_json("plan", here / "stack.keras", *options)["tokens"] == [8, 2048]


def test_a_recipe_is_written_and_taken(here):
    done("plan", here / "stack.keras", "--keep", "0.3")
    expected = as_json("compress", here / "stack.keras", "a.keras", "--keep", "0.3")
    assert as_json("compress", here / "stack.keras", "b.keras", "--recipe", "stack.recipe.json") == {
        **expected,
        "file": "b.keras",
        "file_bytes": Path("b.keras").stat().st_size,
    }


# -- compress, on text -------------------------------------------------------------------------------


def test_compress_and_compare_on_text(here):
    options = ["--keep", "0.5", "--include", "feed_forward", "--form", "low_rank", "--form", "narrow"]
    options += ["--calibration", here / "texts.txt", "--objective", "sentence_embedding", "--refit"]
    result = done("compress", here / "bert", "small.keras", *options)
    assert "--tokenizer" in result.stderr
    told = run("compare", "small.keras", "small.keras", "--text", here / "texts.txt")
    assert told.exit_code == 2
    assert "give --tokenizer" in told.stderr
    for tokenizer in (here / "bert", here / "bert" / "tokenizer.json"):
        same = as_json("compare", "small.keras", "small.keras", "--text", here / "texts.txt", "--tokenizer", tokenizer)
        assert all(row["largest"] == 0 and row["cosine"] == pytest.approx(1) for row in same["outputs"])
    found = as_json("compare", here / "bert", "small.keras", "--text", here / "texts.txt")
    assert found["b"]["params"] < found["a"]["params"]
    assert found["b"]["file_bytes"] == Path("small.keras").stat().st_size
    cosines = {row["output"]: row["cosine"] for row in found["outputs"]}
    assert cosines["sentence_embedding"] == pytest.approx(_mean_cosine(here, "small.keras"), abs=1e-5)
    limits = [("--max-difference", "1e-9"), ("--min-cosine", "0.99999999")]
    for limit in limits:
        told = run("compare", here / "bert", "small.keras", "--text", here / "texts.txt", *limit)
        assert told.exit_code == 1
        assert f"{limit[0]} {limit[1].replace('1e-9', '1e-09').replace('0.99999999', '1')} is not met" in told.stderr


def _mean_cosine(here, small):
    """By `bert_models.embed`, which shares nothing with `compare`."""
    from bert_models import embed, load_tokenizer

    texts = (here / "texts.txt").read_text().splitlines()
    tokenizer = load_tokenizer(here / "bert")
    one, other = (embed(m, tokenizer, texts) for m in (load_bert(here / "bert"), tncompress.load(small)))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(np.mean(np.sum(one * other, axis=1) / norms))


def test_differences_leave_padding_out():
    lengths = [2, 6, 3]
    x = batch_of(lengths, 6)
    models = [encoder_of("dense"), randomised(encoder_of("dense"), seed=1)]
    rows = {row.output: row for row in differences(models, [x])}
    one, other = ([model(x)["sequence_output"][k][:n] for k, n in enumerate(lengths)] for model in models)
    means = [np.array([np.mean(text, axis=0) for text in side]) for side in (one, other)]
    tokens = [np.concatenate(side) for side in (one, other)]
    for name, (a, b) in {"sequence_output": tokens, "sentence_embedding": means}.items():
        cosine = np.mean(np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))
        wanted = [np.abs(a - b).max(), np.linalg.norm(a - b) / np.linalg.norm(a), cosine]
        assert [rows[name].largest, rows[name].relative, rows[name].cosine] == pytest.approx(wanted, rel=1e-4)


def test_a_model_that_gives_nan_is_like_no_other(here):
    broken = tncompress.load(here / "stack.keras")
    broken.layers[-1].bias.assign(np.full(16, np.nan))
    broken.save("nan.keras")
    pair = ["compare", here / "stack.keras", "nan.keras"]
    assert as_json(*pair)["outputs"] == [{"output": "output", "largest": None, "relative": None, "cosine": None}]
    assert "nan" in done(*pair).stdout
    for limit in (["--max-difference", "1"], ["--min-cosine", "0.5"]):
        result = run(*pair, *limit)
        assert (result.exit_code, limit[0] in result.stderr) == (1, True)


def test_single_numbers_have_no_cosine(here):
    """It would be the fraction of equal signs."""
    import keras

    write_stack(Path("narrow.keras"), (16, 8, 1))
    single = tncompress.load("narrow.keras")
    both = keras.Model(single.inputs, {"one": single.outputs[0], "many": single.layers[0].output})
    both.save("both.keras")
    (row,) = as_json("compare", "narrow.keras", "narrow.keras")["outputs"]
    assert (row["largest"], row["cosine"]) == (0, None)
    cosines = {row["output"]: row["cosine"] for row in as_json("compare", "both.keras", "both.keras")["outputs"]}
    assert (cosines["one"], cosines["many"]) == (None, pytest.approx(1))
    result = run("compare", "narrow.keras", "narrow.keras", "--min-cosine", "0.5")
    assert (result.exit_code, "--min-cosine is for outputs of two numbers and more" in result.stderr) == (2, True)
    done("compare", "both.keras", "both.keras", "--min-cosine", "0.5")


def test_models_without_vectors_of_floats_cannot_be_compared():
    model = SimpleNamespace(name="whole", predict_on_batch=lambda x: x.astype("int32"))
    with pytest.raises(ValueError, match="no outputs of floating-point vectors"):
        differences([model, model], [np.ones((2, 16))])


def test_bytes_on_disk_are_those_of_the_weights_that_are_read(here, tmp_path):
    folder = write_bert(tmp_path / "bert")
    for name in ("pytorch_model.bin", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x" * 1000)
    assert find(str(folder)).file_bytes == (folder / "model.safetensors").stat().st_size


# -- limits: exit code 1 -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["plan"], ["compress", "out.keras"]], ids=lambda command: command[0])
@pytest.mark.parametrize("limit", [["--params", "40"], ["--flops", "10"]])
def test_a_limit_that_cannot_be_met(here, command, limit, tmp_path):
    result = run(command[0], here / "stack.keras", *command[1:], *limit)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_measured_loss_above_the_limit(here, monkeypatch):
    options = ["--max-loss", "0.2", "--calibration", here / "x.npy", "--objective", "outputs"]
    monkeypatch.setattr("tncompress.conversion.probe.Probe.changed", lambda *_: 0.9)
    result = run("compress", here / "stack.keras", "out.keras", *options)
    assert result.exit_code == 1
    assert "--max-loss 0.2 is not met: it came to 0.9" in result.stderr
    assert tncompress.load("out.keras").count_params() > 0


def test_a_narrow_layer_without_room_leaves_less_to_the_others(here):
    """It fits no network within its share of that limit, so it stays as it is, with all of its 200."""
    write_stack(Path("narrow.keras"), (100, 100, 2))
    found = as_json("compress", "narrow.keras", "out.keras", "--params", "4000")
    assert 3700 < found["params_after"] <= 4000


def test_limits_that_count_are_told_to_the_last(here, monkeypatch):
    monkeypatch.setattr("keras.Model.count_params", lambda _: 4102)
    from tncompress.cli.compress import LimitError, _check_limit

    small = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    with pytest.raises(LimitError, match=r"^--params 4000 is not met: it came to 4,102. The model was saved.$"):
        _check_limit({"recipe": None, "budget": tncompress.Budget(params=4000)}, small, tncompress.report(small))


# -- mistakes: exit code 2, one sentence -----------------------------------------------------------------

WRONG = [
    (["count", "nothing"], "no file, folder or checkpoint 'nothing'"),
    (["count", "tnbert"], "nearest is tn_bert"),
    (["count", "{here}/texts.txt"], "no .keras one"),
    (["count", "tn_bert", "--length", "0"], "seq_length must be from 1"),
    (["count", "tn_bert", "--config", "nonsense"], "--config describes a checkpoint, which tn_bert (preset) is not"),
    (["count", "{here}/stack.keras", "--length", "-5"], "--length is for attention"),
    (["compare", "{here}/stack.keras", "{here}/stack.keras", "--config", "nonsense"], "(keras) are not; leave it"),
    (["report", "{here}/stack.keras", "--recipe", "{here}/stack.keras"], "belongs to MODEL itself"),
    (["report", "{here}/stack.keras", "--recipe", "{here}/stack.keras", "--overwrite"], "belongs to MODEL itself"),
    (["report", "{here}/stack.keras", "--html", "{here}/texts.txt"], "texts.txt exists; choose another name"),
    (["report", "{here}/stack.keras", "--html", "a", "--recipe", "a"], "--html and --recipe are the same file"),
    (["report", "{here}/stack.keras", "--html", "{here}/a", "--recipe", "{here}/bert/../a"], "are the same file"),
    (["plan", "{here}/bert", "--out", "{here}/bert/config.json", "--overwrite"], "belongs to MODEL itself"),
    (["plan", "{here}/stack.keras", "--out", "{here}/texts.txt"], "texts.txt exists; choose another name"),
    (["plan", "{here}/stack.keras", "--keep", "1.5"], "keep is the fraction"),
    (["plan", "{here}/stack.keras", "--keep", "0.5", "--params", "9"], "--keep and --params are two limits"),
    (["plan", "{here}/stack.keras", "--form", "svd"], "no form 'svd'; choose from block_diagonal"),
    (["plan", "{here}/stack.keras", "--device", "tpu"], "no device 'tpu'; choose from tpu-v2"),
    (["plan", "{here}/stack.keras", "--include", "nosuch"], "matches no layer"),
    (["plan", "{here}/stack.keras", "--max-loss", "0.1"], "give --objective, and"),
    (["plan", "{here}/stack.keras", "--out", "no/such/folder.json"], "folder no/such does not exist"),
    (["plan", "{here}/stack.keras", "--calibration", "nothing.txt"], "no file nothing.txt"),
    (["plan", "{here}/stack.keras", "--calibration", "{here}/x.npy", "--most", "0"], "--most is at least 1, got 0"),
    (["plan", "{here}/stack.keras", "--column", "a"], "give these with --calibration"),
    (["plan", "{here}/stack.keras", "--calibration", "{here}/texts.txt"], "give it arrays"),
    (["plan", "{here}/bert", "--calibration", "{here}/stack.keras"], "not UTF-8"),
    (["plan", "{here}/bert", "--calibration", "{here}/texts.txt", "--column", "a"], "--column is for .csv"),
    (["plan", "{here}/bert", "--calibration", "{here}/texts.txt", "--tokenizer", "no.txt"], "No file 'no.txt'"),
    (["plan", "{here}/bert", "--recipe", "no.json"], "no recipe no.json"),
    (["plan", "{here}/bert", "--recipe", "no.json", "--keep", "0.5"], "leave --keep away"),
    (["compress", "{here}/stack.keras", "out.h5"], "OUT is a .keras file"),
    (["compress", "{here}/stack.keras", "{here}/stack.keras"], "belongs to MODEL itself"),
    (["compress", "{here}/stack.keras", "{here}/small.keras"], "exists; choose another name"),
    (["compress", "{here}/stack.keras", "out.keras", "--refit"], "give --calibration"),
    (["compress", "{here}/small.keras", "out.keras"], "a network already"),
    (["compare", "{here}/stack.keras", "{here}/bert"], "does not take this input"),
    (["compare", "{here}/bert", "{here}/bert", "--length", "99"], "16 positions"),
    (["compare", "{here}/stack.keras", "{here}/stack.keras", "--column", "a"], "give these with --text"),
    (["compare", "{here}/stack.keras"], "Missing argument 'B'"),
    (["bench", "{here}/stack.keras", "--batch", "0"], "--batch is at least 1"),
    (["bench", "{here}/stack.keras", "--length", "0"], "--length is from 1 to"),
    (["export", "{here}/stack.keras", "out", "--to", "pickle"], "no format 'pickle'; choose from savedmodel"),
    (["report", "{here}/stack.keras", "--config", "tn_bert"], "--config describes a checkpoint"),
    (["forms", "svd"], "no form 'svd'"),
    (["forms", "--keep", "2"], "--keep is in"),
    (["plan", "{here}/stack.keras", "--form", "lowrank"], "tucker, narrow. Did you mean low_rank?"),
    (["export", "{here}/stack.keras", "out", "--to", "tflite"], "huggingface. Did you mean litert?"),
    (["nosuch"], "No such command 'nosuch'"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_mistakes(here, arguments, message, tmp_path):
    result = run(*(argument.replace("{here}", str(here)) for argument in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert len([line for line in result.stderr.splitlines() if not line.startswith("Warning")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file(here, tmp_path):
    whole = (here / "stack.keras").read_bytes()
    (tmp_path / "half.keras").write_bytes(whole[: len(whole) // 2])
    result = run("report", "half.keras")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "half.keras" in result.stderr


def test_a_bug_is_told_apart(here, monkeypatch):
    # The package has the command under the name of its module.
    monkeypatch.setattr(sys.modules["tncompress.cli.count"], "counted", lambda _: {}["key"])
    result = run("count", here / "stack.keras")
    assert result.exit_code == 3
    assert "TNCOMPRESS_TRACEBACK=1 shows where" in result.stderr
    monkeypatch.setenv("TNCOMPRESS_TRACEBACK", "1")
    assert isinstance(run("count", here / "stack.keras").exception, KeyError)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (OSError(28, "No space left on device"), 1, "A file could not be written (No space left on device)."),
        (OSError(28, "No space left on device", "a.keras"), 1, "a.keras could not be written (No space"),
        (RuntimeError("a"), 1, "a (RuntimeError; TNCOMPRESS_TRACEBACK=1 shows where)"),
        (MemoryError(), 1, "MemoryError"),
        (ValueError("a"), 2, "a (ValueError; TNCOMPRESS_TRACEBACK=1 shows where)"),
        (PermissionError(13, "no", "a"), 2, "[Errno 13] no: 'a'"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a"), 2, "File name too long: 'a'"),
        (
            ModuleNotFoundError("x", name="none"),
            2,
            "KERAS_BACKEND is none, which is not installed: pip install none, or",
        ),
        (ModuleNotFoundError("No module named 'a'", name="a"), 2, "No module named 'a' (ModuleNotFoundError; TNCOMPR"),
        (KeyError("a"), 3, "This is a bug: TNCOMPRESS_TRACEBACK=1 shows where."),
    ],
)
def test_codes_of_failures(here, monkeypatch, error, code, message):
    def fails(_):
        raise error

    monkeypatch.setattr(sys.modules["tncompress.cli.count"], "counted", fails)
    monkeypatch.setenv("KERAS_BACKEND", "none")
    result = run("count", here / "stack.keras")
    assert (result.exit_code, len(result.stderr.splitlines())) == (code, 1)
    assert message in result.stderr


def test_what_no_raise_of_ours_put_into_words_shows_where_it_comes_from(here, monkeypatch):
    monkeypatch.setattr(sys.modules["tncompress.cli.count"], "counted", lambda _: 5)  # a mistake in count's own frame
    result = run("count", here / "stack.keras")
    assert result.exit_code == 2
    assert "'int' object is not iterable (TypeError; TNCOMPRESS_TRACEBACK=1 shows where)" in result.stderr
    assert "TRACEBACK" not in run("count", here / "stack.keras", "--length", "9").stderr


def test_a_full_disk_is_told_with_the_file(here, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    for call in (["compress", here / "stack.keras", "out.keras"], ["plan", here / "stack.keras", "--out", "out.json"]):
        result = run(*call)
        assert result.exit_code == 1
        assert result.stderr.splitlines()[-1].startswith("Error: out.")
        assert "could not be written (No space left on device)." in result.stderr


def test_both_command_lines_say_the_same_codes():
    from bert_models.cli import main as other

    for program in (main, other):
        text = " ".join(program.get_help(program.make_context("x", [], resilient_parsing=True)).split())
        assert all(
            part in text for part in ("0, done; 1,", "; 2, something given is wrong,", "; 3, a bug; 130, it was")
        )


# -- what all commands do --------------------------------------------------------------------------------


def _calls(here):
    return {
        "bench": ["bench", here / "small.keras", "--batch", "2"],
        "compare": ["compare", here / "stack.keras", here / "small.keras"],
        "compress": ["compress", here / "stack.keras", "out.keras", "--overwrite"],
        "count": ["count", here / "small.keras"],
        "forms": ["forms"],
        "plan": ["plan", here / "stack.keras", "--overwrite"],
        "report": ["report", here / "small.keras"],
    }


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "export"])
def test_tables_json_and_quiet(here, command, monkeypatch):
    monkeypatch.setattr("tncompress.cli.timing.SLICE", 1e-6)
    call = _calls(here)[command]
    assert len(done(*call).stdout.splitlines()) > 3
    assert isinstance(as_json(*call), dict)
    assert done(*call, "--quiet").output == ""


def test_quiet_keeps_warnings_and_bars_back(here):
    call = ["plan", here / "stack.keras", "--calibration", here / "x.npy", "--most", "10", "--overwrite"]
    assert "Warning: 2 layers saw fewer vectors than they have features" in done(*call).stderr
    assert done(*call, "--quiet").output == ""
    assert [Output(json=False, quiet=quiet).progress for quiet in (False, True)] == [None, False]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command):
    text = done(command, "--help").stdout
    assert "Example: tncompress" in text
    assert command in done("--help").stdout


def test_version():
    assert tncompress.__version__ in done("--version").stdout


def test_without_a_command_there_is_help():
    assert "Commands:" in run().stdout


def test_bench_of_a_compressed_model(here, monkeypatch):
    monkeypatch.setattr("tncompress.cli.timing.SLICE", 1e-6)
    found = as_json("bench", here / "small.keras", "--batch", "2")
    report = tncompress.report(tncompress.load(here / "small.keras"))
    assert [layer for row in found["layers"] for layer in row["layers"]] == [row.layer for row in report.replaced]
    assert min(found["seconds"], found["seconds_dense"]) > 0
    assert as_json("bench", here / "stack.keras", "--batch", "2")["seconds_dense"] is None
    assert "ms for 2 rows" in done("bench", here / "stack.keras", "--batch", "2").stdout
    assert "ms for 2 x 4 tokens" in done("bench", here / "bert", "--batch", "2", "--length", "4").stdout


@pytest.mark.parametrize("seconds", [2.0, 0.5])
def test_bench_says_what_to_do_about_layers_that_lose(here, monkeypatch, seconds):
    from tncompress.conversion import timing

    monkeypatch.setattr("tncompress.cli.timing.SLICE", 1e-6)
    monkeypatch.setattr(timing, "time_layers", lambda *_: {"dense": 1.0, "network": seconds})
    told = done("bench", here / "small.keras", "--batch", "8").stdout
    advice = "2 layers are slower than dense at 1,024 tokens: compress with --device this --tokens 1024."
    assert (advice in told) == (seconds > 1)


@pytest.mark.parametrize(("options", "begun"), [([], True), (["--quiet"], False)])
def test_a_refit_tells_that_it_begins_where_there_is_no_bar(here, options, begun):
    call = ["compress", here / "stack.keras", "out.keras", "--calibration", here / "x.npy", "--refit", *options]
    told = done(*call).stderr
    assert told == "Compressing, then refitting up to 2 layers, one after the other; this can take minutes.\n" * begun


def test_times_are_told_of_what_they_are(here, monkeypatch):
    """Networks by a clock of their own, models as if they took a second for every parameter."""
    kinds, seen = {True: 2.0, False: 6.0}, []

    def times(layers, tokens):
        seen.append(tokens)
        return {name: kinds[isinstance(layer, tncompress.TNDense)] for name, layer in layers.items()}

    monkeypatch.setattr("tncompress.conversion.timing.time_layers", times)
    monkeypatch.setattr(
        "tncompress.cli.timing.time_models", lambda models, _: {k: 1.0 * m.count_params() for k, m in models.items()}
    )
    small, dense = (tncompress.load(here / name).count_params() for name in ("small.keras", "stack.keras"))
    found = as_json("bench", here / "small.keras", "--batch", "2", "--length", "9")
    assert (found["seconds"], found["seconds_dense"]) == (small, dense)
    assert {(row["dense"], row["network"]) for row in found["layers"]} == {(6.0, 2.0)}
    assert set(seen) == {18}
    told = done("bench", here / "small.keras").stdout
    assert "3.00x" in told
    assert f"with dense layers: {dense / small:.2f}x" in told
    found = as_json("compare", here / "stack.keras", here / "small.keras")
    assert (found["a"]["seconds"], found["b"]["seconds"]) == (dense, small)


def test_times_of_models_are_medians_of_single_passes(monkeypatch):
    """By a clock that a pass moves on by what it is to take; some passes meet something that delays them."""
    now, passes = [0.0], []

    def model(seconds):
        def predict(batch):
            passes.append(batch)
            now[0] += seconds * (10 if len(passes) % 9 == 0 else 1)

        return SimpleNamespace(predict_on_batch=predict)

    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0])
    monkeypatch.setattr("tncompress.cli.timing.time", clock)
    assert time_models({"a": model(0.02), "b": model(0.1)}, "x") == pytest.approx({"a": 0.02, "b": 0.1})
    assert set(passes) == {"x"}


def test_report_is_that_of_the_library(here):
    found = as_json("report", here / "small.keras", "--recipe", "recipe.json")
    report = tncompress.report(tncompress.load(here / "small.keras"))
    assert found == json.loads(report.to_json())
    assert json.loads(Path("recipe.json").read_text()) == report.recipe


def test_report_as_a_page(here):
    done("report", here / "small.keras", "--html", "page.html")
    page = Path("page.html").read_text()
    assert "<html" in page[:1000]
    report = tncompress.report(tncompress.load(here / "small.keras"))
    assert report.replaced
    assert all(row.layer in page and f"{row.params_after:,}" in page for row in report.replaced)


def test_forms_shows_all(here):
    rows = as_json("forms", "--in", "64", "--out", "128", "--keep", "0.5")["forms"]
    assert {row["form"] for row in rows} == {*FORMS, "narrow"}
    assert all(row["params"] <= 64 * 128 / 2 for row in rows if row["params"])
    assert "block_tt: Qiu et al. 2024" in done("forms", "block_tt").stdout


# -- export ------------------------------------------------------------------------------------------------


def test_export_hands_its_options_on(here, monkeypatch):
    import tncompress.exporting.export as exporting

    seen = {}

    def stand_in(model, path, to, **options):
        seen.update(options, model=model.name, to=to)
        return SimpleNamespace(
            version="1", num_bytes=5, max_difference=0.0, mean_cosine=1.0, to_config=lambda: {"num_bytes": 5}
        )

    monkeypatch.setattr(exporting, "export", stand_in)
    call = ["export", here / "bert", "out.tflite", "--to", "litert", "--int8", "--text", here / "texts.txt"]
    assert as_json(*call)["num_bytes"] == 5
    assert (seen["to"], seen["int8"], seen["overwrite"]) == ("litert", True, False)
    assert seen["check"]["input_mask"].any(axis=1).all()
    assert seen["check"]["input_mask"].shape[1] == max(len(text.split()) for text in TEXTS) + 2


def test_export(here):
    from keras import backend

    if backend.backend() != "tensorflow":
        pytest.skip("models are exported by TensorFlow")
    found = as_json("export", here / "small.keras", "served", "--to", "savedmodel")
    assert found["max_difference"] < 1e-5
    assert run("export", here / "small.keras", "served", "--to", "savedmodel").exit_code == 2


# -- interruptions -------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_the_old_file(here, monkeypatch, tmp_path):
    done("compress", here / "stack.keras", "out.keras", "--keep", "0.3")
    before = (tmp_path / "out.keras").read_bytes()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    result = run("compress", here / "stack.keras", "out.keras", "--overwrite")
    assert result.exit_code == 130
    assert (tmp_path / "out.keras").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["out.keras"]


def test_the_log_of_tensorflow_is_kept_back():
    code = """
import os, sys
from tncompress.cli.native_log import without_native_log
with without_native_log():
    os.write(2, b"I0000 00:00:1795280290.8 8587 port.cc:153] oneDNN\\nkept\\n")
    print("told", file=sys.stderr)
os.write(2, b"after\\n")
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert sorted(told.splitlines()[:2]) == ["kept", "told"]
    assert told.splitlines()[2:] == ["after"]


def test_last_words_before_an_abort_are_told():
    code = """
import os
from tncompress.cli.native_log import without_native_log
with without_native_log():
    os.write(2, b"I0000 00:00:1795280290.8 8587 port.cc:153] oneDNN\\nlast words\\n")
    os.abort()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode
    assert result.stderr == "last words\n"


# -- completion ----------------------------------------------------------------------------------------------


def completed(*args, incomplete=""):
    complete = BashComplete(main, {}, "tncompress", "_TNCOMPRESS_COMPLETE")
    return [item.value for item in complete.get_completions(list(args), incomplete)]


def test_completion():
    assert set(completed()) == set(COMMANDS)
    assert completed("count", incomplete="tn_") == ["tn_bert", "tn_"]
    assert "small_bert/bert_en_uncased_L-2_H-128_A-2" in completed("plan", incomplete="small_")
    assert completed("plan", "tn_bert", "--form", incomplete="low") == ["low_rank"]
    assert completed("plan", "tn_bert", "--device", incomplete="tpu-v5") == ["tpu-v5e", "tpu-v5p"]
    assert completed("export", "tn_bert", "x", "--to", incomplete="on") == ["onnx"]
