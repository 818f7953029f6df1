# One verb a line; `make help` lists them.
PYTHON ?= python3
PORT ?= 8000
MODELS ?= $(or $(COGAN_MODELS_DIR),models)
SERVICE := .venv-service
DEV := .venv
BENCH := .venv-bench
BENCHMARK := tests/benchmarks/serving
REMOTE := -e '.[cpu,remote]'
PIP := -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help serve setup test test-ray stress lint format bench clean

help:  ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

$(SERVICE)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SERVICE)
	$(SERVICE)/bin/python $(PIP) -e '.[cpu]'
	@touch $@

$(SERVICE)/.tested: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SERVICE)
	$(SERVICE)/bin/python $(PIP) -e '.[cpu,test]'
	@touch $(SERVICE)/.done $@

$(DEV)/.done: pyproject.toml constraints.txt tests/docker/package.json
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(PIP) -e '.[cpu,training,test,test-datasets,dev]'
	$(DEV)/bin/python $(PIP) --no-deps --upgrade --target $(DEV)/kserve kserve
	cp tests/docker/package.json $(DEV)
	PATH=$(DEV)/bin:$$PATH npm install --prefix $(DEV) --no-package-lock --no-audit --no-fund --silent \
		|| echo "npm's registry is not reached: tests that need its packages are skipped"
	@touch $@

$(BENCH)/.done: $(BENCHMARK)/requirements.txt $(BENCHMARK)/requirements-ray.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -r $(BENCHMARK)/requirements.txt
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -r $(BENCHMARK)/requirements-ray.txt \
		|| echo "Ray Serve has no package for this machine: the benchmark skips it"
	@touch $@

serve: $(SERVICE)/.done  ## serve the models of MODELS, a folder or a URL, on http://localhost:8000 (PORT changes it)
	$(if $(findstring ://,$(MODELS)),$(SERVICE)/bin/python $(PIP) $(REMOTE))
	PORT=$(PORT) COGAN_MODELS_DIR=$(MODELS) $(SERVICE)/bin/python -m service

setup: $(DEV)/.done  ## install training, tests and tools into .venv

test:  ## check style, types and layers, and run every test
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target \
		test-service lint test-others test-browser

# The parts of `test`, two at a time. Tests of the service watch the clock, so that others make way for them.
test-service: $(SERVICE)/.tested
	$(SERVICE)/bin/python -m pytest -q tests/service

test-others: $(DEV)/.done
	nice $(DEV)/bin/python -m pytest -q -n 2 --dist worksteal --ignore tests/service --ignore tests/browser --ignore tests/ray

test-browser: $(SERVICE)/.tested
	@if command -v chromium >/dev/null; then $(SERVICE)/bin/python -m pytest -q tests/browser; \
	else echo "no chromium is installed: browser tests are SKIPPED"; fi

test-ray: $(DEV)/.done  ## test the service on a Ray cluster of this machine, which takes minutes
	$(DEV)/bin/python -m pytest -q tests/ray

stress: $(SERVICE)/.tested  ## load the service for minutes, well and badly
	$(SERVICE)/bin/python -m pytest -q -m stress tests/stress

bench: $(DEV)/.done $(SERVICE)/.tested $(BENCH)/.done  ## compare a training step and the service with its peers (install wrk: its load leaves them the processors); time the studio
	$(DEV)/bin/python -m tests.benchmarks.training training/recipes/digit_negative.toml
	$(BENCH)/bin/python -m tests.benchmarks.serving
	$(SERVICE)/bin/python -m tests.benchmarks.studio

lint: $(DEV)/.done  ## check style, types and layers
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports
	@if [ -d $(DEV)/node_modules/typescript ]; then $(DEV)/bin/node $(DEV)/node_modules/typescript/bin/tsc -p service/studio; \
	else echo "typescript is not installed: the studio's types are NOT CHECKED"; fi

format: $(DEV)/.done  ## bring all files into the project's form
	$(DEV)/bin/ruff format .
	$(DEV)/bin/ruff check --fix .

clean:  ## remove the environments and caches, but no run and no model
	rm -rf $(SERVICE) $(DEV) $(BENCH) .*_cache .hypothesis
