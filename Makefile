# The two commands of the README. PYTHON=python3.12 takes another Python.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
# tests run on every core, but not on more than a laptop has the memory for; a thread each
WORKERS := -n auto --maxprocesses 4
test test-slow: export OMP_NUM_THREADS := 1
RUN := runs/demo/$(shell date +%Y-%m-%d_%H-%M-%S)

.PHONY: train test extras test-slow bounds mutants docs lint clean

train: $(VENV)/installed
	$(BIN)/python train.py experiment=demo_quick hydra.run.dir=$(RUN)
	$(BIN)/python inference.py checkpoint=$(RUN) input=data/demo/images/test_1.tif output=$(RUN)/predictions
	@$(BIN)/python -c "print(open('$(RUN)/summary.txt', encoding='utf-8').read())"

test: $(VENV)/installed
	$(BIN)/python -m pytest $(WORKERS)

# what the extras bring is tested where they are installed
extras: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e ".[dev,all]"

# whole runs, and real imagery where GEO_SEG_DATA names it; MINUTES=40 begins none after that time
test-slow: $(VENV)/installed
	$(BIN)/python -m pytest $(WORKERS) -m slow --durations=40 $(if $(MINUTES),--minutes=$(MINUTES))

# the oldest and the newest version of each dependency that pyproject.toml allows, from the index; not in CI
bounds: $(VENV)/installed
	$(BIN)/python benchmarks/bounds.py

# whether tests fail when metrics, losses or the module are changed at random; half an hour, not in CI
mutants: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -e ".[dev,mutants]"
	$(BIN)/python benchmarks/mutants.py

# pages that are made from the code
docs: $(VENV)/installed
	$(BIN)/python benchmarks/losses_table.py
	$(BIN)/python benchmarks/keys_table.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	$(BIN)/python -c "open('$@', 'w').close()"

clean:
	rm -rf $(VENV) build *.egg-info
