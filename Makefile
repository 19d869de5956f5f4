# Everything a person does here, one verb each. `make` alone lists them.
#
# PYTHON  the Python that makes the environment (3.11 or newer)
# WORKERS how many tests run at a time, each in a process with a broker of its own: make test WORKERS=3
# ARGS    what is passed on to the tool behind a verb: make demo ARGS="--days 30", make test ARGS="-k money"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
RESOLVE_FOR = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" --python-version
RESOLVE = $(RESOLVE_FOR) 3.11
COMPILE = $(RESOLVE) pyproject.toml --group build
WORKERS ?= 2
ARGS ?=

# The tests start the program hundreds of times: none of its processes compiles what another one has, whatever is usual on the machine.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := verbs
.PHONY: verbs demo test check checked-style checked-types checked-documents checked-layers checked-schemas format bench bench-engine bench-dag bench-backtest bench-trading campaign-kills campaign-dag campaign-ledger campaign-graph campaign-engine campaign-neighbours campaign-stores campaign-simulate schemas broker broker-stop topology lock clean

verbs:
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## run a strategy over real bars, in one process, without a broker
	@$(BIN)/qmtl demo $(ARGS)

test: $(VENV)/.dev ## run every test, also against a real Kafka that is started and stopped for it; what documents say runs in `make check`
	@$(BIN)/python -m qmtl.testing.broker prepare
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore tests/docs $(ARGS)

check: $(VENV)/.dev ## format, lint, types, who may import whom, schemas, documents that run; two at a time
	@$(MAKE) --no-print-directory -j 2 checked-style checked-types checked-documents checked-layers checked-schemas

checked-style: $(VENV)/.dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check

checked-types: $(VENV)/.dev
	$(BIN)/mypy

checked-documents: $(VENV)/.dev
	$(BIN)/python -m pytest -q -n 2 tests/docs

checked-layers: $(VENV)/.dev
	$(BIN)/lint-imports --no-logo

checked-schemas: $(VENV)/.dev
	$(BIN)/python -m qmtl.foundation.wire.generate --check

format: $(VENV)/.dev ## write the format and the order of imports that check asks for
	$(BIN)/ruff check --select I --fix --quiet
	$(BIN)/ruff format

bench: $(VENV)/.dev ## measure
	@$(BIN)/python -m bench.run $(ARGS)

bench-engine: $(VENV)/.dev ## measure the engine beside a hand-written loop, Quix Streams and Faust; ARGS="--parts raw,ours --rounds 5"
	@$(BIN)/python -m qmtl.testing.broker prepare
	@$(BIN)/python -m bench.engine.run $(ARGS)

bench-dag: $(VENV)/.dev ## measure the DAG Manager: admission fast beside slow, diffs in the engine and through a broker; ARGS="--known 10000 --rounds 10"
	@$(BIN)/python -m qmtl.testing.broker prepare
	@$(BIN)/python -m bench.dag.run $(ARGS)

bench-trading: $(VENV)/.dev ## measure trading: orders a second on the embedded log and through a broker, and the delay of one; ARGS="--long", ARGS="--kafka 0"
	@$(BIN)/python -m qmtl.testing.broker prepare
	@$(BIN)/python -m bench.trading.run $(ARGS)

bench-backtest: $(VENV)/.dev ## measure backtests beside vectorbt, backtrader and both generations of NautilusTrader; ARGS="--parts w1 --peers vectorbt", ARGS="--long"
	@$(BIN)/python -m qmtl.testing.broker prepare
	@$(BIN)/python -m bench.backtest.run $(ARGS)

campaign-kills: $(VENV)/.dev ## kill runs of the demo at random moments, many times; ARGS="--log kafka --kills 100"
	@$(BIN)/python -m tests.flow.campaign $(ARGS)

campaign-dag: $(VENV)/.dev ## publish, share, take back and collect a thousand nodes on a real broker, workers killed in every step; ARGS="--nodes 50 --kills 6 --result FILE.json"
	@$(BIN)/python -m qmtl.testing.broker prepare
	@$(BIN)/python -m tests.flow.graph_life $(ARGS)

campaign-graph: $(VENV)/.dev ## try a hundred times as many lives of the DAG Manager as the tests, without a broker; QMTL_LIVES=1000, QMTL_LIFE_STEPS=2 for longer ones
	@QMTL_LIVES=$${QMTL_LIVES:-100} $(BIN)/python -m pytest -q -n $(WORKERS) --timeout 0 --hypothesis-show-statistics \
		tests/services/dagmanager/test_life.py::TestLife tests/services/dagmanager/test_life.py::TestMortal \
		tests/services/dagmanager/test_diffing.py::TestTold tests/services/dagmanager/test_diff_stream.py::TestAnswers $(ARGS)

campaign-ledger: $(VENV)/.dev ## book a million random facts, late, twice and corrected, beside a plain ledger in integers; ARGS="--facts 100000 --costing fifo --result FILE.json"
	@$(BIN)/python -m tests.runtime.accounting.campaign $(ARGS)

campaign-stores: $(VENV)/.dev ## flip bytes in every kind of file of a store, some thousand times
	@QMTL_FLIPS=500 $(BIN)/python -m pytest -q --timeout 3600 tests/engine/test_store.py -k flipped $(ARGS)

campaign-simulate: $(VENV)/.dev ## run toys and the whole system under many seeds of faults, without a broker; ARGS="--seeds 1000"
	@$(BIN)/python -m tests.simulate.campaign $(ARGS)

campaign-engine: $(VENV)/.dev ## disturb the engine on a real broker in every way, many times; ARGS="--trials 20 --result FILE.json", ARGS="--sabotage all"
	@$(BIN)/python -m qmtl.testing.broker prepare
	@$(BIN)/python -m tests.campaign $(ARGS)

campaign-neighbours: $(VENV)/.dev ## repeat what neighbouring libraries got wrong as often as it was reported, and refuse an old Kafka
	@$(BIN)/python -m qmtl.testing.broker prepare
	@QMTL_NEIGHBOURS=full $(BIN)/python -m pytest tests/neighbours tests/misuse $(ARGS)

schemas: $(VENV)/.dev ## write schemas/ from the contracts
	@$(BIN)/python -m qmtl.foundation.wire.generate $(ARGS)

broker: $(VENV)/.runtime ## start a Kafka broker on this machine that stays
	@$(BIN)/python -m qmtl.testing.broker start

broker-stop: $(VENV)/.runtime ## stop it
	@$(BIN)/python -m qmtl.testing.broker stop

topology: $(VENV)/.runtime ## draw every processor with what it reads, owns and writes
	@$(BIN)/qmtl topology $(ARGS)

lock: $(VENV)/.dev ## write the lock files, the benchmark's too; ARGS=--upgrade takes newer versions
	$(COMPILE) --extra archive --output-file requirements.lock $(ARGS)
	$(COMPILE) --extra archive --extra dev --constraint requirements.lock --output-file requirements-dev.lock $(ARGS)
	$(RESOLVE) bench/engine/quix.in --output-file bench/engine/quix.lock $(ARGS)
	$(RESOLVE) bench/engine/faust.in --output-file bench/engine/faust.lock $(ARGS)
	$(RESOLVE) bench/backtest/apps/vectorbt.in --output-file bench/backtest/apps/vectorbt.lock $(ARGS)
	$(RESOLVE) bench/backtest/apps/backtrader.in --output-file bench/backtest/apps/backtrader.lock $(ARGS)
	$(RESOLVE_FOR) 3.12 bench/backtest/apps/nautilus.in --output-file bench/backtest/apps/nautilus.lock $(ARGS)
	$(RESOLVE_FOR) 3.12 --prerelease allow bench/backtest/apps/nautilus2.in --output-file bench/backtest/apps/nautilus2.lock $(ARGS)

clean: ## remove the environment, the test broker and caches; .qmtl, the state of runs, stays
	@if [ -f .broker/run.json ] && [ -x $(BIN)/python ]; then $(BIN)/python -m qmtl.testing.broker stop; fi
	@rm -rf $(VENV) .broker bench/.work build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find qmtl streams tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the environment: made once, again only after a change of a lock or of pyproject.toml -----------------------

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "No '$(PYTHON)' on the PATH: install Python 3.11 or newer, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$($(PYTHON) --version) is too old, QMTL needs 3.11 or newer: say make PYTHON=python3.11 (or newer)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module with pip: install it (Debian and Ubuntu: the package python3-venv), or say make PYTHON=..." >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing QMTL into $(VENV)" >&2
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	@echo "installing QMTL and its tools into $(VENV)" >&2
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.runtime $@
