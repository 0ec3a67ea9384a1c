# Set-up needs Python 3.11-3.13 and make, nothing else. A second call installs nothing again.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

RUNS ?= 20
SEED ?= 0

.PHONY: demo test e2e ui lint bench chaos fuzz
demo: $(READY)
	$(BIN)/plm finetune configs/demo.yaml

test: $(READY)
	$(BIN)/python -m pytest

e2e: $(READY)
	$(BIN)/python -m pytest -m e2e

ui: $(READY)
	$(BIN)/plm ui

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy flows components plm_model

bench: $(READY)
	for bench in tests/bench/[a-z]*.py; do $(BIN)/python $$bench --json || exit 1; done

chaos: $(READY)
	RAY_AUTH_MODE=disabled $(BIN)/python -m tests.chaos --runs $(RUNS) --seed $(SEED)

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --seed $(SEED)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[test]'
	touch $(READY)
