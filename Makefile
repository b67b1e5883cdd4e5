# Everything runs in a virtual environment of its own, .venv; nothing but Python, make and git need be installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test quick lint stub docs clean
.DELETE_ON_ERROR:

$(VENV)/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[all]'
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[all,test,docs]'
	touch $@

demo: $(VENV)/.demo  ## real photographs, a real classifier: writes demo-out and shows it; DEMO=--no-view does not show
	$(BIN)/seewhy demo --out demo-out $(DEMO)

# Two processes, whole files each: a file's server, browser or Ray is started once, and by nobody else.
test: $(VENV)/.test  ## the test suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

quick: $(VENV)/.test  ## the tests that need no browser, cluster, compiler or second process, on small networks
	$(BIN)/python -m pytest -m "not slow and not browser and not ray and not compile"

lint: $(VENV)/.test  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

stub: $(VENV)/.test  ## what type checkers see of the public names: src/seewhy/__init__.pyi
	$(BIN)/python scripts/make_stub.py

docs: $(VENV)/.test  ## this documentation, built strictly into site/; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:
	rm -rf $(VENV) demo-out site .mypy_cache .ruff_cache .pytest_cache
