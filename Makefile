# make run | make test | make slow | make test-fake-device | make faults | make lint
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: install run test test-units test-commands slow test-fake-device faults lint

install: $(VENV)/.installed

# Python 3.12 and newer: RecBole without the dependencies it pins and cannot have there.
$(VENV)/.installed: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' \
		&& $(BIN)/pip install --quiet --disable-pip-version-check --no-deps recbole==1.2.1 || true
	$(BIN)/python -c 'import recbole_diffusion.compat'
	touch $@

run: install
	$(BIN)/recbole-diffusion run --model=DiffDiv --dataset=ml-100k --examples=5

# Two halves side by side, one thread each.
test: install
	$(MAKE) --jobs=2 --output-sync=target test-units test-commands

test-units: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/unit tests/models

test-commands: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/integration tests/faults

# Do the models learn, are two runs the same, whole commands.
slow: install
	$(BIN)/python -m pytest -m slow --ignore=tests/faults

# As on a machine with a GPU, which this one need not have (tests/fake_device.py).
test-fake-device: install
	$(BIN)/python -m pytest --fake-device

# Kills and signals at every moment of training; the fast tests of faults run with `make test`.
faults: install
	$(BIN)/python -m pytest -m slow tests/faults

# Python 3.12 and newer cannot have all that RecBole asks for (see above): pip check would always complain there.
lint: install
	$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' || $(BIN)/python -m pip check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
