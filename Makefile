# Two commands: `make demo` and `make test`. Each does all the set-up it needs.
#   TORCH=cpu    the CPU build of PyTorch (smaller)
#   TORCH=cuda   the CUDA build
#   default      what pip gives on this machine

PYTHON ?= python3
VENV ?= .venv
TORCH ?=
SECONDS_TO_TRAIN ?= 36
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
TORCH_INDEX_cpu = --extra-index-url https://download.pytorch.org/whl/cpu
TORCH_INDEX_cuda = --extra-index-url https://download.pytorch.org/whl/cu130
INDEX = $(TORCH_INDEX_$(TORCH))
INPUTS = pyproject.toml constraints.txt
RUN_HEADLESS = $(if $(shell command -v xvfb-run),xvfb-run -a -s "-screen 0 1400x900x24",)

.PHONY: demo gui test lint clean

demo: $(VENV)/.core  ## train on a real 2D and a real 3D image, no screen needed
	$(VENV)/bin/napari-msseg demo --seconds $(SECONDS_TO_TRAIN)

gui: $(VENV)/.gui  ## the same image in napari
	$(VENV)/bin/napari-msseg demo --gui

test: $(VENV)/.test  ## all tests; brings its own virtual screen
	$(RUN_HEADLESS) $(VENV)/bin/python -m pytest

lint: $(VENV)/.test
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy

$(VENV)/bin/python:
	sh tools/system_packages.sh venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(INPUTS) | $(VENV)/bin/python
	@echo "Installing packages into $(VENV) (once; PyTorch is large) …"
	$(PIP) $(INDEX) -e .
	@touch $@

$(VENV)/.gui: $(VENV)/.core
	sh tools/system_packages.sh qt
	$(PIP) $(INDEX) -e ".[pyqt6]"
	@touch $@

$(VENV)/.test: $(VENV)/.gui
	sh tools/system_packages.sh xvfb
	$(PIP) $(INDEX) -e ".[pyqt6,test]"
	@touch $@

clean:
	rm -rf $(VENV) demo-out build dist .pytest_cache .mypy_cache .ruff_cache
