# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
# Needed: Python >= 3.11, git, make. Everything else is installed or built, once, on first use.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.complete
WORKERS ?= 6
LOCK   := $(BIN)/uv pip compile --quiet --no-config --universal --generate-hashes --custom-compile-command "make lock"

# Python starts many times below: where a shell forbids bytecode, each start would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- Set-up ---------------------------------------------------------------------------------------

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Stoker needs Python 3.11 or later; name one: make PYTHON=python3.12 …")'
	@echo "Installing the Python packages into $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: setup
setup: $(STAMP) ## Install the Python packages into .venv

.PHONY: testbed
testbed: $(STAMP) ## Build the control plane's programs (15 minutes once, then cached)
	@$(BIN)/python -m testbed build

# --- Try it ---------------------------------------------------------------------------------------

.PHONY: demo
demo: testbed ## Watch a fleet follow a recorded production trace, on a real control plane
	@$(BIN)/python -m testbed demo

.PHONY: shell
shell: testbed ## A shell with kubectl on a fresh control plane with GPU nodes and the operator
	@$(BIN)/python -m testbed shell

# --- Tests ----------------------------------------------------------------------------------------

.PHONY: test
test: testbed ## Run every test, those on the real control plane included
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadscope $(ARGS)

.PHONY: test-fast
test-fast: $(STAMP) ## Run the tests that need no control plane
	@$(BIN)/python -m pytest --numprocesses auto --hypothesis-profile fast \
	  -m "not cluster and not built and not slow" $(ARGS)

.PHONY: guards
guards: testbed ## Take out one guard after the other, and see the tests fail that are about it (two hours)
	@$(BIN)/python hack/guards.py --workers 3 $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style, format, types and import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

.PHONY: verify
verify: generate ## Check that generated files are what their sources say
	@git diff --exit-code -- crds manifests charts docs/reference || \
	  { echo "Generated files drifted from their sources: run 'make generate' and commit." >&2; exit 1; }
	@test -z "$$(git ls-files --others --exclude-standard -- crds manifests charts docs/reference)" || \
	  { echo "Generated files are not checked in:" >&2; git ls-files --others --exclude-standard -- crds manifests charts docs/reference >&2; exit 1; }

# --- Benchmarks -----------------------------------------------------------------------------------

.PHONY: bench-controller
bench-controller: testbed ## Measure the operator with up to 10,000 ModelDeployments
	@$(BIN)/python -m bench.controller $(ARGS)

.PHONY: bench-replay
bench-replay: $(STAMP) ## Replay recorded traffic at autoscalers, in virtual time
	@$(BIN)/python -m bench.replay $(ARGS)

.PHONY: bench-peers
bench-peers: testbed ## Measure Stoker beside the real KEDA: 40 minutes, and 10 once to build KEDA
	@$(BIN)/python -m bench.peers all $(ARGS)

# --- Housekeeping ---------------------------------------------------------------------------------

.PHONY: format
format: $(STAMP) ## Format the code
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .

.PHONY: generate
generate: testbed ## Write the CRD, the rendered manifests and the reference pages from their sources
	@$(BIN)/stoker generate
	@$(BIN)/python hack/render.py

.PHONY: lock
lock: $(STAMP) ## Resolve the dependencies anew into requirements/*.txt
	@$(LOCK) --python-version 3.13 pyproject.toml -o requirements/operator.txt
	@$(LOCK) --python-version 3.13 requirements/build.in -o requirements/build.txt
	@$(LOCK) --python-version 3.11 pyproject.toml requirements/build.in --group pyproject.toml:dev -o requirements/dev.txt

.PHONY: clean
clean: ## Remove what was installed and produced here (the cache of built programs stays)
	@rm -rf $(VENV) out dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
