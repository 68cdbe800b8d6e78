# `make demo` and `make test` need Python 3.11 and nothing else; everything goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all test-release check wheel docs bench bench-selection submit setup lock picture charts audit sbom clean

setup: $(VENV)/.ready

# One locked set of versions for everybody: constraints.txt; requirements.txt has the hashes of their files. Torch has
# none: its file is another one for every kind of processor and accelerator.
$(VENV)/.ready: pyproject.toml constraints.txt requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --no-deps --require-hashes --requirement requirements.txt
	$(INSTALL) --constraint constraints.txt --no-build-isolation --editable '.[demo,dev]'
	touch $@

demo: setup ## the main job on a generated pool, with a report to open
	$(BIN)/seral demo --out runs/demo

# Two workers, each with a Ray of its own; the tests of a file stay together, for they share pools and models.
test: setup ## the tests but the long ones; those that need ../shared run when it is there
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not slow"

test-all: setup ## the long tests: lost nodes, crash points, browsers, databases, object stores
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "slow and not release"

test-release: setup ## before a release: the tutorial, and parts of packages by module
	$(BIN)/python -m pytest -m release

check: setup ## what a change must pass besides the tests
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/ruff check --no-cache .
	$(BIN)/mypy

wheel: setup ## what is installed elsewhere: dist/seral-VERSION-py3-none-any.whl
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

docs: setup ## the pages of docs/ as a site: build/site/index.html (its search needs a server: .venv/bin/mkdocs serve)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: setup ## both sides of every speed claim, measured in one run
	$(BIN)/python -m jobs.bench.throughput

bench-selection: setup ## every strategy against plain definitions and other libraries
	$(INSTALL) --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m jobs.bench.selection $(ARGS)

submit: setup ## send one job to a Ray cluster: make submit JOB=loop ARGS='--config run.yaml' (RAY_ADDRESS)
	$(INSTALL) --constraint constraints.txt --editable '.[submit]'
	$(BIN)/seral jobs submit $(JOB) $(ARGS)

# What seral is built with, and what torch needs of what others do not: torch itself is left out by an override.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11.9 --generate-hashes --no-annotate --no-header \
	--constraint constraints.txt --override build/lock/override.txt --no-emit-package torch \
	--no-emit-package setuptools --no-emit-package httpx2-jsfetch pyproject.toml build/lock/more.txt
lock: setup ## requirements.txt and the image's: the hashes of the versions in constraints.txt
	$(INSTALL) uv
	mkdir -p build/lock
	echo 'torch; sys_platform == "never"' > build/lock/override.txt
	printf '%s\n' hatchling editables filelock fsspec jinja2 networkx sympy typing-extensions > build/lock/more.txt
	$(LOCK) --extra demo --extra dev --output-file requirements.txt
	$(LOCK) --extra submit --extra serve --output-file jobs/cluster/requirements.txt

picture: setup ## the curve of README.md and docs/index.md, from a run: make picture RUN=runs/emodb-frozen
	$(BIN)/seral report $(RUN) --set audio_mb=0 --set map_points=0
	cp $(RUN)/report/learning_curves.png docs/learning-curve.png

CHARTS := platform/seral/report/static/charts
charts: ## the drawing library of reports, from npm by its lock file: one file that needs no eval, and its licences
	mkdir -p build/charts
	cp $(CHARTS)/*.json $(CHARTS)/entry.js build/charts
	cd build/charts && npm ci --no-audit --no-fund && npx esbuild entry.js --bundle --minify --format=iife \
		--global-name=charts --legal-comments=none --metafile=meta.json --outfile=vega.min.js
	cd build/charts && node $(CURDIR)/$(CHARTS)/licences.js meta.json > LICENSES.txt
	cp build/charts/vega.min.js build/charts/LICENSES.txt $(CHARTS)

audit: setup ## known vulnerabilities of what is installed (asks pypi.org)
	$(INSTALL) pip-audit
	$(BIN)/pip-audit --require-hashes --disable-pip --requirement requirements.txt

sbom: setup ## what a release was built and tested with, and its licences: build/sbom.json (CycloneDX)
	$(INSTALL) cyclonedx-bom
	mkdir -p build
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-file build/sbom.json $(BIN)/python

clean:
	rm -rf $(VENV) build dist runs data .mypy_cache .ruff_cache .pytest_cache
