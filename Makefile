# One runner for people and for CI. `make help` lists what there is.
PYTHON ?= python3
PORT   ?= 8080
STORE  ?= store
JOBS   ?= $(shell nproc 2>/dev/null || echo 1)
VENV   := .venv
BIN    := $(VENV)/bin
KERNEL := setup.py pyproject.toml $(shell find csrc -name '*.[ch]' -o -name '*.def' -o -name build_ffi.py)

.DEFAULT_GOAL := help
.PHONY: help run test check c-check bench conformance docs clean format

help:            ## this list
	@sed -n 's/^\([a-z-]*\): .*## /\1|/p;s/^\([a-z-]*\):  *## /\1|/p' $(MAKEFILE_LIST) | sort | awk -F'|' '{printf "make %-11s %s\n", $$1, $$2}'

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Mariana needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sysconfig, os, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { echo "Python.h is missing: install Python's headers (Debian: apt-get install python3-dev)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3 cannot make a virtual environment (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@touch $@

$(VENV)/run: $(VENV)/python $(KERNEL)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/test: $(VENV)/run
	$(BIN)/pip install --quiet --editable '.[test]' --editable clients/python
	@touch $@

$(VENV)/check: $(VENV)/test
	$(BIN)/pip install --quiet --editable '.[test,check]'
	@touch $@

$(VENV)/bench: $(VENV)/test
	$(BIN)/pip install --quiet --editable '.[test,bench]'
	@touch $@

run: $(VENV)/run ## train the demo, index the cities, serve both on http://127.0.0.1:8080 (PORT=9000 moves it)
	@$(BIN)/mariana demo --store $(STORE)
	@exec $(BIN)/mariana serve --store $(STORE) --port $(PORT)

test: $(VENV)/test ## every test that this machine can run
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/pytest -n auto $(PYTEST)

check: $(VENV)/check c-check ## format, lint, types, layers, containers, C under gcc and clang
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	cd clients/python && ../../$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror $$(find csrc -name '*.[ch]' -not -path '*/build/*')
	$(BIN)/hadolint Dockerfile
	$(BIN)/docker-compose config --quiet

c-check:         ## build and test csrc/ alone, with each compiler that is here
	$(MAKE) -C csrc -j$(JOBS) check-python check PYTHON=$(PYTHON)

format: $(VENV)/check ## rewrite the sources as the formatters want them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $$(find csrc -name '*.[ch]' -not -path '*/build/*')

bench: $(VENV)/bench ## peers and ourselves in one run, into benchmarks/results/
	$(BIN)/python -m benchmarks

conformance: $(VENV)/test ## other people's clients and schemathesis, each in an environment of its own, against the server
	$(BIN)/python -m benchmarks.http_peers
	$(BIN)/pytest -m 'optional or slow' tests/e2e/test_protocol_clients.py tests/e2e/test_schema_walk.py $(PYTEST)

docs: $(VENV)/test ## run every example in the documents
	$(BIN)/pytest tests/docs

clean:           ## remove what was built (the store stays)
	rm -rf $(VENV) build dist *.egg-info clients/python/src/*.egg-info csrc/build mariana/_kernel.c mariana/*.so
