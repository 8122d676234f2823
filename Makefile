# make demo: the main job on a small data set that is made for it. make test: all tests.
# make quick: the fast tests, for daily work. make lint, make types: style and types.
# make audit: known vulnerabilities of what is installed. make fuzz: a minute of damaged files.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# A process takes tests that follow one another, which share the fixtures of their file.
PYTEST := $(RUN) -m pytest -n auto --dist worksteal
# Without byte code each process of tests would compile all of them again: 5 CPU seconds.
unexport PYTHONDONTWRITEBYTECODE
# glibc keeps memory that is freed, up to a gigabyte, which is zeroed again otherwise.
test quick: export MALLOC_MMAP_THRESHOLD_ = 4294967296
test quick: export MALLOC_TRIM_THRESHOLD_ = 1073741824

.PHONY: demo test quick lint types audit fuzz clean
demo: $(VENV)/installed
	$(RUN) -m util_scripts.demo

# Export has a process of its own: one that had run most other tests ended in it without a word. It then
# runs tests that wait more than they work. The shell keeps Ctrl-C from what runs behind, which is
# therefore ended by hand. Files are made in memory where there is room: on a disk that takes a minute of
# system time.
BESIDE := $(wildcard tests/test_*export*.py) tests/test_distributed.py tests/test_live.py
SAID := $(VENV)/test_beside.log
test: $(VENV)/installed
	@if $(RUN) -c 'import shutil; assert shutil.disk_usage("/dev/shm").free > 8e9' 2>/dev/null; \
	then TMPDIR=$$(mktemp -d /dev/shm/tests-XXXXXX); export TMPDIR; trap 'rm -rf "$$TMPDIR"' EXIT; fi; \
	$(RUN) -m pytest -q $(BESIDE) > $(SAID) 2>&1 & beside=$$!; trap "kill $$beside" INT TERM; \
	$(PYTEST) $(addprefix --ignore ,$(BESIDE)); status=$$?; \
	wait $$beside || status=1; cat $(SAID); exit $$status

quick: $(VENV)/installed
	$(PYTEST) -m "not slow and not golden and not videos"

lint: $(VENV)/installed
	$(RUN) -m flake8
	$(RUN) -m isort --check --diff .

types: $(VENV)/installed
	$(RUN) -m mypy

# What pip-audit asks for each package; mirrors may lack it, and it then passes over all of them.
ADVISORIES := https://pypi.org/pypi/pip/24.0/json
audit: $(VENV)/installed
	@if $(RUN) -c 'import urllib.request as r; r.urlopen("$(ADVISORIES)", timeout=20)' 2>/dev/null; \
	then $(RUN) -m pip_audit --local --progress-spinner off; \
	else echo 'pip-audit: left out, since $(ADVISORIES) does not answer'; fi

fuzz: $(VENV)/installed
	$(RUN) -m tests.fuzz --minutes 1 --seed $$(date +%s)

$(VENV)/installed: requirements.txt requirements-dev.txt requirements-export.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf .demo
