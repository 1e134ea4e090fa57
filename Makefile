# Everything sets itself up: a machine with Python 3.10 to 3.13 and make is enough.
#
#   make demo    ground a tabletop recording live: node, player and recorder; into out/demo
#   make test    lint, types and tests
#   make ros     tests against a sourced ROS 2 (colcon, launch)

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= out

READY := $(VENV)/.ready

.PHONY: demo test lint unit ros bench clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   /  /p' Makefile

# Made anew when what is to be installed changes; otherwise reused.
$(READY): setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "videogem_ros with DDS needs Python 3.10 to 3.13; $(PYTHON) is $$($(PYTHON) --version). Try make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "python3 has no venv module: install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,dds]'
	@# Machines without a screen often lack libGL, which this package never uses.
	@# Both kinds of OpenCV install the same files: where one goes, the other has to come anew.
	@$(BIN)/python -c 'import cv2' 2>/dev/null || \
	  { $(BIN)/python -m pip uninstall --quiet --yes opencv-python opencv-python-headless && \
	    $(BIN)/python -m pip install --quiet -c constraints.txt opencv-python-headless && \
	    $(BIN)/python -c 'import cv2'; }
	@touch $(READY)

demo: $(READY)
	$(BIN)/videogem-ros demo --out $(OUT)/demo

test: lint unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not ros and not alone"
	$(BIN)/python -m pytest -m alone

ros: $(READY)
	$(BIN)/python -m pytest -m ros

bench: $(READY)
	$(BIN)/python benchmarks/parity.py test/data/golden/*.safetensors
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf $(VENV) $(OUT) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
