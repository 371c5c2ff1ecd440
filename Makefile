# Variables to set on the command line, e.g. `make env PYTHON=python3.12`:
PYTHON ?= python3
VENV ?= .venv
TORCH_SPEC ?= torch==2.13.0
# Where torch comes from, if not from pip's usual place:
# TORCH_INDEX=https://download.pytorch.org/whl/cpu takes the CPU build, a tenth of the size.
TORCH_INDEX ?=
# Options for pytest, and for the mini-* commands. Many tests wait for servers and browsers, so there is
# a process for each core (four at most), with one thread of torch each.
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile
ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help env test test-slow lint lint-page fmt hooks lock rehearse clean demo serve mini-train mini-evaluate mini-samples

help: ## Say what make can do here
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

env: $(READY) ## Create the environment in .venv, or bring it up to date

# The lock is complete and has hashes. Torch comes alone, since its builds differ; what it needs is
# there by then, but for the libraries of a CUDA build, which its own version pins.
$(READY): pyproject.toml requirements/ci.txt customedit/__init__.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/ci.txt
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH_SPEC)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $@

test: $(READY) ## Run the tests (seconds each; PYTEST_ARGS= for options)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: $(READY) ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: $(READY) lint-page ## Check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The page is served as it is written; only the check of its types comes from npm.
PAGE_CHECKS := tests/page
TSC := $(PAGE_CHECKS)/node_modules/.ready
NPM := $(shell command -v npm)
lint-page: $(if $(NPM),$(TSC)) ## Check the types of the page's JavaScript (where npm is)
	$(if $(NPM),npm --prefix $(PAGE_CHECKS) run --silent check,@echo "lint-page: left out, since npm is missing; install Node.js with npm")

$(TSC): $(PAGE_CHECKS)/package.json $(PAGE_CHECKS)/package-lock.json
	npm --prefix $(PAGE_CHECKS) ci --no-audit --no-fund
	@touch $@

fmt: $(READY) ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

hooks: $(READY) ## Check every commit before it is made (pre-commit)
	$(BIN)/pre-commit install

# For the first 3.11 on Linux; a later one needs no more. Torch stands apart, without hashes: its CPU and CUDA builds differ. UPGRADE=1 takes newer versions.
LOCK_PYTHON := 3.11
LOCK := $(BIN)/uv pip compile --quiet --python-version $(LOCK_PYTHON) --python-platform linux \
	--generate-hashes --no-annotate --no-emit-package torch \
	--custom-compile-command "make lock"
lock: $(READY) ## Renew the locks in requirements/ from pyproject.toml (UPGRADE=1: newest versions)
	$(LOCK) pyproject.toml --extra local --extra dev $(if $(UPGRADE),--upgrade) -o requirements/ci.txt
	$(LOCK) pyproject.toml --extra engine --extra server -c requirements/ci.txt -o requirements/worker.txt
	$(LOCK) pyproject.toml --extra server -c requirements/ci.txt -o requirements/api.txt
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' \
		| $(LOCK) - -c requirements/ci.txt -o requirements/build.txt
	echo "$(TORCH_SPEC)" > requirements/torch.txt

rehearse: $(READY) ## Follow both Dockerfiles without an engine, and run what they make (root on Linux)
	$(BIN)/python deploy/rehearse.py

demo: $(READY) ## Service, concept and edit on this machine, pictures in demo-output/ (KEEP=1 leaves it running)
	$(BIN)/customedit demo $(if $(KEEP),--keep) $(ARGS)

serve: $(READY) ## Run the whole service until Ctrl-C, its data in customedit-data/ (ARGS= for options)
	$(BIN)/customedit serve $(ARGS)

mini-train: $(READY) ## Train the bundled base anew (hours; ARGS= for options)
	$(BIN)/python -m customedit.mini.train $(ARGS)

mini-evaluate: $(READY) ## Measure the bundled base
	$(BIN)/python -m customedit.mini.evaluate $(ARGS)

mini-samples: $(READY) ## Write the bundled sample images anew
	$(BIN)/python -m customedit.mini.samples $(ARGS)

clean: ## Remove caches and builds (keeps the environment and runs/)
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find customedit tests requirements -name __pycache__ -prune -exec rm -rf {} +
