# make demo: the main job on a small data set that is made for it. make test: the tests.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint clean
demo: $(VENV)/installed
	$(RUN) -m util_scripts.demo

test: $(VENV)/installed
	$(RUN) -m pytest -n auto --dist loadfile

lint: $(VENV)/installed
	$(RUN) -m flake8

$(VENV)/installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf .demo
