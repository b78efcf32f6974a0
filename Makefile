# One environment for everything: .venv, made from constraints.txt. `make demo` and `make test` are all a newcomer needs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2
# of gpu: make gpu DEVICE=cpu SIZE=tiny tests the command alone; ONLY=losses runs one proof, or one measurement
DEVICE ?= cuda
SIZE ?= full
ONLY ?=

.PHONY: demo learn test check docs bench gpu gpu-bench fuzz slow torture clean

# torch: pip takes the CPU build where one is at hand; on a GPU box the CUDA build is what it should be
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c 'import sys; sys.exit("Python 3.11 or newer is needed, " + sys.version.split()[0] + " found: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# the commands that a user types, on little data and a very small model
SMALL := --depth 2 --total-batch-size 4096 --eval-tokens 8192
demo: $(READY)
	$(BIN)/midprep build --mixture sample --overwrite
	$(BIN)/midprep stats shards/sample
	$(BIN)/python train/mid.py --shards shards/sample $(SMALL) --num-iterations 8 --resume never
	$(BIN)/python train/mid.py --shards shards/sample $(SMALL) --num-iterations 6 --resume never --mode sft --base runs/sample
	@echo
	@echo "A question to the model that was just trained. After 14 steps it has learned next to nothing: noise, not an answer."
	$(BIN)/midprep chat runs/sample --prompt "Spell the word: apple" --max-tokens 16
	@echo
	@echo "What was made:"
	@echo "  shards/sample                      some 5,000 conversations as tokens and mask, memory-mapped"
	@echo "  runs/sample/mid_checkpoints/d2     a model of 2 layers after 8 steps of mid (every token trains)"
	@echo "  runs/sample/chatsft_checkpoints/d2 the same after 6 steps of sft (only what the assistant says trains)"
	@echo "What to type next:"
	@echo "  . .venv/bin/activate"
	@echo "  midprep show shards/sample                                  # look at a row: what trains, what does not"
	@echo "  make learn                                                  # train a very small model that spells: docs/results.md"
	@echo "  midprep build --mixture default --data-root DIR             # or without --data-root, from the Hub"
	@echo "  torchrun train/mid.py --shards shards/mid                   # on a GPU box: --nproc-per-node 8"

learn: $(READY) # a very small model learns to spell, to ask a calculator for counts and sums, and to say what it is
	$(BIN)/python bench/learn.py

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY) # docs/commands.md, from the help texts of the programs; the tables of docs/own-data.md
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_layouts.py

fuzz: $(READY)
	$(BIN)/python tests/encode/fuzz_encode.py 1000000
	$(BIN)/python tests/encode/fuzz_models.py 1000000
	$(BIN)/python tests/torture/fuzz_lines.py 100000
	$(BIN)/python tests/torture/fuzz_rows.py 10000
	$(BIN)/python tests/torture/fuzz_files.py 1000

slow: $(READY) # every page of docs/ and examples/, the wheel, all code points, a Ray cluster, other trainers
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,trainers]'
	$(BIN)/python -m pytest -n $(JOBS) -m slow

torture: $(READY)
	$(BIN)/python -m pytest -m torture

bench: $(READY)
	$(BIN)/python bench/build.py
	$(BIN)/python bench/peers.py
	$(BIN)/python bench/chat_formats.py
	$(BIN)/python bench/step.py
	$(BIN)/python bench/loader.py
	$(BIN)/python bench/startup.py

# with the Python that is there, its torch and its numpy: no environment is made
gpu:
	$(PYTHON) bench/gpu.py --device $(DEVICE) --size $(SIZE) $(addprefix --only ,$(ONLY))

gpu-bench:
	$(PYTHON) bench/gpu_bench.py $(addprefix --only ,$(ONLY))

clean:
	rm -rf $(VENV)
