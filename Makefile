# Everything is installed into .venv from requirements.lock at first use; a target takes its arguments as ARGS="…".
# Nothing here reads a home folder: pip, the jars and the local stack fall back to what an empty one gives.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/installed
PYTHON ?= $(shell .ci/python)
ARGS   ?=

# Tests run side by side; how many is chosen in tests/conftest.py, ARGS="-n 0" runs them one after the other. Compiled
# files are kept, whatever the environment says: a fifth of what a test's worker takes to start is compiling.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast bench bench-peers check docs clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(STAMP) ## the environment in .venv

demo: $(STAMP) ## 6,000 Discord members end to end, on servers of its own
	@$(BIN)/lovelace demo $(ARGS)

test: $(STAMP) ## all tests, on real servers; ARGS="tests/unit -q" chooses
	@$(PYTEST) $(ARGS)

test-fast: $(STAMP) ## those that need no server, with few examples a property
	@HYPOTHESIS_PROFILE=$${HYPOTHESIS_PROFILE:-fast} $(PYTEST) --no-servers -m "not site" $(ARGS)

bench: $(STAMP) ## rows a second beside the limits of the machine; ARGS="NAME …" chooses
	@$(BIN)/python -m benchmarks $(ARGS)

bench-peers: $(STAMP) ## the same job by other engines, beside ours in one run (Go builds Bento)
	@$(BIN)/python -m benchmarks.peers $(ARGS)

check: $(STAMP) ## format, lint, types, structure
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/test_structure.py

docs: $(STAMP) ## the documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

clean: ## the environment and what tools left; the local stack's data stays
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache

# .ci/install writes the stamp last: an installation that was killed half-way begins anew.
$(STAMP): requirements.lock
	@test -n "$(PYTHON)" # .ci/python has said what is missing
	@"$(PYTHON)" .ci/install
