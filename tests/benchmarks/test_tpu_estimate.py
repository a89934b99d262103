"""`tpu_estimate.py` with a compiler of the test: cycles by parameters."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def bench(monkeypatch):
    return faked(monkeypatch)


def faked(monkeypatch):
    """The script with a compiler that needs as many cycles as there are parameters."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import tpu_estimate

    from tncompress.hardware import tpu, tune

    def cycles(programs, device):
        assert device in tpu.CHIPS
        return [10 + sum(s.num_params for s in getattr(p, "specs", ()) or p.feed_forward) for p in programs]

    monkeypatch.setattr(tpu_estimate, "missing", lambda: None)
    monkeypatch.setattr(tpu_estimate, "estimated_cycles", cycles)
    monkeypatch.setattr(tune.tpu, "estimated_cycles", cycles)
    monkeypatch.setattr(tune.tpu, "missing", lambda: None)
    return tpu_estimate


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "tpu.json"
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert faked(monkeypatch).main(["--ranks", "128", "160", "--shapes", "2x8", "--json", str(path)]) == 0
    return json.loads(path.read_text())["results"]


def test_maps(results):
    rows = {(row["form"], row["params"]): row for row in results["maps"]}
    assert rows["dense", 2 * 768 * 3072]["speedup"] == 1
    assert rows["low_rank", 2 * 128 * 3840]["aligned"]
    assert not rows["low_rank", 2 * 160 * 3840]["aligned"]
    assert rows["expand_condense", 1_310_720]["aligned"]  # TN-BERT's own
    assert {row["form"] for row in results["maps"]} == {"dense", "narrow", "low_rank", "expand_condense", "monarch"}


def test_encoders(results):
    rows = {row["encoder"].split(";")[0]: row for row in results["encoders"]}
    assert rows["BERT-base"]["params"] == 109_482_240  # docs of the cards: 110M
    assert rows["TN-BERT"]["params"] == 68_578_560 + 12 * 768  # a bias after Condense
    tuned = [row for name, row in rows.items() if name.startswith("tuned")]
    assert [row["params"] <= limit for row, limit in zip(tuned, (68_578_560, 55e6, 44e6), strict=True)] == [True] * 3
    assert all(row["speedup"] == pytest.approx(rows["BERT-base"]["cycles"] / row["cycles"]) for row in rows.values())


def test_a_picture(bench, results, tmp_path):
    pytest.importorskip("matplotlib")
    import tpu_plot

    tpu_plot.picture(str(tmp_path / "a.svg"), results, 128)
    tpu_plot.picture(str(tmp_path / "b.svg"), results, 128)
    assert (tmp_path / "a.svg").read_text() == (tmp_path / "b.svg").read_text()
    assert (
        "low_rank, multiples of 128" in (tmp_path / "a.svg").read_text() or (tmp_path / "a.svg").stat().st_size > 5000
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "100"], "--tokens is a multiple of 128, got 100"),
        (["--ranks", "0"], "--ranks are between 1 and 767, got 0"),
        (["--shapes", "8"], "a shape is batch x tokens, e.g. 8x128, got '8'"),
        (["--device", "tpu-v9"], "invalid choice: 'tpu-v9'"),
    ],
)
def test_wrong_arguments(bench, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        bench.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_without_a_compiler(bench, monkeypatch, capsys):
    monkeypatch.setattr(bench, "missing", lambda: "The TPU compiler needs libtpu.")
    assert bench.main(["--no-encoder"]) == 1
    assert "needs libtpu" in capsys.readouterr().err
