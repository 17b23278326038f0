# Each target sets .venv up by itself: `make demo` and `make test` work from a bare clone.
# Needs Python >= 3.10 (PYTHON=...), a C++20 compiler and the package index; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
NATIVE := $(shell find csrc -type f) CMakeLists.txt setup.py

.PHONY: demo test test-slow bench lint build install clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo       compress the bundled model five ways, reload, measure, write demo-output/report.html"
	@echo "make test       run the tests          make test-slow  the ones that take long"
	@echo "make bench      micro-benchmarks against dense GEMM, JSON under bench/results/"
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
	$(BIN)/python -m pytest -m "not slow" $(PYTEST_ARGS)

test-slow: build
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

bench: build
	$(BIN)/python -m bench $(BENCH_ARGS)

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf build demo-output $(VENV) prism_kernels/*.so *.egg-info python/*.egg-info
