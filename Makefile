# Every target makes the environment it needs. Variables, given as make TARGET NAME=value:
PYTHON ?= python3#             interpreter to build the environment from (3.10 to 3.12)
VENV ?= .venv#                 where the environment lives
EXTRAS ?= dev#                 extras of megagrow to install
TORCH_INDEX ?=#                package index to take PyTorch from, where none is installed
SETUP_FLAGS ?=#                more options of tools/setup_environment.py
WORKERS ?= $(shell n=$$(nproc); if [ "$$n" -gt 8 ]; then n=8; fi; echo "$$n")# parallel tests
PYTEST_FLAGS ?=#               more options of pytest, such as -k NAME
BENCH_FLAGS ?=#                options passed to every benchmark
NVCC ?= nvcc#                  CUDA compiler of make cuda

override PY := $(VENV)/bin/python
# Tools that the environment takes over from another one have their commands only there.
export PATH := $(abspath $(VENV))/bin:$(PATH)
comma := ,
# One stamp per set of extras; make stays quick while it is newer than what it was made from.
STAMP := $(VENV)/.setup-$(subst $(comma),-,$(EXTRAS))
CODE := megagrow tools tests benchmarks examples docs setup.py $(wildcard pretrain_grow.py)
CSRC := $(shell find csrc -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.inl')
SHELL_FILES := .ci/run $(wildcard examples/slurm/*.sbatch tools/*.sh)
TORCHRUN := $(PY) -m torch.distributed.run --standalone
QUICKSTART := runs/quickstart
SCRATCH := runs/quickstart_scratch
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup quickstart compare test test-all test-gpu check lint types format bench cuda \
	docs clean clean-venv

help:  ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv and install what everything needs, nothing else
	@echo "$(VENV) is ready"

$(STAMP): pyproject.toml setup.py tools/setup_environment.py $(CSRC)
	@$(PYTHON) tools/setup_environment.py --venv "$(VENV)" --extras "$(EXTRAS)" \
		--torch-index "$(TORCH_INDEX)" $(SETUP_FLAGS)
	@touch "$@"

quickstart: $(STAMP)  ## prepare text, train 2 -> 4 -> 8 layers on 2 processes, write the report
	$(PY) tools/prepare_quickstart.py --output data/quickstart_text --vocab-size 4096
	$(PY) tools/bucket_by_difficulty.py data/quickstart_text --levels easy,middle,hard \
		--tokenizer data/quickstart_text/tokenizer.json --output data/quickstart
	$(TORCHRUN) --nproc-per-node 2 pretrain_grow.py examples/quickstart.yaml
	$(PY) tools/report.py $(QUICKSTART)

compare: $(STAMP)  ## also train 8 layers from scratch at equal FLOPs, report the speedup
	@grep -Eqs '"state": *"completed"' $(QUICKSTART)/status.json || $(MAKE) quickstart
	@grep -Eqs '"state": *"completed"' $(SCRATCH)/status.json || \
		$(TORCHRUN) --nproc-per-node 2 pretrain_grow.py examples/quickstart_scratch.yaml
	$(PY) tools/report.py $(QUICKSTART) $(SCRATCH) --baseline quickstart_scratch

test: $(STAMP)  ## the tests that need no GPU, but for the slowest
	$(PYTEST) -m "not gpu and not slow" $(PYTEST_FLAGS)

test-all: $(STAMP)  ## every test that needs no GPU
	$(PYTEST) -m "not gpu" $(PYTEST_FLAGS)

test-gpu: $(STAMP)  ## the tests that need a GPU
	OMP_NUM_THREADS=1 $(PY) -m pytest -m gpu $(PYTEST_FLAGS)

check: lint types  ## lint, format and types

lint: $(STAMP)
	$(PY) -m ruff check $(CODE)
	$(PY) -m ruff format --check $(CODE)
	clang-format --dry-run -Werror $(CSRC)
	@if command -v $(CXX) > /dev/null; then set -x; $(CXX) -std=c++17 -Wall -Wextra -Wconversion \
		-Werror -fsyntax-only $(filter-out %/bindings.cpp,$(filter csrc/cpu/%.cpp,$(CSRC))); fi
	shellcheck $(SHELL_FILES)
	@if command -v hadolint > /dev/null; then hadolint Dockerfile; fi

types: $(STAMP)
	$(PY) -m mypy

format: $(STAMP)  ## rewrite the code in the project's format
	$(PY) -m ruff check --fix $(CODE)
	$(PY) -m ruff format $(CODE)
	clang-format -i $(CSRC)

bench: $(STAMP)  ## every benchmark; prints the JSON line that each one ends with
	@failed=0; \
	for file in $(sort $(wildcard benchmarks/[!_]*.py)); do \
		output=$$($(PY) "$$file" $(BENCH_FLAGS)) || { \
			if [ $$? = 77 ]; then echo "$$file left out"; continue; fi; \
			failed=1; printf '%s\n' "$$output"; echo "$$file FAILED"; continue; }; \
		printf '%s ' "$$file"; printf '%s\n' "$$output" | tail -n 1; \
	done; exit $$failed

cuda:  ## compile the CUDA sources, where there is a compiler; needs no GPU
	@if ! command -v $(NVCC) > /dev/null; then echo "cuda: no $(NVCC), skipped"; exit 0; fi; \
	objects=$$(mktemp -d) && trap 'rm -rf "$$objects"' EXIT && \
	for source in $(filter %.cu,$(CSRC)); do \
		echo "cuda: $$source"; \
		$(NVCC) -std=c++17 -O3 -Xcompiler -fPIC -Werror all-warnings \
			-gencode arch=compute_90,code=sm_90 -gencode arch=compute_90,code=compute_90 \
			-c "$$source" -o "$$objects/$$(echo "$$source" | tr / _).o" || exit 1; \
	done

docs: $(STAMP)  ## build the documentation into docs/_build/html; a warning is an error
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html

clean:  ## remove caches and build products; runs, data and .venv stay
	rm -rf build dist *.egg-info docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find megagrow tools tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

clean-venv:  ## remove .venv and the compiled kernels, to have them made anew
	@test ! -e "$(VENV)" || test -f "$(VENV)/pyvenv.cfg" || { echo "$(VENV) is no venv"; exit 1; }
	rm -rf "$(VENV)" megagrow/kernels/*.so
