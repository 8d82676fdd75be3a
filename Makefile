# Everything runs in .venv, made once from constraints.txt. Python 3.11 or newer and make are all it needs.
PYTHON ?= python3.11
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint types unit test-slow docs clean

help:  ## list what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/ready  ## set up, then train on the Python sources of this machine and complete code (about 4 minutes)
	$(BIN)/gpt4o-lit fit --config quickstart

test: lint types unit  ## set up, then lint, types and tests, of which one builds the documentation

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy

unit: .venv/ready
	$(BIN)/pytest -n 2 -m "not slow"

docs: .venv/ready  ## build the documentation into site/, from pages and from the program
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "open site/index.html"

test-slow: .venv/ready  ## the tests that take minutes
	$(BIN)/pytest -m slow

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:  ## remove what the build left; runs and corpora stay
	rm -rf .venv build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache
