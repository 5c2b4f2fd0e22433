# The front door. `make demo` and `make test` set up what they need on their first run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format run migrate bench openapi docs clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/'

setup: $(READY) ## Make the virtual environment and install everything (once)

# torch first and alone: resolved together with the rest, pip may prefer another build of it.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $$(grep -E '^(torch|numpy)==' constraints.txt)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY) ## Start the service and watch a model learn and forget over HTTP (KEEP=1 leaves it running)
	$(BIN)/python -m examples.demo $(if $(KEEP),--keep)

test: $(READY) ## Run every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile

check: $(READY) ## Format, lint, types and tests: what CI runs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: $(READY) ## Format and sort imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

run: $(READY) ## Start the service in ./palimpsest-data
	$(BIN)/palimpsest serve

migrate: $(READY) ## Bring the database to the newest schema
	$(BIN)/palimpsest db upgrade

openapi: $(READY) ## Write docs/openapi.json from the code
	$(BIN)/python -m docs.generate openapi

docs: $(READY) ## Write docs/methods.md from the registry of methods
	$(BIN)/python -m docs.generate methods

bench: $(READY) ## Run every benchmark: make bench DATA=DIR
	@test -n "$(DATA)" || { echo "make bench DATA=DIR, the folder that holds the data sets"; exit 2; }
	for one in incremental heads solve growth few_shot blurry samples exact forget_service; do \
		$(BIN)/python -m benchmarks.$$one --data "$(DATA)" || exit 1; \
	done
	$(BIN)/python -m benchmarks.service

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
