# Everything runs in a virtual environment of its own, .venv; nothing but Python, make and git need be installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test quick test-lowest test-mindspore test-others lint stub bench docs clean
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

QUICK := not slow and not browser and not ray and not compile

quick: $(VENV)/.test  ## the contracts on small networks, and the tests of the files that you touched
	$(BIN)/python -m pytest -n 2 -m "$(QUICK)" $$($(BIN)/python scripts/quick.py)

# The suite needs tools that want newer libraries than seewhy does: what is tried here needs none of them.
LOWEST := tests/test_api.py tests/test_types.py tests/test_targets.py tests/test_statistics.py tests/contract/test_metrics.py \
	tests/contract/test_misuse.py tests/datasets tests/draw tests/explainers/test_rise.py tests/exports tests/images \
	tests/models tests/runs tests/web
test-lowest:  ## the lowest versions that pyproject.toml allows, in an environment of their own; downloads some GB
	test -x $(VENV)-lowest/bin/python || $(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python scripts/lowest.py > $(VENV)-lowest/lowest.txt
	$(VENV)-lowest/bin/pip install --quiet --disable-pip-version-check -c $(VENV)-lowest/lowest.txt \
		-e '.[all,onnx,openvino]' pytest httpx
	$(VENV)-lowest/bin/python -m pytest -m "$(QUICK)" --ignore tests/web/test_openapi.py $(LOWEST)

# MindSpore wants other versions of numpy and pyarrow; everything else is taken from .venv, in the second place.
test-mindspore: $(VENV)/.test  ## cells of MindSpore against torch, in an environment of their own; downloads 0.4 GB
	test -x $(VENV)-mindspore/bin/python || $(PYTHON) -m venv $(VENV)-mindspore
	$(VENV)-mindspore/bin/pip install --quiet --disable-pip-version-check 'mindspore>=2.10' 'numpy<2' 'pyarrow<22' pytest
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> $$($(VENV)-mindspore/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/zz_shared.pth
	PYTHONPATH=src $(VENV)-mindspore/bin/python -m pytest tests/clients/test_mindspore.py \
		"tests/e2e/test_docs.py::test_code_runs[using-with/mindspore.md]"

# Libraries that bring many others: trackers, a notebook's kernel; and Ultralytics (AGPL: for tests alone).
OTHERS_ALONE := ultralytics ultralytics-thop opencv-python-headless polars polars-runtime-32 psutil
OTHERS := tensorboard mlflow wandb fiftyone ipykernel ipywidgets nbclient pandas webdataset albumentations==2.0.8
test-others: $(VENV)/.test  ## what is exported to other libraries, read back by them; downloads 1 GB
	test -x $(VENV)-others/bin/python || $(PYTHON) -m venv $(VENV)-others
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
		> $$($(VENV)-others/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/zz_shared.pth
	$(VENV)-others/bin/pip install --quiet --disable-pip-version-check $(OTHERS)
	$(VENV)-others/bin/pip install --quiet --disable-pip-version-check --no-deps $(OTHERS_ALONE)
	PYTHONPATH=src $(VENV)-others/bin/python -m pytest -rs tests/exports/test_trackers.py tests/clients/test_fiftyone.py \
		tests/clients/test_notebook.py tests/clients/test_ultralytics.py tests/clients/test_albumentations.py \
		tests/datasets/test_shards.py "tests/e2e/test_docs.py::test_code_runs[using-with/frames.md]" \
		"tests/e2e/test_docs.py::test_code_runs[using-with/webdataset.md]" \
		"tests/e2e/test_docs.py::test_code_runs[using-with/albumentations.md]" \
		"tests/e2e/test_docs.py::test_code_runs[using-with/ultralytics.md]" "tests/e2e/test_docs.py::test_code_runs[using-with/trackers.md]"

lint: $(VENV)/.test  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

stub: $(VENV)/.test  ## what type checkers see of the public names: src/seewhy/__init__.pyi
	$(BIN)/python scripts/make_stub.py

docs: $(VENV)/.test  ## this documentation, built strictly into site/; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Parts by name: make bench BENCH="first_call peers". What each measures stands in benchmarks/NAME.py.
BENCH ?= first_call explainers
PEERS := $(VENV)-peers
PEERS_SIDE := $(if $(filter peers,$(BENCH)),$(PEERS)/.made)

$(PEERS)/.made:
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check torch torchvision captum grad-cam torchcam quantus dianna xaitk-saliency
	touch $@

bench: $(VENV)/.test $(PEERS_SIDE)  ## what seewhy costs, measured: into bench-out/NAME.txt; peers builds an environment for other libraries
	mkdir -p bench-out
	set -e; for part in $(BENCH); do \
		if [ $$part = peers ]; then more="--peer $(PEERS)/bin/python"; else more=""; fi; \
		$(BIN)/python benchmarks/$$part.py $$more > bench-out/$$part.txt || { cat bench-out/$$part.txt; exit 1; }; \
		cat bench-out/$$part.txt; done

clean:
	rm -rf $(VENV) $(VENV)-lowest $(PEERS) bench-out $(VENV)-mindspore $(VENV)-others demo-out site .mypy_cache .ruff_cache .pytest_cache
