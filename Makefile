# make run | make test | make lint
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: install run test lint

install: $(VENV)/.installed

# Python 3.12 and newer: RecBole without the dependencies it pins and cannot have there.
$(VENV)/.installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' \
		&& $(BIN)/pip install --quiet --disable-pip-version-check --no-deps recbole==1.2.1 || true
	$(BIN)/python -c 'import recbole_diffusion'
	touch $@

run: install
	$(BIN)/recbole-diffusion run --model=DiffDiv --dataset=ml-100k --examples=5

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
