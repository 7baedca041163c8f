# make edit    install, edit a picture with flux-tiny, say where the pictures are
# make test    install, run the tests
# make clean   remove what these made
#
# PYTHON is any Python from 3.10 on. JOBS is how many tests run at a time, each on one core.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: edit test lint install clean

edit: $(INSTALLED)
	$(BIN)/python demos/demo_4_edit.py json/edit.json

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check .

install: $(INSTALLED)

# Editable, so that a change to the sources needs no second installation.
$(INSTALLED): setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=...")'
	@echo 'Installing into $(VENV); torch makes this take a few minutes.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[all]'
	@touch $@

clean:
	rm -rf $(VENV) build dist src/flux.egg-info .pytest_cache .ruff_cache
	find src tests demos benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
