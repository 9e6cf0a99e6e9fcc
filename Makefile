# Two commands need nothing but python3 and a package index: `make run` and `make test`.
PYTHON ?= python3
# One environment for each Python version, so that `make test PYTHON=python3.12` leaves `.venv` alone.
VENV := $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# A pyenv shim answers only for the active version; any installed one will do.
PYENV := $(or $(PYENV_ROOT),$(HOME)/.pyenv)
INTERPRETER = $(if $(shell $(PYTHON) --version 2>/dev/null),$(PYTHON),$(firstword $(wildcard $(PYENV)/versions/*/bin/$(PYTHON)) $(PYTHON)))

# What tests compile is compiled quickly, but for those marked `bits`, which need what users compile.
BITS = $(shell grep -l 'pytest.mark.bits' tests/test_*.py)
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: run test test-all bench fuzz faults coverage lint clean

run: $(VENV)/installed
	$(BIN)/python -m experiments.fusion train --dataset ml-100k --preset improved

# Five minutes on two quiet cores: lint, the contracts of imports, and a test for every idea.
test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	JREC_COMPILE=quick $(PYTEST) -m 'not bits and not slow'

# The rest as well: several processes, long runs, all README commands, and every bit.
test-all: test
	JREC_COMPILE=quick $(PYTEST) -m 'slow and not bits'
	$(PYTEST) -m bits $(BITS)

# Every benchmark beside its peers, at small sizes; BENCH='--only retrieval-exact' runs one.
# A GPU's PyTorch is a large download: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu avoids it.
BENCH ?=
bench: .venv-bench/installed
	.venv-bench/bin/python -m experiments.benchmarks $(BENCH)

.venv-bench/installed: pyproject.toml
	$(INTERPRETER) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

# Thousands of changed inputs for every reader; `make fuzz FUZZ=1000` sets how many each.
FUZZ ?= 400
fuzz: $(VENV)/installed
	JREC_FUZZ=$(FUZZ) JREC_FUZZ_COUNTS=fuzz.json $(BIN)/python -m pytest tests/test_fuzz.py
	cat fuzz.json

# Kills, full disks and damaged files against a small run; the disk is a tmpfs, which needs root.
faults: $(VENV)/installed
	$(BIN)/python -m tests.faults --out faults

# Lines of jrec/ that the tests and the commands they start run; Python 3.12 counts at little cost.
coverage: $(VENV)/installed
	rm -f .coverage .coverage.*
	COVERAGE_CORE=sysmon $(BIN)/python -m coverage run -m pytest -n 2 --dist loadfile
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --show-missing --skip-covered

$(VENV)/installed: pyproject.toml
	$(INTERPRETER) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -e '.[test,tensorboard]'
	touch $@

lint: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-* runs build *.egg-info
