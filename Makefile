# cl_bench: `make` lists what there is
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(shell command -v uv >/dev/null 2>&1 && echo "uv pip install --python $(BIN)/python" || echo "$(BIN)/python -m pip install -q --disable-pip-version-check")
export PYTHONUNBUFFERED := 1

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

.venv/demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -c constraints.txt -e .
	touch $@

.venv/dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) -c constraints.txt -e '.[dev]'
	touch $@

.venv-peers/ready: pyproject.toml constraints.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	$(subst $(BIN),.venv-peers/bin,$(INSTALL)) -c constraints.txt -e '.[peers]'
	touch $@

demo: .venv/demo ## four strategies on split digits, one table, under a minute
	$(BIN)/python -m cl_bench experiment=demo

test: .venv/dev ## the whole test suite
	$(BIN)/python -m pytest -n 2

peers: .venv-peers/ready ## our losses and metrics beside Avalanche's, in its own environment
	.venv-peers/bin/python -m pytest -m peers tests/peers

check: .venv/dev ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/dev ## our loop beside a bare PyTorch loop
	$(BIN)/python scripts/bench.py

study: .venv/dev ## does scale cure forgetting? the offline study, 2 h 49 min on 2 CPU cores; again: goes on
	$(BIN)/python scripts/study.py

report: .venv/demo ## tables and plots of all runs in outputs/
	$(BIN)/python -m cl_bench.reports outputs

.PHONY: help demo test peers check bench study report
