# `make` alone prints the targets. Everything happens in .venv, which is made at the first call.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help demo test lint ui app bench screenshots clean server server-stop server-reset server-backup server-restore
COMPOSE := docker compose --file deploy/compose.yaml

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

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

app: .venv/installed  ## draw a digit and ask the model in Production: http://127.0.0.1:7860 (PORT=...)
	python app.py --port $(or $(PORT),7860)

bench: .venv/installed  ## measure what the README says about speed
	python benchmarks/time_to_accuracy.py

screenshots: .venv/installed  ## take the pictures of the UI and the app in README and docs again (needs Chromium)
	NO_SKIP=1 SCREENSHOTS=docs/images pytest tests/test_ui.py tests/test_app.py --numprocesses 0

# A random secret for each variable that compose.yaml asks for; readable by the owner alone, whole or not there.
deploy/.env:
	@umask 077; grep --only-matching '\$${[A-Z_]*:?' deploy/compose.yaml | tr --delete '$${:?' | sort --unique \
	| $(PYTHON) -c 'import secrets, sys; [print(f"{line.strip()}={secrets.token_urlsafe(24)}") for line in sys.stdin]' > $@.new
	@mv $@.new $@

server: deploy/.env  ## start the team's server (docs/server.md); secrets are made at the first start
	$(COMPOSE) up --detach --build --wait
	@echo "The server is up. Name: admin, password: ADMIN_PASSWORD in deploy/.env"

server-stop:  ## stop it; everything stays
	$(COMPOSE) stop

server-reset:  ## delete everything that it holds; asks first
	@printf "This deletes every run, model and account of the server. Type yes to go on: "; \
	read -r answer; [ "$$answer" = yes ] || { echo "Nothing was deleted."; exit 1; }
	$(COMPOSE) down --volumes

server-backup:  ## save everything that it holds to FILE (default: server-backup.tar)
	@umask 077; $(COMPOSE) exec -T mlflow python backup.py save > $(or $(FILE),server-backup.tar).new
	@mv $(or $(FILE),server-backup.tar).new $(or $(FILE),server-backup.tar)

server-restore:  ## put FILE (default: server-backup.tar) into an empty server
	$(COMPOSE) exec -T mlflow python backup.py restore < $(or $(FILE),server-backup.tar)

clean:  ## remove .venv and caches; data, runs and models stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
