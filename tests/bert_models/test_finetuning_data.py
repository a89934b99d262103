"""The files of GLUE and SQuAD: small ones in their standard layouts, and what is wrong with bad ones."""

import json
from dataclasses import replace

import pytest

from bert_models.finetuning.reading import files_of, read_examples, read_task
from bert_models.finetuning.tasks import TASKS, Example, task_of

# First lines of the files in GLUE's zip, and one row with the example that it is.
MNLI_START = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
MNLI_TRAIN = [*MNLI_START.split(), "sentence1", "sentence2", "label1", "gold_label"]
MNLI_DEV = [*MNLI_TRAIN[:-1], "label2", "label3", "label4", "label5", "gold_label"]
STSB = ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2", "score"]
NLI = ["index", "sentence1", "sentence2", "label"]
LAYOUTS = {
    "cola": (None, ["gj04", "0", "*", 'He said "no.'], Example('He said "no.', None, 0)),
    "sst2": (["sentence", "label"], ["a 'fine' film ", "1"], Example("a 'fine' film ", None, 1)),
    "mrpc": (
        ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
        ["1", "702876", "702977", '"Amrozi', 'Amrozi" said'],
        Example('"Amrozi', 'Amrozi" said', 1),
    ),
    "stsb": (
        STSB,
        ["0", "main", "MSR", "2012", "0001", "none", "none", "A man.", "A plane.", "3.800"],
        Example("A man.", "A plane.", 3.8),
    ),
    "qqp": (
        ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
        ["133273", "213221", "213222", "How?", "Why?", "0"],
        Example("How?", "Why?", 0),
    ),
    "mnli": (MNLI_TRAIN, [*"12345678", "One.", "Two.", "neutral", "neutral"], Example("One.", "Two.", 2)),
    "qnli": (["index", "question", "sentence", "label"], ["0", "Who?", "He.", "entailment"], Example("Who?", "He.", 0)),
    "rte": (NLI, ["0", "It is.", "It is not.", "not_entailment"], Example("It is.", "It is not.", 1)),
    "wnli": (
        NLI,
        ["0", "I stuck a pin.", "The carrot had a hole.", "1"],
        Example("I stuck a pin.", "The carrot had a hole.", 1),
    ),
}


def table(heading, *rows, end="\n"):
    return end.join("\t".join(row) for row in ([heading] if heading else []) + list(rows)) + end


@pytest.fixture
def glue(tmp_path):
    """All nine folders, with one example a split."""
    for name, (heading, row, _) in LAYOUTS.items():
        (tmp_path / TASKS[name].folder).mkdir()
        for split, file in TASKS[name].splits.items():
            if name == "mnli" and split != "train":
                heading, row = MNLI_DEV, [*row[:10], *["neutral"] * 6]
            (tmp_path / TASKS[name].folder / file).write_text(table(heading, row), "utf-8")
    return tmp_path


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("place", ["all of GLUE", "the task's own"])
def test_the_standard_layout_is_read(glue, name, place):
    found = read_task(name, glue if place == "all of GLUE" else glue / TASKS[name].folder)
    wanted = ["train", "dev_matched", "dev_mismatched"] if name == "mnli" else ["train", "dev"]
    assert found == {split: [LAYOUTS[name][2]] for split in wanted}


def test_marks_line_ends_and_a_byte_order_mark_are_no_part_of_the_text(tmp_path):
    file = tmp_path / "train.tsv"
    rows = [["a\x85b\u2028c", "1"], ['"', "0"], ['x"y', "1"]]
    file.write_bytes(b"\xef\xbb\xbf" + table(["sentence", "label"], *rows, end="\r\n").encode())
    found = read_examples(TASKS["sst2"], file)
    assert [(example.first, example.label) for example in found] == [(text, int(label)) for text, label in rows]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sst2", "text\tlabel\nx\t1\n", r"line 1: a heading with the columns sentence, label .* no 'sentence' in text"),
        ("sst2", "sentence\tlabel\nx\t1\ny\t2\n", r"line 3: label must be one of 0, 1, got '2'"),
        ("sst2", "sentence\tlabel\nx\t1\ty\n", r"line 2: 2 columns \(sentence, label\) were expected, got 3"),
        ("sst2", "sentence\tlabel\n", r"has no examples"),
        ("sst2", "", r"line 1: a heading"),
        ("cola", "a\t1\t\tx\nb\t-1\t\ty\n", r"line 2: label must be one of 0, 1, got '-1'"),
        ("cola", "a\t1\tx\n", r"line 1: 4 columns"),
        ("rte", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tneutral\n", r"entailment, not_entailment, got 'neutral'"),
        *(
            (
                "stsb",
                table(STSB, [*"0123456", "a", "b", score]),
                rf"line 2: score must be a number from 0.0 to 5.0, got '{score}'",
            )
            for score in ("5.1", "-0.5", "nan", "inf", "good", "")
        ),
    ],
)
def test_bad_tables_are_refused_with_file_and_line(tmp_path, name, text, message):
    file = tmp_path / "train.tsv"
    file.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        read_examples(TASKS[name], file)
    assert str(caught.value).startswith(str(file))


def test_what_is_not_utf8_is_told_by_its_byte(tmp_path):
    file = tmp_path / "train.tsv"
    file.write_bytes(b"sentence\tlabel\ncaf\xe9\t1\n")
    with pytest.raises(ValueError, match=r"train\.tsv: byte 18 \(line 2\) is not UTF-8"):
        read_examples(TASKS["sst2"], file)


def test_broken_lines_of_qqp_are_left_out_with_a_warning(tmp_path):
    heading, row, example = LAYOUTS["qqp"]
    file = tmp_path / "train.tsv"
    file.write_text(table(heading, row, row[:4], [row[4], row[5]], row), "utf-8")
    with pytest.warns(UserWarning, match="2 lines have not 6 columns and are left out, the first is line 3"):
        assert read_examples(TASKS["qqp"], file) == [example] * 2


def test_a_folder_without_files_says_which_are_expected(tmp_path):
    (tmp_path / "MNLI").mkdir()
    (tmp_path / "MNLI" / "train.tsv").write_text("")
    with pytest.raises(FileNotFoundError) as caught:
        read_task("mnli", tmp_path)
    message = str(caught.value)
    assert "train.tsv, dev_matched.tsv, dev_mismatched.tsv" in message
    assert message.endswith("missing: dev_matched.tsv, dev_mismatched.tsv.")
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        read_task("cola", tmp_path / "nothing")
    with pytest.raises(ValueError, match="mnli has no split 'dev'; it has train, dev_matched, dev_mismatched"):
        files_of(TASKS["mnli"], tmp_path, ["dev"])


def test_a_task_of_ones_own_is_a_value(tmp_path):
    task = replace(TASKS["sst2"], columns=("sentence", "label"), splits={"dev": "reviews.tsv"})
    (tmp_path / "reviews.tsv").write_text("fine\t1\n", "utf-8")
    assert read_task(task, tmp_path) == {"dev": [Example("fine", None, 1)]}
    assert task_of(task) is task


# -- SQuAD -----------------------------------------------------------------------------------------

CONTEXT = "Norman conquest: 1066, by William."
GOOD = {"id": "q1", "question": "When?", "answers": [{"answer_start": 17, "text": "1066"}]}
NONE = {"id": "q2", "question": "Why?", "is_impossible": True, "answers": [], "plausible_answers": []}


def squad(*questions, context=CONTEXT):
    return {"version": "x", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}


def written(folder, name, data, split="dev"):
    for file in TASKS[name].splits.values():
        (folder / file).write_text(json.dumps(squad(GOOD)), "utf-8")
    (folder / TASKS[name].splits[split]).write_text(data if isinstance(data, str) else json.dumps(data), "utf-8")
    return folder


def test_both_versions_are_read(tmp_path):
    (question,) = read_task("squad1", written(tmp_path, "squad1", squad(GOOD)))["train"]
    assert (question.id, question.question, question.context, question.answers) == (
        "q1",
        "When?",
        CONTEXT,
        ((17, "1066"),),
    )
    second = read_task("squad2", written(tmp_path, "squad2", squad(GOOD, NONE)))["dev"]
    assert [len(question.answers) for question in second] == [1, 0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", r"line 1: this is not JSON"),
        ('{"data": ' * 100_000, r"nested too deeply"),
        ("[]", r"an object with 'data', of type list"),
        ({"data": [{}]}, r"article 0: an object with 'paragraphs'"),
        (squad(GOOD, context=None), r"article 0, paragraph 0: an object with 'context', of type str"),
        (squad({**GOOD, "answers": None}), r"question 'q1': an object with 'answers'"),
        (
            squad({**GOOD, "answers": [{"answer_start": 18, "text": "1066"}]}),
            r"'1066' should start at character 18, .*'066,'",
        ),
        (squad({**GOOD, "answers": [{"answer_start": -1, "text": "1066"}]}), r"should start at character -1"),
        (squad(GOOD, GOOD), r"the id 'q1' occurs twice"),
        (squad(), r"has no questions"),
        (squad(NONE), r"question 'q2' has no answer; is this version 2.0\?"),
    ],
)
def test_bad_questions_are_refused_with_their_place(tmp_path, data, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_task("squad1", written(tmp_path, "squad1", data, "train"))
    assert "train-v1.1.json" in str(caught.value)
