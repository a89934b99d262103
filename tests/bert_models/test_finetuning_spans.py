"""SQuAD's windows, and answers from logits: against a search through everything, and back from perfect logits."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert_models.finetuning.spans import answers, spans
from bert_models.finetuning.squad import Question
from bert_models.finetuning.tasks import TASKS
from bert_models.text.tokenize import Tokenizer
from bert_models.text.vocabulary import to_backend

VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "##s", "the", "sat", "on", "e", ".", ",", "10", "##66"]
TOKENIZER = Tokenizer(to_backend(VOCAB, {}), max_length=64)
TASK = replace(TASKS["squad2"], max_length=13, stride=3, max_question=3, max_answer=4, best=3)

words = st.sampled_from(["cat", "cats", "The", "sat.", "on,", "1066", "é", "other", "  ", "CATS,cats"])
texts = st.lists(words, min_size=1, max_size=25).map(" ".join).filter(str.strip)


@st.composite
def questions(draw, most=3):
    """Questions with an answer that begins and ends with a word of the text, or none."""
    found = []
    for number in range(draw(st.integers(1, most))):
        text = draw(texts)
        offsets = [(a, b) for a, b in TOKENIZER.backend.encode(text, add_special_tokens=False).offsets]
        given_answers = ()
        if offsets and draw(st.booleans()):
            first = draw(st.integers(0, len(offsets) - 1))
            last = draw(st.integers(first, min(first + TASK.max_answer, len(offsets)) - 1))
            start = offsets[first][0]
            given_answers = ((start, text[start : offsets[last][1]]),)
        found.append(Question(str(number), draw(texts), text, given_answers))
    return found


def token_ids(text):
    return TOKENIZER.backend.encode(text, add_special_tokens=False).ids


@given(questions())
def test_windows_are_rows_that_cover_the_text(asked):
    found = spans(TASK, TOKENIZER, asked)
    for index, question in enumerate(asked):
        windows = [
            (w, ids, types)
            for w, ids, types in zip(found.windows, found.rows.ids, found.rows.types, strict=True)
            if w.question == index
        ]
        text, covered = token_ids(question.context), set()
        for number, (window, ids, types) in enumerate(windows):
            piece = text[window.first : window.first + window.count]
            assert ids.tolist() == [2, *token_ids(question.question)[:3], 3, *piece, 3]
            assert types.tolist() == [0] * window.prefix + [1] * (len(piece) + 1)
            assert len(ids) <= TASK.max_length
            assert window.first == number * TASK.stride
            assert len(ids) == TASK.max_length or number == len(windows) - 1  # full but for the last
            covered |= set(range(window.first, window.first + window.count))
        assert covered == set(range(len(text)))


@given(questions())
def test_perfect_logits_give_the_answer_back(asked):
    found = spans(TASK, TOKENIZER, asked)
    logits = []
    for ids, (start, end) in zip(found.rows.ids, found.rows.targets, strict=True):
        both = np.full((len(ids), 2), -9.0)
        both[start, 0] = both[end, 1] = 9.0
        logits.append(both)
    for question, index, answer in zip(asked, range(len(asked)), answers(TASK, found, logits), strict=True):
        targets = [t for w, t in zip(found.windows, found.rows.targets.tolist(), strict=True) if w.question == index]
        if question.answers and [0, 0] not in targets:  # each window has it
            assert answer.text == question.answers[0][1]
            assert answer.no_answer < 0
        if not question.answers:
            assert targets == [[0, 0]] * len(targets)
            assert answer.no_answer > 0


@given(questions(), st.integers(0, 2**32 - 1))
def test_the_answer_is_the_best_of_all_that_are_allowed(asked, seed):
    """All windows, starts and ends one by one; `best` is so high that it cuts nothing."""
    task = replace(TASK, best=99)
    found = spans(task, TOKENIZER, asked)
    draw = np.random.default_rng(seed)
    logits = [draw.normal(size=(len(ids) + 2, 2)) for ids in found.rows.ids]  # two more for padding
    for index, (question, answer) in enumerate(zip(asked, answers(task, found, logits), strict=True)):
        own = [(w, both) for w, both in zip(found.windows, logits, strict=True) if w.question == index]
        candidates = []
        for window, both in own:
            for start in range(window.count):
                token = window.first + start
                holders = [w for w, _ in own if w.first <= token < w.first + w.count]
                if window != max(holders, key=lambda w: context_of(token, w)):  # the first of equals
                    continue
                for end in range(start, min(start + task.max_answer, window.count)):
                    score = both[window.prefix + start, 0] + both[window.prefix + end, 1]
                    candidates.append((score, window.first + start, window.first + end))
        if not candidates:
            assert answer.text == ""
            continue
        score, start, end = max(candidates)
        offsets = TOKENIZER.backend.encode(question.context, add_special_tokens=False).offsets
        assert answer.text == question.context[offsets[start][0] : offsets[end][1]]
        assert answer.no_answer == pytest.approx(min(both[0].sum() for _, both in own) - score)


def context_of(token, window):
    """BERT's score: the smaller number of tokens on both sides, and a hundredth of the window's length."""
    return min(token - window.first, window.first + window.count - 1 - token) + 0.01 * window.count


def test_only_the_likeliest_starts_and_ends_are_combined():
    asked = [Question("a", "cat", "cat sat on the cat", ())]
    task = replace(TASK, best=1)
    found = spans(task, TOKENIZER, asked)
    logits = np.zeros((len(found.rows.ids[0]), 2))
    logits[3 + 1, 0], logits[3, 1] = 5, 5  # the best end is before the best start
    assert answers(task, found, [logits])[0].text == ""


def test_a_question_that_is_cut_and_a_text_without_words():
    found = spans(TASK, TOKENIZER, [Question("a", "cat cat cat cat", "  ", ())])
    assert found.rows.ids[0].tolist() == [2, 5, 5, 5, 3, 3]
    assert answers(TASK, found, [np.ones((6, 2))])[0].text == ""


def test_an_answer_inside_a_word_is_the_words_tokens():
    text = "on 1066, cats"
    found = spans(TASK, TOKENIZER, [Question("a", "on", text, ((text.index("066"), "066"),))])
    assert found.rows.targets.tolist() == [[3 + 1, 3 + 2]]  # 10 ##66


@pytest.mark.parametrize(
    ("first", "last", "windows"), [(0, 0, [0]), (8, 8, [0, 1]), (9, 9, [1]), (8, 9, [1]), (2, 3, [0])]
)
def test_a_window_has_an_answer_only_if_it_has_all_of_it(first, last, windows):
    text = " ".join(["cat"] * 12)  # nine of them in the first window, tokens 3 to 11 in the second
    answer = (4 * first, text[4 * first : 4 * last + 3])
    targets = spans(TASK, TOKENIZER, [Question("a", "on", text, (answer,))]).rows.targets.tolist()
    assert targets == [
        [3 + first - start, 3 + last - start] if n in windows else [0, 0] for n, start in enumerate((0, 3))
    ]


def test_windows_without_room_are_refused():
    with pytest.raises(ValueError, match="windows of 6 tokens have no room for a question of 3"):
        spans(replace(TASK, max_length=6), TOKENIZER, [Question("a", "cat", "cat", ())])
