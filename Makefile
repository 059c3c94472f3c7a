# make demo | test | check | bench | mutants: each installs what it needs on a machine that has only python3, pip and make.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check kernels bench docs gpu lock clean help

help:
	@echo "make demo    install, then run everything on rendered scenes with the embedded networks"
	@echo "make test    install, then run the tests"
	@echo "make check   install, then lint and types"
	@echo "make kernels install, then run the numeric tests as on other processors, and with two threads"
	@echo "make bench   install, then run the benchmarks (long)"
	@echo "make mutants install, then put faults into the code one by one and see which the tests notice (MINUTES=20)"
	@echo "make gpu     install, then measure everything on a GPU in ten minutes (OUT=gpu-results)"
	@echo "make docs    write the generated pages of docs/ anew"
	@echo "make lock    resolve the dependencies anew"

$(STAMP): pyproject.toml requirements.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv 2> >(grep -v '^WARNING' >&2 || true)
	@echo "installing the locked packages into $(VENV) (about two minutes the first time)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/pseudoris demo

# A process for each core, four at most: each holds torch and its own servers. `python -m pytest` alone runs them one after another.
test: $(STAMP)
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

# Each setting lets the libraries under torch take the kernels of another processor, which add in another order. Two run side by
# side, each with one thread; the last has two threads and runs alone. Files that only try faults on the tests, or talk to a server, are left out.
KERNELS := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=AVX2 MKL_CBWR=COMPATIBLE
NUMERIC := tests/decoding tests/networks tests/method tests/backends --ignore-glob='*_faults.py' --ignore-glob='*test_vlm*.py' --ignore-glob='*test_listener_*.py' -k 'not listener_vlm'

kernels: $(STAMP)
	@run() { log=$$(env $$1 $(BIN)/python -m pytest $(NUMERIC) 2>&1) && echo "$$1: $$(tail -n 1 <<< "$$log")" \
		|| { echo "$$1: FAILED"; echo "$$log"; return 1; }; }; export -f run; \
	printf '%s\n' $(KERNELS) | xargs -P 2 -I{} bash -c 'run {}' && run OMP_NUM_THREADS=2

check: $(STAMP)
	@$(BIN)/ruff format --check pseudoris_cli tests benchmarks training
	@$(BIN)/ruff check pseudoris_cli tests benchmarks training
	@$(BIN)/mypy

bench: $(STAMP)
	@for file in spine masks captions filter export; do $(BIN)/python benchmarks/$$file.py || exit 1; done

# The tool is no part of the lock: only this target needs it, and its runner's own dependencies are not used.
MINUTES ?= 20
mutants: $(STAMP)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps mutmut==3.8.1 libcst==1.9.0
	@OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py --minutes $(MINUTES)

docs: $(STAMP)
	@$(BIN)/python docs/generate.py

OUT ?= gpu-results
gpu: $(STAMP)
	@$(BIN)/python benchmarks/gpu.py --out $(OUT) --minutes 9

# Names, versions and hashes only: an address would tie the file to one registry.
lock: $(VENV)
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --extra ray --extra dev pyproject.toml --output-file requirements.lock

$(VENV):
	@$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check uv

clean:
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
