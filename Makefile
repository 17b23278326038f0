# Each target sets .venv up by itself: `make demo` and `make test` work from a bare clone.
# Needs Python >= 3.10 (PYTHON=...), a C++20 compiler and the package index; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
NATIVE := $(shell find csrc -type f) CMakeLists.txt setup.py

.PHONY: demo test test-slow test-bench bench bench-model lint build install clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo       compress the bundled model five ways, reload, measure, write demo-output/report.html"
	@echo "make test       run the tests          make test-slow  the ones that take long"
	@echo "make bench      every op against its baselines: tables, JSON and rooflines under bench/results/ (BENCH_ARGS=...)"
	@echo "make bench-model  a 1.1 B Llama decodes, dense and in each format   make test-bench  pytest-benchmark entries"
	@echo "make lint       ruff, mypy             make clean      remove builds and .venv"

# The venv exists when its pip does; a broken one (interrupted creation) is made anew.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("make: Python >= 3.10 is needed, this is " + sys.version.split()[0] + " (choose with PYTHON=...)")'
	$(PYTHON) -m venv --clear $(VENV)

# Dependencies first, pinned by constraints.txt; torch by name, so that no other package chooses its version.
$(VENV)/.installed: constraints.txt pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch setuptools cmake ninja pybind11
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@ $(VENV)/.built

$(VENV)/.built: $(NATIVE) | $(VENV)/.installed
	$(BIN)/python setup.py --quiet build_ext --inplace
	@touch $@

install: $(VENV)/.installed
build: $(VENV)/.installed $(VENV)/.built

demo: build
	$(BIN)/prism demo --output demo-output

test: build
	@echo "deselected below: slow tests (make test-slow) and timings, which need a quiet machine (make test-bench)"
	$(BIN)/python -m pytest -m "not slow and not benchmark" $(PYTEST_ARGS)

test-slow: build
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

test-bench: build
	$(BIN)/python -m pytest -m benchmark tests/bench --benchmark-autosave $(PYTEST_ARGS)

bench: build
	$(BIN)/python -m bench $(BENCH_ARGS)

bench-model: build
	$(BIN)/python -m bench.bench_model $(BENCH_ARGS)

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build demo-output $(VENV) prism_kernels/*.so *.egg-info python/*.egg-info
