# make edit      install, edit a picture with flux-tiny, say where the pictures are
# make test      install, run the tests
# make versions  run the tests of loading and of text encoders with each of TRANSFORMERS
# make clean     remove what these made
#
# PYTHON is any Python from 3.10 on. JOBS is how many tests run at a time, each on one core.
# TRANSFORMERS are releases of transformers; `pinned` is the one of constraints.txt.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
TRANSFORMERS ?= 4.45.2 4.57.6 5.6.2 pinned

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
QUANT := $(VENV)/quant
OF_TORCHAO := tests/precision tests/placement/test_quantised.py tests/placement/test_peaks.py \
	tests/benchmarks/test_precision_bench.py \
	"tests/test_docs_pages.py::test_the_commands_of[precision]"
VERSIONS := .versions
OF_TRANSFORMERS := tests/modules/test_conditioner.py tests/weights tests/pictures/test_features.py \
	tests/pictures/test_files.py

.PHONY: edit test versions lint install clean

edit: $(INSTALLED)
	$(BIN)/python demos/demo_4_edit.py json/edit.json

test: $(INSTALLED) $(QUANT)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
	PYTHONPATH=$(QUANT) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(OF_TORCHAO)

# Goes on after a release that fails, and ends with a line for each.
versions: $(TRANSFORMERS:%=$(VERSIONS)/%/.installed)
	@failed=0; for release in $(TRANSFORMERS); do \
		echo "transformers $$release"; \
		OMP_NUM_THREADS=1 $(VERSIONS)/$$release/bin/python -m pytest -q -n $(JOBS) --dist worksteal \
			$(OF_TRANSFORMERS) > $(VERSIONS)/$$release/tests.txt 2>&1 || failed=1; \
	done; \
	for release in $(TRANSFORMERS); do \
		grep -E '^(FAILED|ERROR)' $(VERSIONS)/$$release/tests.txt; \
		echo "transformers $$release: $$(tail -n 1 $(VERSIONS)/$$release/tests.txt)"; \
	done; exit $$failed

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

# Beside the environment and not in it: where transformers finds torchao it imports it, which takes seconds and
# prints, so tests of what an import does need a path without it. It needs nothing but torch.
$(QUANT)/.installed: $(INSTALLED)
	grep '^torchao==' constraints.txt > $(VENV)/quant.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(QUANT) \
		--requirement $(VENV)/quant.txt
	@touch $@

# Without constraints.txt, so that pip picks all else as it would for a user who holds this release. Of torch it
# takes the pinned one, which `make test` has fetched already. Without diffusers, whose newest releases cannot be
# imported beside old transformers: what is held against it is skipped.
$(VERSIONS)/%/.installed: setup.py pyproject.toml constraints.txt
	@echo 'Installing transformers $* into $(VERSIONS)/$*'
	$(PYTHON) -m venv $(VERSIONS)/$*
	grep '^torch==' constraints.txt > $(VERSIONS)/$*/asked.txt
	$(if $(filter pinned,$*),grep '^transformers==' constraints.txt,echo transformers==$*) >> $(VERSIONS)/$*/asked.txt
	$(VERSIONS)/$*/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement $(VERSIONS)/$*/asked.txt --editable '.[plots,similarity]' pytest pytest-xdist
	@touch $@

clean:
	rm -rf $(VENV) $(VERSIONS) build dist src/flux.egg-info .pytest_cache .ruff_cache
	find src tests demos benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
