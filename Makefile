# make demo    a whole cluster on this machine: trains, evaluates and exports (no downloads but packages)
# make test    the tests
# make lint    ruff and mypy
# make bench   the benchmarks, psys beside TF 2.15.1 (about 40 minutes; TF in its own environment)
# make bench-quick  psys alone, in under two minutes
#
# Everything lives in .venv; PYTHON=python3.12 chooses another interpreter (3.10 or later).

PYTHON ?= python3
VENV ?= .venv
PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
DEMO_DIR = demo/digits

TF_PYTHON ?= python3.11
TF_VENV ?= benchmarks/.venv-tf

.PHONY: demo test lint bench bench-quick bench-tf-venv clean
.DELETE_ON_ERROR:

demo: $(VENV)/with-examples
	@rm -rf $(DEMO_DIR)
	$(VENV)/bin/psys run --ps 2 --workers 1 --evaluator examples/digits.py --model_dir $(DEMO_DIR)
	@echo "held-out evaluations: $(DEMO_DIR)/eval/results.jsonl (the last one is of the final model)"
	@tail -n 1 $(DEMO_DIR)/eval/results.jsonl

test: $(VENV)/with-test
	$(VENV)/bin/python -m pytest -n auto --maxprocesses 8

lint: $(VENV)/with-test,lint
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

BENCH = $(VENV)/bin/python benchmarks

bench: $(VENV)/with-examples,bench bench-tf-venv
	$(BENCH)/transport.py
	$(BENCH)/kernels.py
	$(BENCH)/by_hand.py
	$(BENCH)/cluster.py
	$(BENCH)/start.py
	$(BENCH)/profile_step.py --variant psys:pipeline_depth=1
	$(BENCH)/scale.py --plot docs/images/scale.svg
	$(BENCH)/against_tf.py --tf-python $(TF_VENV)/bin/python

bench-quick: $(VENV)/with-examples,bench
	$(BENCH)/transport.py --quick
	$(BENCH)/against_tf.py --quick

# TF 2.15.1 has no wheels for Python 3.12 or later.
bench-tf-venv: $(TF_VENV)/made

$(TF_VENV)/made:
	$(TF_PYTHON) -m venv $(TF_VENV)
	$(TF_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  'tensorflow-cpu==2.15.1' 'numpy<2'
	@touch $@

clean:
	rm -rf $(VENV) demo build dist *.egg-info

# Installed in place (-e): what runs is always what stands in psys/.
$(VENV)/with-%: $(VENV)/bin/python pyproject.toml
	$(PIP_INSTALL) --editable '.[$*]'
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
	  "psys needs Python 3.10 or later; $(PYTHON) is " + sys.version.split()[0] + \
	  ". Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
