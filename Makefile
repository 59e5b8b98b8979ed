# Every target sets up what it needs; `make help` lists them. ARGS reaches the program: make test ARGS="-k inspector".
VENV := .venv
PY := $(VENV)/bin/python
INSTALL := scripts/install.sh $(VENV)
NATIVE := $(wildcard native/*.c native/*.h native/*.py)
ARGS ?=
# Tests run in as many processes as there are cores (tests/conftest.py); the last -n counts: make test ARGS=-n0 is one.
WORKERS := -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo demo-federation test test-images cluster cluster-programs coverage lint bench dist image site clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.native ## set everything up and watch an MCP client call containerized tools
	@$(PY) scripts/demo.py $(ARGS)

demo-federation: $(VENV)/.native ## the same with one server that republishes the tools of two others
	@$(PY) scripts/demo_federation.py $(ARGS)

test: $(VENV)/.installed-dev ## set up what the tests need, as far as it can be, and run them
	@$(PY) -m tests.kit.images --if-possible
	@$(PY) -m pytest $(WORKERS) $(ARGS)

test-images: $(VENV)/.installed-dev ## have the Docker images that the tests use: found, pulled or made
	@$(PY) -m tests.kit.images

cluster: $(VENV)/.installed-dev cluster-programs ## run a Kubernetes cluster on this machine (as root), until it is interrupted
	@$(PY) -m tests.cluster up $(ARGS)

cluster-programs: ## have Kubernetes and helm for the tests: found, or built by Go, which takes minutes
	@python3 -m tests.cluster.programs

coverage: $(VENV)/.installed-dev ## run the tests and say which lines of praxis_mcp/ none of them reaches
	@$(PY) -m tests.kit.images --if-possible
	@mkdir -p build/coverage && chmod 1777 build/coverage
	@$(PY) -m pytest $(WORKERS) --cov --cov-report=term:skip-covered --cov-report=html $(if $(ARGS),--cov-fail-under=0) $(ARGS)

lint: $(VENV)/.installed-dev ## ruff, pyright, the import rules, and words that read like a translation
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(VENV)/bin/pyright
	$(VENV)/bin/lint-imports
	$(PY) scripts/check_voice.py

bench: $(VENV)/.native ## the benchmarks
	@$(PY) -m benchmarks $(ARGS)

image: dist ## an image of the server, with the wheel in dist/ (docs/kubernetes.md)
	docker build --file deploy/Dockerfile --tag praxis-mcp:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) $(ARGS) .

site: $(VENV)/.installed-site ## the documentation as a site, in build/site
	@$(PY) -m scripts.lay_out_site build/docs
	@$(VENV)/bin/zensical build --clean --strict

dist: ## the release: a wheel with praxis-init for both architectures, and an sdist, in dist/
	@scripts/build-release.sh dist

clean: ## remove what building and testing left (not .venv)
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis htmlcov .coverage .coverage.*
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)

# The stamps lie inside .venv, so that removing it is starting afresh.
$(VENV)/.made: scripts/make-venv.sh
	@PYTHON="$(PYTHON)" scripts/make-venv.sh $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml hatch_build.py
	@echo "Installing praxis-mcp into $(VENV) (once)"
	@$(INSTALL) --editable '.[all]'
	@touch $@

# Built by the installation already, the first time; by a compiler of this machine, or else by zig, which that fetches.
$(VENV)/.native: $(VENV)/.installed $(NATIVE)
	@$(PY) native/build.py || $(INSTALL) --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.native
	@echo "Installing the development tools into $(VENV)"
	@$(INSTALL) --group dev
	@touch $@

$(VENV)/.installed-site: $(VENV)/.installed
	@$(INSTALL) --group site
	@touch $@
