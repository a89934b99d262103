"""`import tncompress` is light; its names are there when asked for."""

import json
import subprocess
import sys

import pytest

import tncompress

HEAVY = ["keras", "tensorflow", "jax", "torch", "scipy", "rich", "tensornetwork", "opt_einsum"]


def loaded_after(code):
    """Which of HEAVY a fresh interpreter has loaded after `code`."""
    code = f"import json, sys\n{code}\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    return json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))


def test_the_import_loads_nothing_heavy():
    assert loaded_after("import tncompress") == []


def test_planning_and_counting_load_nothing_heavy():
    code = "from tncompress import FORMS, Moments, Spec, contract, cost, fit, plan, to_dense\n"
    code += "cost(next(iter(FORMS['low_rank'].candidates(8, 8, 32))))"
    assert loaded_after(code) == []


def test_dir_holds_the_public_names():
    assert set(tncompress.__all__) <= set(dir(tncompress))
    assert "dir" not in dir(tncompress)


def test_every_name_resolves():
    for name in tncompress.__all__:
        value = getattr(tncompress, name)
        assert value is not None
        assert getattr(tncompress, name) is value


def test_a_wrong_name():
    with pytest.raises(AttributeError, match="'tncompress' has no attribute 'compress'"):
        tncompress.compress  # noqa: B018
