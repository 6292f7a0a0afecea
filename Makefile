# Everything a reader needs; `make` alone lists it.

PYTHON ?= python3
PROFILE ?= laptop
DATASET ?= auto
ENV ?= venv
# nproc prints OMP_NUM_THREADS where that is set, also if it is more than there are
CORES := $(shell env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
JOBS ?= $(shell test $(CORES) -gt 1 && echo 2 || echo 1)
# Only whole numbers from 1 on: what follows counts with it.
ifneq ($(shell expr "$(JOBS)" : '[1-9][0-9]*$$' >/dev/null 2>&1 && echo sound),sound)
$(error JOBS=$(JOBS): expected a whole number of at least 1)
endif
THREADS := $(shell test $(CORES) -gt $(JOBS) && expr $(CORES) / $(JOBS) || echo 1)

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup report page notebook test test-all faults reference sweep bench peers docs tensorboard clean

# Some systems set ENV for their own use, so only a value given to make is checked.
ifeq ($(origin ENV),command line)
ifeq ($(filter venv active,$(ENV)),)
$(error ENV=$(ENV): expected venv or active)
endif
endif
ifeq ($(ENV),active)
PY := python
SETUP = command -v python >/dev/null || { echo "error: ENV=active, but no python on PATH: activate an environment first" >&2; exit 1; }; python report/bootstrap.py --active
else
PY := .venv/bin/python
SETUP = command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found: install Python 3.11 or later, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }; $(PYTHON) report/bootstrap.py
endif

# Notebooks run in another directory, so a relative place is taken from here.
define make_absolute
ifneq ($$($(1)),)
override $(1) := $$(if $$(filter /% ~%,$$($(1))),$$($(1)),$$(CURDIR)/$$($(1)))
export $(1)
endif
endef
$(foreach place,HNETLIB_DATA HNETLIB_RUNS HNETLIB_LOGS,$(eval $(call make_absolute,$(place))))

# File names and prints may hold any letter, whatever the locale.
export PYTHONUTF8 := 1

# This checkout's hnetlib, whichever is installed.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

NOTEBOOKS := $(sort $(wildcard notebooks/[0-9][0-9]_*.ipynb))
BUILD := report/build/$(PROFILE)-$(DATASET)
EXECUTED := $(NOTEBOOKS:notebooks/%=$(BUILD)/%)
LIBRARY := $(wildcard hnetlib/*.py hnetlib/experiment/*.py hnetlib/*.mplstyle) report/execute.py
CHOSEN := $(firstword $(filter notebooks/$(NB)_%.ipynb notebooks/0$(NB)_%.ipynb notebooks/$(NB).ipynb,$(NOTEBOOKS)))
PEER := hypnettorch==0.0.4
NAMES := $(NOTEBOOKS:notebooks/%.ipynb=%)

help: ## this list
	@awk 'BEGIN { FS = ":.*## "; print "Goals:" } \
	  /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 } \
	  /^#: / { options = options "  " substr($$0, 4) "\n" } \
	  END { printf "Options:\n%s", options }' Makefile
#: PROFILE=laptop       size of the runs: smoke (four minutes), laptop, ... (see hnetlib/experiment/profiles.py)
#: DATASET=auto         mnist, mnist5k, or auto: MNIST, 5,000 images of it where it can't be had
#: JOBS=2               chapters that run at the same time, where there are cores for it
#: NB=05 PARAMS="..."   for notebook: which one, and parameters as in "-p num_tasks 20 -p beta 0.05"
#: GRID="..."            for sweep: settings as in "beta=0.01,0.03 seed=0..2", or a YAML file; with NB= of a notebook
#: SCHEDULER=tcp://...  for sweep: do it on this Dask cluster; OUT=directory for its table
#: PYTHON=python3       Python that makes .venv
#: FAULTS="..."          for faults: options as in "--kills 50 --reports 2"
#: BENCH="..."          for bench: options as in "--settings original --threads 1"
#: PEERS="..."          for peers: options as in "--num-tasks 2 --steps 20"
#: RUNS=reference       for tensorboard: a part of logs/, as reference/hnet
#: ENV=active           use the active environment instead of making .venv
#: HNETLIB_DATA, HNETLIB_RUNS, HNETLIB_LOGS   other places for data/, runs/ and logs/

setup: ## make or update .venv from requirements.lock (other goals do it when needed)
	@$(SETUP)

report: ## run every notebook, then make report/build/report.html
	@$(SETUP) --quiet
	@dataset=$$($(PY) -m report.resolve "$(PROFILE)" "$(DATASET)") && \
	  $(PY) -m report.estimate --profile "$(PROFILE)" --jobs $(JOBS) --threads $(THREADS) --plan "report/build/$(PROFILE)-$$dataset" --pairs $(foreach n,$(NAMES),notebooks/$(n).ipynb report/build/$(PROFILE)-$$dataset/$(n).ipynb) --library $(LIBRARY) && \
	  $(MAKE) --no-print-directory -j$(JOBS) page PROFILE="$(PROFILE)" DATASET="$$dataset"

# Chapters run side by side, each with its share of the cores: small networks gain little from a
# second thread. The longest starts first, and those that wait for its run come last.
LONGEST := $(filter %/05_regularised.ipynb,$(EXECUTED))
WAITING := $(filter %/10_not_told.ipynb,$(EXECUTED)) $(filter %/06_comparison.ipynb,$(EXECUTED))
page: $(LONGEST) $(filter-out $(LONGEST) $(WAITING),$(EXECUTED)) $(WAITING)
	@$(PY) -m report.build --profile "$(PROFILE)" --dataset "$(DATASET)" --out report/build/report.html $(EXECUTED)
	@printf 'The report: %s\n' "$$PWD/report/build/report.html"

# Executed again when its source or the library changed, but not for a change in another notebook.
$(EXECUTED): $(BUILD)/%.ipynb: notebooks/%.ipynb $(LIBRARY)
	@$(PY) -m report.execute --named $< $@ -p profile "$(PROFILE)" -p dataset "$(DATASET)" -p threads $(THREADS)

notebook: ## run one notebook anew: NB=05 PARAMS="-p num_tasks 20 -p beta 0.05"
	@test -n "$(CHOSEN)" || { echo "error: NB=$(NB): expected one of $(NAMES)" >&2; exit 1; }
	@$(SETUP) --quiet
	@$(PY) -m report.execute --check $(CHOSEN) - -p profile - -p dataset - $(PARAMS)
	@dataset=$$($(PY) -m report.resolve "$(PROFILE)" "$(DATASET)") && \
	  $(PY) -m report.execute $(CHOSEN) $(CHOSEN:notebooks/%=report/build/notebook/%) \
	    -p profile "$(PROFILE)" -p dataset "$$dataset" $(PARAMS)

test: ## check style (ruff) and properties (pytest); needs no data and no network
	@$(SETUP) --quiet
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(TESTS) -m "$(MARKED)"

test-all: MARKED = slow or not slow
test-all: test ## the same with the slow tests; those of all of MNIST where it is
MARKED = not slow
# One thread each.
TESTS = OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS)

faults: ## kill training and reports at random instants; they must end as if never stopped
	@$(SETUP) --quiet
	$(PY) tests/faults.py $(FAULTS)

reference: ## train what the committed results of a profile still lack, and write it down
	@$(SETUP) --quiet
	$(PY) -m report.reference --profile "$(PROFILE)" --jobs $(JOBS)

sweep: ## train every combination of GRID="beta=0.01,0.03 seed=0..2", JOBS at a time; one table
	@test -z "$(NB)" -o -n "$(CHOSEN)" || { echo "error: NB=$(NB): expected one of $(NAMES)" >&2; exit 1; }
	@$(SETUP) --quiet
	@$(PY) -m report.sweep --profile "$(PROFILE)" --dataset "$(DATASET)" --jobs $(JOBS) \
	  $(if $(NB),--notebook $(CHOSEN)) $(if $(SCHEDULER),--scheduler "$(SCHEDULER)") $(if $(OUT),--out "$(OUT)") -- "$(GRID)"

bench: ## time a training step beside hypnettorch's, which is installed for it
	@$(SETUP) --quiet
	@$(PY) -m pip show --quiet hypnettorch || $(PY) -m pip install --quiet --no-deps "$(PEER)"
	$(PY) -m report.bench $(BENCH)

peers: ## ten tasks by ours, hypnettorch and Avalanche, which are installed for it
	@$(SETUP) --quiet
	@$(PY) -m pip install --quiet --no-deps -r report/peers/requirements.txt
	$(PY) -m report.peers.compare $(PEERS)

docs: ## API pages of hnetlib in report/build/api, by pdoc, which is installed for it
	@$(SETUP) --quiet
	@$(PY) -m pip show --quiet pdoc || $(PY) -m pip install --quiet --no-deps pdoc==16.0.0 markdown2==2.5.4
	@$(PY) -m report.api report/build/api
	@printf 'API pages: %s\n' "$$PWD/report/build/api/index.html"

tensorboard: ## show the training logs in a browser, at 127.0.0.1
	@$(SETUP) --quiet
	@echo "TensorBoard shows more than 40 runs only once they are ticked at the left; make tensorboard RUNS=reference shows those of the repository"
	$(PY) -m tensorboard.main --host 127.0.0.1 --logdir "$${HNETLIB_LOGS:-logs}/$(RUNS)"

clean: ## remove report/build; runs, logs, data and .venv stay
	@rm -rf report/build
	@echo "removed report/build (executed notebooks and the page); runs, logs, data and .venv stay"
