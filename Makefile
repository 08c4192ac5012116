# Everything below installs what it needs into .venv on first use.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# make dev UV=uv installs with uv, which is faster than pip.
INSTALL = $(if $(UV),$(UV) pip install --compile-bytecode --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check) --quiet

.PHONY: demo install dev lock test fuzz lint typecheck notebooks docs docs-serve wheel lowest soak format clean

demo: install  ## pretrain SimCLR on handwritten digits and show what it has learned
	$(BIN)/ssl-lab pretrain experiment=simclr_digits

install: $(VENV)/.installed
dev: $(VENV)/.installed-dev

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "ssl_lab needs Python 3.11 or later; set it with make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) -e '.[all]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed

lock: dev  ## write requirements.lock: the versions in .venv, with which the figures are measured
	tests/packaging/write_lock.sh $(BIN)/python

test: dev  ## all tests, in three processes for two cores: one of them mostly waits for a Slurm of its own
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3

fuzz: dev  ## 10,000 random sets of overrides and 1,000 damaged files; NUM= and SEED= for others
	PYTHONPATH=tests $(BIN)/python tests/fuzz/damage.py 1000 $(or $(SEED),0)
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/overrides.py $(or $(NUM),10000) $(or $(SEED),0)

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell ssl_lab conf tests docs benchmarks README.md CHANGELOG.md

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: dev
	$(BIN)/mypy

notebooks: dev  ## execute every notebook, two at a time
	PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=600 -n 2 notebooks

docs: dev  ## build the documentation into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

docs-serve: dev  ## show the documentation at 127.0.0.1:8000 while it is written
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve --dev-addr 127.0.0.1:8000

wheel: dev  ## build the wheel and run the demo from it in a fresh environment
	tests/packaging/check_wheel.sh $(BIN)/python

lowest: dev  ## resolve every extra, and train for a few steps with the lowest versions that pyproject.toml allows
	tests/packaging/check_lowest.sh $(BIN)/python

soak: dev  ## kill commands at every change of files, and runs at random moments; compare every file; NUM= kills each
	$(BIN)/python tests/soak/points.py --kills $(or $(NUM),110)
	$(BIN)/python tests/soak/kills.py --kills $(or $(NUM),100)

clean:
	rm -rf build dist .mypy_cache .ruff_cache
