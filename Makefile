# `make` alone prints the targets. Everything happens in .venv, which is created at the first call.

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export GRADIO_ANALYTICS_ENABLED := False
LOCK ?= requirements-dev.lock
COMPOSE := docker compose --file deploy/compose.yaml
OLDER := $(patsubst tests/versions/%.lock,.versions/%/installed,$(wildcard tests/versions/*.lock))
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-images test-versions lint lock ui app bench screenshots clean \
	server server-stop server-reset server-backup server-restore

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

# TORCH=cpu takes PyTorch's CPU builds; LOCK=requirements.lock leaves out what only tests and checks need.
.venv/installed: $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or later is needed; run: make PYTHON=python3.13")'
	$(PYTHON) -m venv .venv
ifeq ($(TORCH),cpu)
	PIP_QUIET=1 sh deploy/install_cpu.sh $(LOCK)
else
	$(BIN)/pip install --disable-pip-version-check --quiet --require-hashes --requirement $(LOCK)
endif
	@touch $@

demo: .venv/installed  ## train on digits, evaluate, promote: the three scripts in less than a minute
	@set -e; \
	trained=$$(python pytorch_demo.py --dataset digits); \
	run=$$(echo "$$trained" | python -c 'import json, sys; print(json.load(sys.stdin)["run_id"])'); \
	python evaluate.py --run-id $$run --log-mlflow; \
	python promote.py --run-id $$run; \
	echo; \
	echo "Done. 'make ui' shows the run, its reports and the model in Production: http://127.0.0.1:5000"

test: .venv/installed  ## run the fast tests: what to run for every change
	pytest -m "not slow"

test-all: .venv/installed  ## run every test: servers, images, browser, races, kills, full data sets too
	pytest

test-images: .venv/installed  ## build and run the images alone (needs Docker)
	pytest tests/slow/test_images.py tests/slow/test_compose.py

# An older MLflow has other dependencies, so each is in an environment of its own.
.versions/%/installed: tests/versions/%.lock | .venv/installed
	uv venv --quiet --clear --python $(BIN)/python $(@D)
	uv pip install --quiet --require-hashes --python $(@D) --requirement $<
	@touch $@

test-versions: $(OLDER)  ## run the scripts with servers and clients of other MLflow versions (installs them)
	pytest tests/versions

lint: .venv/installed  ## check style, types, the direction of imports, Dockerfiles and workflows
	ruff check .
	ruff format --check .
	mypy . .github/summary.py
	lint-imports
	hadolint deploy/Dockerfile tests/stand_ins/Dockerfile
	zizmor --offline --quiet .github

lock: export UV_CUSTOM_COMPILE_COMMAND := make lock
lock: .venv/installed  ## write the lock files from the requirement files (UPGRADE=--upgrade: newest versions)
	$(COMPILE) $(UPGRADE) requirements-dev.txt --output-file requirements-dev.lock
	$(COMPILE) --constraint requirements-dev.lock requirements.txt --output-file requirements.lock
	$(COMPILE) --constraint requirements-dev.lock requirements-server.txt --output-file requirements-server.lock
	$(COMPILE) --constraint requirements-dev.lock requirements-signing.txt --output-file requirements-signing.lock
	$(COMPILE) --constraint requirements-dev.lock requirements-audit.txt --output-file requirements-audit.lock
	for file in tests/versions/*.txt; do $(COMPILE) $(UPGRADE) $$file --output-file $${file%.txt}.lock || exit; done

ui: .venv/installed  ## show runs and models at http://127.0.0.1:5000 (PORT=... for another port)
	mlflow ui --port $(or $(PORT),5000)

app: .venv/installed  ## draw a digit and ask the model in Production: http://127.0.0.1:7860 (PORT=..., MODEL=...)
	python app.py --port $(or $(PORT),7860) $(if $(MODEL),--model-name "$(MODEL)")

bench: .venv/installed  ## measure what the README says about speed
	python benchmarks/time_to_accuracy.py

screenshots: .venv/installed  ## take the pictures of the UI and the app in README and docs again (needs Chromium)
	NO_SKIP=1 SCREENSHOTS=docs/images pytest tests/slow/test_ui.py tests/slow/test_app.py --numprocesses 0

# A random secret for each variable that compose.yaml requires and the file lacks. Only the owner can read the file.
deploy/.env: deploy/compose.yaml
	@umask 077; touch $@; cp $@ $@.new; \
	for name in $$(grep --only-matching '\$${[A-Z_]*:?' $< | tr --delete '$${:?' | sort --unique); do \
		grep --quiet "^$$name=." $@ || $(PYTHON) -c 'import secrets, sys; print(f"{sys.argv[1]}={secrets.token_urlsafe(24)}")' $$name; \
	done >> $@.new
	@mv $@.new $@

server: deploy/.env  ## start the team's server (docs/server.md); the first start generates its secrets
	$(COMPOSE) up --detach --build --wait
	@echo "The server is up. Name: admin, password: ADMIN_PASSWORD in deploy/.env"

server-stop:  ## stop it; its data stay
	$(COMPOSE) stop

server-reset:  ## delete all its data; asks first
	@printf "This deletes every run, model and account of the server. Type yes to continue: "; \
	read -r answer; [ "$$answer" = yes ] || { echo "Nothing was deleted."; exit 1; }
	$(COMPOSE) down --volumes

server-backup:  ## save all its data to FILE (default: server-backup.tar)
	@umask 077; \
	file='$(or $(FILE),server-backup.tar)'; \
	trap 'rm -f "$$file.new"' EXIT; \
	$(COMPOSE) exec -T mlflow python backup.py save > "$$file.new" \
	&& $(COMPOSE) exec -T mlflow python backup.py check < "$$file.new" \
	&& sync "$$file.new" \
	&& mv "$$file.new" "$$file"

server-restore:  ## restore FILE (default: server-backup.tar) into an empty server
	$(COMPOSE) exec -T mlflow python backup.py restore < '$(or $(FILE),server-backup.tar)'

clean:  ## remove .venv and caches; data, runs and models stay
	rm -rf .venv .versions .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
