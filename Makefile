# `make` alone prints the targets. Everything happens in .venv, which is made at the first call.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test lint ui bench clean

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or later is needed; run: make PYTHON=python3.13")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet --requirement requirements.txt
	@touch $@

demo: .venv/installed  ## train on digits, evaluate, promote: the whole pipeline in less than a minute
	@set -e; \
	trained=$$(python pytorch_demo.py --dataset digits); \
	run=$$(echo "$$trained" | python -c 'import json, sys; print(json.load(sys.stdin)["run_id"])'); \
	python evaluate.py --run-id $$run --log-mlflow; \
	python promote.py --run-id $$run; \
	echo; \
	echo "Done. 'make ui' shows the run, its reports and the model in Production: http://127.0.0.1:5000"

test: .venv/installed  ## run the test suite
	pytest

lint: .venv/installed  ## check style and types
	ruff check .
	ruff format --check .
	mypy . .github/summary.py

ui: .venv/installed  ## browse runs and models at http://127.0.0.1:5000 (PORT=... for another port)
	mlflow ui --port $(or $(PORT),5000)

bench: .venv/installed  ## measure what the README says about speed
	python benchmarks/time_to_accuracy.py

clean:  ## remove .venv and caches; data, runs and models stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
