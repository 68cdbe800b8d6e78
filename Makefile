# `make demo` and `make test` need Python 3.11 and nothing else; everything goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all check docs bench bench-selection submit setup clean

setup: $(VENV)/.ready

# One locked set of versions for everybody: constraints.txt.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
	touch $@

demo: setup ## the main job on a generated pool, with a report to open
	$(BIN)/seral demo --out runs/demo

# Two workers, each with a Ray of its own; the tests of a file stay together, for they share pools and models.
test: setup ## the tests but the long ones; those that need ../shared run when it is there
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow"

test-all: setup ## the long tests: lost nodes, crash points, browsers, databases, object stores
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m slow

check: setup ## what a change must pass besides the tests
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy

docs: setup ## the pages of docs/ as a site: build/site/index.html (its search needs a server: .venv/bin/mkdocs serve)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: setup ## both sides of every speed claim, measured in one run
	$(BIN)/python -m jobs.bench.throughput

bench-selection: setup ## every strategy against plain definitions and other libraries
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m jobs.bench.selection $(ARGS)

submit: setup ## send one job file to a Ray cluster: make submit JOB=loop ARGS='--config run.yaml' (RAY_ADDRESS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[submit]'
	$(BIN)/seral jobs submit $(JOB) $(ARGS)

clean:
	rm -rf $(VENV) build dist runs data .mypy_cache .ruff_cache .pytest_cache
