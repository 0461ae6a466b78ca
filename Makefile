# Spiral's commands. A user needs Python 3.11 or newer and make; Node, which builds the page, comes from a Python wheel.
#
#   make PYTHON=python3.12 run     another interpreter
#   make run ARGS="--data fashion" arguments for `spiral demo`
#   make test ARGS="-k wire"       arguments for pytest
#   make test WORKERS=0            one test at a time, in one process

PYTHON ?= python3
ARGS ?=
# Tests wait more than they compute, for processes that start and pages that draw, so there is one worker more than
# cores; above four they get into each other's way, since most of them start three processes themselves.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))')

VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
BENCH_STAMP := $(VENV)/.installed-bench
PAGE_STAMP := $(VENV)/.page
PAGE := spiral_server/page/index.html
PINS := pyproject.toml constraints.txt

# pip builds the package in an environment of its own; these pin what is installed there as well (two names, because
# the meaning of the first one was split in pip 25.3). As an address, because pip splits these values at blanks.
BLANK := $(subst ,, )
export PIP_CONSTRAINT := file://$(subst $(BLANK),%20,$(CURDIR))/constraints.txt
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP_INSTALL := $(BIN)/python -m pip install -c constraints.txt

.DEFAULT_GOAL := start
.DELETE_ON_ERROR:
.PHONY: start help run test check bench soak screens generate wheel clean page browser

start: $(RUN_STAMP) page
	@$(MAKE) --no-print-directory help
	@echo
	@echo "Spiral is installed in $(VENV). Next: make run"

help: ## Show this list
	@echo "Spiral: watch and steer a training run from the browser."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(RUN_STAMP) page ## Train the demo and open the cockpit in the browser (ARGS="--data fashion")
	@$(BIN)/spiral demo $(ARGS)

test: $(DEV_STAMP) page browser ## Run every test, those that drive a browser included
	@$(BIN)/python -m pytest -m "not soak" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(DEV_STAMP) ## Lint, format, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p spiral_core -p spiral_server
	$(BIN)/lint-imports --no-logo

bench: $(BENCH_STAMP) page ## Run every script in tests/benchmarks; all run, even if one misses its budget
	@log=$$(mktemp -d) && trap 'rm -rf "$$log"' EXIT && : >"$$log/missed"; \
	for script in tests/benchmarks/[!_]*.py; do \
	  [ -e "$$script" ] || { echo "spiral: there is no script in tests/benchmarks" >&2; exit 1; }; \
	  echo "== $$script"; \
	  { $(BIN)/python -u "$$script" $(ARGS) || echo "$$script: exit status $$?" >>"$$log/missed"; } | tee "$$log/lines"; \
	  grep MISSED "$$log/lines" >>"$$log/missed" || true; \
	done; \
	[ ! -s "$$log/missed" ] || { echo "== missed"; cat "$$log/missed"; exit 1; }

soak: $(DEV_STAMP) page browser ## Run the long tests that `make test` leaves out
	@$(BIN)/python -m pytest -m soak $(ARGS)

screens: $(DEV_STAMP) page browser ## Take the pictures in docs/screens
	@mkdir -p docs/screens
	@$(BIN)/python tests/e2e/screens.py $(ARGS)

generate: $(DEV_STAMP) ## Write the TypeScript types and docs/protocol.md from the message structs
	@$(BIN)/python -m spiral_core.wire.schema --write

wheel: $(DEV_STAMP) ## Build the wheel and the sdist into dist/
	@$(BIN)/python -m hatchling build -d dist

clean: ## Delete what was built (keeps .venv and your runs)
	rm -rf build dist frontend/dist spiral_server/page .schemathesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find spiral_core spiral_server tests frontend -name node_modules -prune -o -name __pycache__ -exec rm -rf {} +

# The environment ---------------------------------------------------------------------------------------------------

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "spiral: '$(PYTHON)' was not found. Install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "spiral: needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "        Name another one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "spiral: making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "spiral: could not make a virtual environment. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }

$(RUN_STAMP): $(PINS) | $(BIN)/python
	@echo "spiral: installing the packages and building the page; the first time takes a few minutes"
	@$(PIP_INSTALL) -e .
	@touch $(RUN_STAMP) $(PAGE_STAMP)

$(DEV_STAMP): $(PINS) | $(BIN)/python
	@echo "spiral: installing the packages and the test tools and building the page; the first time takes a few minutes"
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $(RUN_STAMP) $(DEV_STAMP) $(PAGE_STAMP)

$(BENCH_STAMP): $(PINS) | $(BIN)/python
	@echo "spiral: installing the packages, the test tools and the peers of the benchmarks"
	@$(PIP_INSTALL) -e '.[dev,bench]'
	@touch $(RUN_STAMP) $(DEV_STAMP) $(BENCH_STAMP) $(PAGE_STAMP)

# The build hook skips a page that is fresh, so this asks for a build whenever a source is newer than the last one.
page: | $(BIN)/python
	@changed=$$(find frontend -name node_modules -prune -o -name dist -prune -o -type f -newer $(PAGE_STAMP) -print 2>&1 | head -1); \
	if [ -n "$$changed" ] || [ ! -e $(PAGE) ]; then \
	  echo "spiral: building the page"; \
	  if [ -e $(DEV_STAMP) ]; then alone=--no-build-isolation; unset PIP_BUILD_CONSTRAINT; else alone=; fi; \
	  $(PIP_INSTALL) --quiet --no-deps $$alone -e . && touch $(PAGE_STAMP); \
	fi

browser:
	@if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "spiral: installing Chromium, which the tests drive"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; \
	else \
	  echo "spiral: the tests drive a real browser, and no Chromium was found." >&2; \
	  echo "        Install it and run again. On Debian: sudo apt-get install chromium" >&2; exit 1; \
	fi
