"""The benchmark of the planner: its grid, its judgement, and a run of one round."""

import json

import keras
import pytest


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="times TensorFlow here")
def test_a_short_run(tmp_path, capsys):
    import planner_regret

    path = tmp_path / "found.json"
    planner_regret.main(["--tokens", "256", "--only", "low rank 16", "--rounds", "1", "--json", str(path)])
    (row,) = json.loads(path.read_text())["results"]
    assert row["case"] == "low rank 16"
    assert row["with fold"]["chosen"] == "fewest FLOPs"
    assert row["with fold"]["over dense"] > 1
    assert "with fold: 1 cases" in capsys.readouterr().out


def test_the_grid_has_what_is_asked_for():
    import planner_regret

    grid = list(planner_regret.cases(planner_regret.TOKENS))
    assert len(grid) >= 30
    assert len({(case.name, case.tokens) for case in grid}) == len(grid)
    assert all(case.spec.in_dim == 768 and case.spec.out_dim == 3072 for case in grid)
    assert {len(case.spec.cores) for case in grid if case.name.startswith("MPO")} == {2, 3, 4}


def test_regret_is_time_over_that_of_the_best():
    import planner_regret

    case = next(iter(planner_regret.cases((4096,), "MPO 3 cores, rank 32")))
    seconds = dict.fromkeys(planner_regret.candidates(case.spec, 4096), 3.0)
    seconds |= {planner_regret.FOLDED: 2.0, "fewest FLOPs": 2.5, planner_regret.T3F: 6.0}
    row = planner_regret.judged(case, seconds, "cpu")
    assert row["with fold"]["chosen"] == planner_regret.FOLDED
    assert row["with fold"]["regret"] == 1
    assert row["with fold"]["over t3f"] == 3
    assert row["without fold"]["best"] == "fewest FLOPs"
    assert row["without fold"]["regret"] == seconds[row["without fold"]["chosen"]] / 2.5
    assert "median 3.00, at least 3.00" in planner_regret.summary([row], "with fold")


def test_no_case(capsys):
    import planner_regret

    with pytest.raises(SystemExit, match="no case is named like 'nothing'"):
        planner_regret.main(["--only", "nothing"])
