# `make` lists the targets. `make demo` and `make test` set everything up themselves; a second run reuses it.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Every value can be given on the command line, e.g. `make demo BACKEND=barrier`.
PYTHON ?= python3# creates .venv; 3.11 or newer
DEMO_DIR ?= demo-output# where `make demo` writes
BACKEND ?= tensorflowonspark# backend of `make demo`: tensorflowonspark, barrier or auto
OTHER_SPARK ?= 3.5# the connector is built for this line too, for the wheel
MATRIX ?=# rows of `make test-matrix`, e.g. spark-3.5; all by default
KILLS ?= 20# of `make soak`
PROCESSES ?= 2# that share the tests of `make test`, `test-long`, `test-clusters`, `test-faults` and `smoke`
PYTEST_ARGS ?=# further arguments of pytest, e.g. 'tests/unit -k config'

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
JARS := build/jars/.collected
OTHER_JAR := build/jars/.packed-for-spark-$(OTHER_SPARK)
CLASSES := build/spark-classes.jsa# halves the start of the tests' JVMs
JAR_SOURCES := build.sbt project/build.properties tools/sbt constraints.txt spark_dl/versions.py \
  $(shell find jars -path '*/src/*' -type f 2>/dev/null)

# The set-up's own Spark and Python, whatever else this machine has on PATH or in its profile.
export PYSPARK_PYTHON := $(abspath $(BIN)/python)
unexport SPARK_HOME SPARK_CONF_DIR
export TZ := UTC

.PHONY: help demo test test-long test-clusters test-faults soak test-matrix test-jars test-other-spark test-connector-mutations lint format jars bench smoke wheel clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(INSTALLED) $(JARS) ## table → shards → training on 2 executors → predictions, with a report (BACKEND, DEMO_DIR)
	SPARK_CONF_DIR=conf/short-lived DEMO_DIR=$(DEMO_DIR) BACKEND=$(BACKEND) $(BIN)/python examples/demo/run.py

test: $(INSTALLED) $(JARS) $(CLASSES) ## all tests: unit, spark, cluster (PYTEST_ARGS)
	$(BIN)/python -m pytest --ignore tests/clusters -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-long: $(INSTALLED) $(JARS) $(CLASSES) ## what `make test` has no time for: the doctor on broken executors, whole jobs, benchmarks (PYTEST_ARGS)
	$(BIN)/python -m pytest -m long -n $(PROCESSES) --dist loadfile --no-loadscope-reorder tests/cluster tests/spark tests/training $(PYTEST_ARGS)

test-clusters: $(INSTALLED) $(JARS) $(CLASSES) ## from the wheel, on YARN, standalone, … started for it (PYTEST_ARGS)
	$(BIN)/python -m pytest -m clusters -n $(PROCESSES) --dist loadfile --no-loadscope-reorder tests/clusters $(PYTEST_ARGS)

test-faults: $(INSTALLED) $(JARS) $(CLASSES) ## kill, cut off and starve what trains: it must go on or say why (PYTEST_ARGS)
	$(BIN)/python -m pytest -m faults -n $(PROCESSES) --dist loadfile --no-loadscope-reorder tests/faults $(PYTEST_ARGS)

test-matrix: $(INSTALLED) $(JARS) ## connector and main job on other Sparks and TensorFlows, each in a venv of its own (MATRIX)
	$(BIN)/python tools/matrix/run.py --record $(MATRIX)

soak: $(INSTALLED) $(JARS) $(CLASSES) ## kill processes of a training at random: it must end as if nobody had (KILLS)
	$(BIN)/python tests/faults/soak.py --kills $(KILLS)

test-jars: $(INSTALLED) ## the connector's own tests, in the JVM (for Spark 3.5: make test-matrix)
	eval "$$($(BIN)/python -m spark_dl.versions)" && PYTHON=$(BIN)/python tools/sbt connector/test

test-connector-mutations: $(INSTALLED) ## a million damaged files, in the JVM
	eval "$$($(BIN)/python -m spark_dl.versions)" && SPARK_DL_MUTATIONS=1000000 PYTHON=$(BIN)/python \
	  tools/sbt "connector/testOnly *MutationSuite"

lint: $(INSTALLED) ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## let ruff format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

jars: $(JARS) ## build the connector's jar for both Scalas; it and Delta's are laid into build/jars

bench: $(INSTALLED) $(JARS) ## all benchmarks, ours beside its peers
	@scripts=(benchmarks/*.py); [ -e "$${scripts[0]}" ] || { echo "there are no benchmarks yet"; exit 0; }; \
	for script in "$${scripts[@]}"; do $(BIN)/python "$$script"; done

smoke: $(JARS) $(CLASSES) ## a short cut through what `make test` leaves out: jar, Spark 3.5, a fault of each kind, four kills at random, wheel, YARN, notebooks on Connect, Airflow, benchmarks
	$(MAKE) --jobs=$(PROCESSES) --output-sync=line test-jars test-other-spark
	$(BIN)/python -m pytest -m smoke -n $(PROCESSES) --dist loadfile --no-loadscope-reorder \
	  tests/clusters tests/faults tests/cluster

test-other-spark: $(INSTALLED) $(JARS) # a few tests of that row of `make test-matrix`
	$(BIN)/python tools/matrix/run.py --short spark-$(OTHER_SPARK)

wheel: $(INSTALLED) $(JARS) ## build the wheel, with the connector's jars for both Scalas in it
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean: ## remove what was built; .venv and downloads stay (remove .venv and .sbt-cache by hand)
	rm -rf build dist demo-output spark_dl/_jars target project/target project/project jars/*/target
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache spark-warehouse
	find spark_dl tests jobs examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is too old: Python 3.11 or newer is needed, give PYTHON=…" >&2; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  -e '.[spark,tensorflow,tfos,tensorboard,demo,dev]'
	@touch $@

$(JARS): $(JAR_SOURCES) | $(INSTALLED) $(OTHER_JAR)
	eval "$$($(BIN)/python -m spark_dl.versions)" && PYTHON=$(BIN)/python tools/sbt collectJars
	@mkdir -p $(@D) && touch $@

# Its Spark comes from Maven: it needs no .venv, and `make --jobs=2` builds it while pip installs.
$(OTHER_JAR): $(JAR_SOURCES)
	eval "$$($(PYTHON) -m spark_dl.versions $(OTHER_SPARK))" && tools/sbt packConnector
	@mkdir -p $(@D) && touch $@

$(CLASSES): tools/archive_classes.py $(INSTALLED) | $(JARS)
	$(BIN)/python $< $@
