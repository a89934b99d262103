"""What fuzzing starts from, what it found, and changes at random; and a minute of the real thing, where atheris is."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import target
from fuzz.found import FOUND
from fuzz.targets import TARGETS

CHANGES = 40  # inputs by chance for each target; of those that load whole models fewer
SECONDS = 4  # of fuzzing for each


def spoilt(data: bytes, size: int) -> bytes:
    """In the place of libFuzzer's own changes."""
    draw = random.Random(len(data))
    at = draw.randrange(len(data) + 1)
    return (data[:at] + bytes([draw.randrange(256)]) + data[at + draw.randrange(3) :])[:size]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_inputs_are_read_or_refused_in_a_sentence(name):
    fuzzed = TARGETS[name]
    seeds = [*fuzzed.seeds(), *FOUND.get(name, ())]
    for seed in seeds:
        fuzzed.run(seed)
    for number in range(CHANGES // 4 if name in ("keras", "preset") else CHANGES):
        seed = seeds[number % len(seeds)]
        change = fuzzed.mutator
        fuzzed.run(change(seed, 1 << 16, number, spoilt) if change else spoilt(seed, 1 << 16))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_is_read_by_one_reader_or_more(name, monkeypatch):
    entered, refused = [], []
    within = target.within
    monkeypatch.setattr(target, "within", lambda **limits: (entered.append(limits), within(**limits))[1])
    monkeypatch.setattr(target, "check_sentence", refused.append)
    for seed in TARGETS[name].seeds():
        entered.clear(), refused.clear()
        TARGETS[name].run(seed)
        assert len(refused) < max(1, len(entered)), refused


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing_finds_nothing(name, tmp_path):
    pytest.importorskip("atheris", reason="coverage-guided fuzzing needs atheris, which is installed by hand")
    command = [sys.executable, str(Path(__file__).with_name("run.py")), name, "--seconds", str(SECONDS)]
    done = subprocess.run([*command, "--corpus", str(tmp_path)], capture_output=True, timeout=300, check=False)
    told = done.stderr.decode("utf-8", "replace")
    assert "number_of_executed_units" in told, told[-2000:]
    assert not [file.name for file in tmp_path.glob("*-*") if not file.name.startswith("seed-")], told[-2000:]
