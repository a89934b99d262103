"""The benchmark of pretraining, on a made-up text."""

import argparse
import json
import random
import sys

import pytest

ARTICLE = " = {title} = \n \n {text} \n"


def wikitext(articles=20, seed=0):
    source = random.Random(seed)
    words = [a + b for a in "bcdfgk" for b in ("alo", "ina", "erum", "osti")]
    sentences = (" ".join(source.choices(words, k=9)) + " , a <unk> @-@ b . " for _ in range(20 * articles))
    return "\n".join(
        ARTICLE.format(title=f"Title {i}", text="".join(next(sentences) for _ in range(20))) for i in range(articles)
    )


def test_split_holds_every_tenth_document_out():
    import pretrain_small

    parts = pretrain_small.split(wikitext(20))
    titles = {name: [line for line in text.splitlines() if line.startswith("= ")] for name, text in parts.items()}
    assert titles["held_out"] == ["= Title 9 =", "= Title 19 ="]
    assert len(titles["train"]) == 18
    assert not any(marker in text for text in parts.values() for marker in ("<unk>", "@"))


def test_table_takes_the_last_line_that_is_in_time():
    import pretrain_small

    def rows(seconds, accuracies):
        fields = enumerate(zip(seconds, accuracies, strict=True), start=1)
        return [{"step": 10 * i, "cpu_seconds": s, "val_masked_accuracy": a} for i, (s, a) in fields]

    curves = {"TN-BERT": rows([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]), "dense": rows([2, 4], [0.15, 0.25])}
    lines = pretrain_small.table(curves, points=2).splitlines()
    assert lines[0] == "| | TN-BERT, held out | dense, held out |"
    assert lines[2:] == [
        "| step 10 | 10.00 % | 15.00 % |",
        "| step 20 | 20.00 % | 25.00 % |",
        "| 2 CPU seconds | 20.00 % | 15.00 % |",
        "| 4 CPU seconds | 40.00 % | 25.00 % |",
    ]


@pytest.mark.slow
def test_runs_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    import pretrain_small

    (tmp_path / "text").write_text(wikitext())
    arguments = f"--text {tmp_path}/text --folder {tmp_path}/run --json {tmp_path}/out.json --minutes 0.02 --every 5"
    arguments += " --layers 1 --hidden 128 --vocabulary 90 --batch 4 --length 16"
    monkeypatch.setattr(sys, "argv", ["pretrain_small.py", *arguments.split()])
    pretrain_small.main()
    first = json.loads((tmp_path / "out.json").read_text())["results"]
    assert 0 < first["unigram"] < 0.5
    assert all(rows[-1]["cpu_seconds"] >= 1.2 for rows in first["curves"].values())
    assert first["parameters"]["TN-BERT"] < first["parameters"]["dense"]
    assert all(cost["cpu_ms"] > 0 and cost["megabytes"] > 0 for cost in first["step"].values())
    assert "| step" in capsys.readouterr().out
    pretrain_small.main()
    assert json.loads((tmp_path / "out.json").read_text())["results"]["curves"] == first["curves"]


def test_unigram_counts_masked_tokens(tmp_path):
    import pretrain_small

    (tmp_path / "text").write_text(wikitext(10))
    args = argparse.Namespace(text=str(tmp_path / "text"), vocabulary=60, length=16)
    data = pretrain_small.prepared(args, tmp_path / "data")
    # A made-up sentence has one full stop in fourteen tokens and more; nothing is as frequent as single letters.
    assert 0.03 < pretrain_small.unigram(data) < 0.4
