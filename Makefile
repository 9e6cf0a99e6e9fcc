# Two commands need nothing but python3 and a package index: `make run` and `make test`.
PYTHON ?= python3
# One environment for each Python version, so that `make test PYTHON=python3.12` leaves `.venv` alone.
VENV := $(if $(filter python3,$(PYTHON)),.venv,.venv-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
# A pyenv shim answers only for the active version; any installed one will do.
PYENV := $(or $(PYENV_ROOT),$(HOME)/.pyenv)
INTERPRETER = $(if $(shell $(PYTHON) --version 2>/dev/null),$(PYTHON),$(firstword $(wildcard $(PYENV)/versions/*/bin/$(PYTHON)) $(PYTHON)))

.PHONY: run test lint clean

run: $(VENV)/installed
	$(BIN)/python -m experiments.fusion train --dataset ml-100k --preset improved

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile

$(VENV)/installed: pyproject.toml
	$(INTERPRETER) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,tensorboard]'
	touch $@

lint: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-* runs build *.egg-info
