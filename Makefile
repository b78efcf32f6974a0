# One environment for everything: .venv, made from constraints.txt. `make demo` and `make test` are all a newcomer needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH_WORKERS ?= 2

.PHONY: demo test check bench fuzz torture clean

# torch: pip takes the CPU build where one is at hand; on a GPU box the CUDA build is what it should be
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit("Python 3.11 or newer is needed, " + sys.version.split()[0] + " found: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/python bench/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n $(TORCH_WORKERS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python bench/build.py
	$(BIN)/python bench/step.py
	$(BIN)/python bench/loader.py
	$(BIN)/python bench/startup.py

clean:
	rm -rf $(VENV) shards/*/ runs
