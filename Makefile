# GNU make. A machine needs Python 3.11 or newer and this; the rest is fetched, pinned by the
# hashes in requirements/*.lock, into .venv. Java 17 and Maven add the real Kafka broker.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
UV_VERSION := 0.13.9

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help demo test kafka bench soak docs manifests tools lint format lock clean

help: ## list the targets
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12
	@echo "ARGS='…' is passed on, PYTHON=… chooses the interpreter for .venv"

demo: $(VENV)/demo.stamp ## restart a service under load in three ways, count what got lost
	@$(BIN)/python -m devtools.demo $(ARGS)

test: lint ## lint, then run every test this machine can run
	@echo "test: pytest"
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --maxschedchunk 1 $(ARGS)

kafka: $(VENV)/demo.stamp ## run a Kafka broker on port 9092 until Ctrl-C
	@$(BIN)/python -m devtools.broker $(ARGS)

bench: $(VENV)/dev.stamp ## measure throughput and latency on this machine
	@$(BIN)/python -m bench $(ARGS)

soak: $(VENV)/dev.stamp ## KILL services at random for ten minutes, count what got lost or repeated
	@$(BIN)/python -m devtools.soak $(ARGS)

docs: $(VENV)/dev.stamp ## write the documentation's tables from the code
	@$(BIN)/python -m devtools.docs

manifests: $(VENV)/dev.stamp ## write what the chart and k8s/ generate from the code
	@$(BIN)/python -m devtools.manifests

tools: ## build helm, kubeconform, kustomize and the linters that `make test` uses (needs Go)
	@$(PYTHON) -m devtools.tools build

lint: $(VENV)/dev.stamp ## ruff (rules, format) and mypy --strict
	@echo "lint: ruff, mypy"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary

format: $(VENV)/dev.stamp ## rewrite the sources the way lint wants them
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format --quiet .

lock: $(BIN)/python ## resolve requirements/*.lock anew (ARGS=--upgrade: to the newest)
	@echo "lock: uv $(UV_VERSION)"
	@$(PIP) install uv==$(UV_VERSION)
	@$(LOCK) --extra dev requirements/build.in -o requirements/dev.lock
	@$(LOCK) --extra demo -c requirements/dev.lock requirements/build.in -o requirements/demo.lock
	@$(LOCK) --extra codecs -c requirements/dev.lock -o requirements/runtime.lock
	@$(LOCK:pyproject.toml=requirements/build.in) -c requirements/dev.lock -o requirements/build.lock

# All agree on versions: dev holds the others, and constrains them. No index, host or
# path of the machine that resolves gets into a lock.
LOCK = $(BIN)/uv pip compile $(ARGS) --quiet --universal --python-version 3.11 --generate-hashes \
	--annotation-style line \
	--no-config --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
	pyproject.toml

clean: ## remove .venv, caches and the fetched broker's classpath
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- the environment -----------------------------------------------------------------------

# 1. an empty virtual environment; a half-made one does not stay
$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "Penstock needs Python 3.11 or newer, and there is no '$(PYTHON)' here." \
	    "Install it, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Penstock needs Python 3.11 or newer, and '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1)." \
	    "Name a newer one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "setup: making $(VENV) with $$("$(PYTHON)" -V)"
	@"$(PYTHON)" -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; \
	  exit 1; }

# 2. what a lock names, nothing else, then the project itself, editable
$(VENV)/demo.stamp: requirements/demo.lock pyproject.toml | $(BIN)/python
	@echo "setup: installing what the demo needs (requirements/demo.lock)"
	@$(PIP) install --require-hashes -r requirements/demo.lock
	@$(PIP) install --no-index --no-deps --no-build-isolation -e .
	@touch $@

# The development environment holds the demo's.
$(VENV)/dev.stamp: requirements/dev.lock pyproject.toml | $(BIN)/python
	@echo "setup: installing what development needs (requirements/dev.lock)"
	@$(PIP) install --require-hashes -r requirements/dev.lock
	@$(PIP) install --no-index --no-deps --no-build-isolation -e .
	@touch $(VENV)/demo.stamp $@
