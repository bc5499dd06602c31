# make demo | test | test-fast | test-web | bench | lint: each brings its own environment; nothing but Python and its venv module is needed.
#
# PYTHON=python3.12     the interpreter that the environment is made from
# TORCH=cpu | cuda      which build of torch; otherwise as the machine has an NVIDIA GPU or not
# TORCH_INDEX=address   a further package index with builds of torch.  The general package registry serves CUDA builds
#                       to Linux, which run without a GPU, too, but are large; PyTorch's own installation page names
#                       the index of its small CPU builds.
# VENV=folder           where the environment lies, relative to this folder
#
# TORCH and TORCH_INDEX are remembered by the environment, PYTHON is not.

PYTHON ?= python3
TORCH ?= auto
TORCH_INDEX ?=
VENV ?= .venv

set_up = @"$(PYTHON)" Utilities/set_up.py --venv "$(VENV)" --torch "$(TORCH)" --torch-index "$(TORCH_INDEX)"
ifeq ($(OS),Windows_NT)
bin = "$(VENV)/Scripts"
else
bin = "$(VENV)/bin"
endif

# Most tests are small, or start workers of their own and wait: several processes of one thread each, and those that wait
# leave the cores to others.
pytest = $(bin)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
test test-fast: export OMP_NUM_THREADS = 1
test test-fast: export OMP_WAIT_POLICY = PASSIVE

.PHONY: help demo test test-fast test-web bench lint
.NOTPARALLEL:

help:
	@echo "make demo         reconstruct the bundled scan and write pictures and a report to demo-output/"
	@echo "make test         run all tests"
	@echo "make test-fast    run those that take a moment, of every part: about a minute"
	@echo "make test-web     run those of the page in the browser, in an environment of its own, .venv-web"
	@echo "make bench        time the projector beside ASTRA's, a reconstruction and the networks; the quick benchmark"
	@echo "make lint         check style and types"

demo:
	$(set_up) report
	$(bin)/diffusionmbir demo

test:
	$(set_up) test
	$(pytest)

test-fast:
	$(set_up) test
	$(pytest) -m "not slow"

# Slicer's own libraries are another version there than in the other tests.
test-web: VENV = .venv-web
test-web:
	$(set_up) web-test
	$(bin)/python -m pytest Testing/engine/test_serve.py Testing/engine/test_serve_browser.py

bench:
	$(set_up) bench report
	$(bin)/python Testing/benchmarks/projector.py
	$(bin)/python Testing/benchmarks/reconstruction.py
	$(bin)/python Testing/benchmarks/networks.py --runs 1
	$(bin)/diffusionmbir benchmark --quick -o bench-output

lint:
	$(set_up) dev
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
