"""Bars are shown where somebody looks, on standard error, and change nothing."""

import io
import sys

import pytest
from models import made, vectors

from tncompress import replace_dense
from tncompress.progress import progress_bar


def test_nothing_is_shown_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("tncompress.progress.QUIET_SECONDS", 0.0)
    assert list(progress_bar(range(3), "Working")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_shown_on_standard_error_if_asked_for(capsys):
    assert list(progress_bar(iter("abc"), "Working", total=3, shown=True)) == ["a", "b", "c"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "Working" in err
    assert "3/3" in err


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, True), (60.0, False)])
def test_in_a_terminal_only_long_work_is_shown(monkeypatch, seconds, shown):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("tncompress.progress.QUIET_SECONDS", seconds)
    assert list(progress_bar([1, 2], "Working")) == [1, 2]
    assert ("Working" in screen.getvalue()) == shown
    monkeypatch.setattr("tncompress.progress.QUIET_SECONDS", 0.0)
    assert list(progress_bar([1, 2], "Never", shown=False)) == [1, 2]
    assert "Never" not in screen.getvalue()


def test_stops_when_the_reader_stops(capsys):
    for _ in progress_bar(range(5), "Working", shown=True):
        break
    assert "0/5" in capsys.readouterr().err  # the first was not done
    assert list(progress_bar(range(2), "Working", shown=True)) == [0, 1]


def test_replace_dense_shows_both_bars(capsys):
    replace_dense(made("sequential")[0], calibration=[vectors()], progress=True)
    err = capsys.readouterr().err
    assert "Calibrating" in err
    assert "Fitting" in err
