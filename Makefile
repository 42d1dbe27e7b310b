# Two commands do everything on a fresh machine: `make demo` and `make test`.
# PYTHON picks the interpreter (3.11 or newer); CI=true lets `make` install Debian packages without asking.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Bytecode is compiled as it is imported: most of what the extras bring never is, and all of it takes a minute.
PIP := $(BIN)/pip install --quiet --no-compile
FASHION := /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz

.PHONY: demo test prepare checks lint types docs tests install install-test debian benchmarks clean

demo: install
	$(BIN)/pretrim demo -o runs/demo --overwrite

test: prepare tests

# Debian's packages are unpacked while pip works and mypy reads; the tests have the cores to themselves.
prepare:
	$(MAKE) --no-print-directory -j2 debian checks

checks: lint types docs

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint Dockerfile

types: install-test
	$(BIN)/mypy

# The site, in build/site. Strict: a link that leads nowhere is an error.
docs: install-test
	$(BIN)/python scripts/docs_site.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# One thread a worker: several pools of threads on the same cores crawl. Bytecode is kept even where the environment says
# not to: the tests start hundreds of processes, each of which would compile torch and an exporter again.
tests: install-test
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal --durations=15

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Torch first: with it in place, no other package can pull another build of it. Not the newest that pyproject.toml allows:
# of 2.14 PyPI has builds for CUDA alone, of several gigabytes.
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml
	$(PIP) "torch>=2.11,<2.14" numpy
	$(PIP) --editable ".[data,study]"
	touch $@

# torchvision and timm without their dependencies: each asks for a CUDA build of torch (docs/zoo.md).
$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable ".[dev]"
	$(PIP) --no-deps "torchvision>=0.26,<0.30" "timm>=1.0.15,<2"
	$(PIP) --no-deps "mcufit>=0.5.2,<0.6"
	$(PIP) "huggingface_hub>=0.20" pyyaml
	touch $@

# What tests want of Debian's packages, where CI asks for it; never without asking elsewhere: those tests skip then.
debian:
	@if [ "$$CI" = true ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		[ -e $(FASHION) ] && [ -x /usr/sbin/sshd ] && [ -x /usr/bin/chromium ] && [ -d /usr/lib/postgresql ] \
			&& [ -x /usr/bin/arm-none-eabi-gcc ] && [ -x /usr/bin/qemu-system-arm ] \
			&& command -v node >/dev/null || apt-get update -qq; \
		[ -e $(FASHION) ] || apt-get install -y -qq dataset-fashion-mnist || echo "without Fashion-MNIST"; \
		[ -x /usr/sbin/sshd ] || apt-get install -y -qq openssh-server || echo "without sshd"; \
		[ -x /usr/bin/chromium ] || apt-get install -y -qq --no-install-recommends chromium || echo "without Chromium"; \
		[ -d /usr/lib/postgresql ] || apt-get install -y -qq --no-install-recommends postgresql \
			|| echo "without PostgreSQL"; \
		[ -x /usr/bin/arm-none-eabi-gcc ] || apt-get install -y -qq --no-install-recommends gcc-arm-none-eabi \
			libnewlib-arm-none-eabi || echo "without a compiler for Cortex-M"; \
		[ -x /usr/bin/qemu-system-arm ] || apt-get install -y -qq --no-install-recommends qemu-system-arm \
			|| echo "without QEMU"; \
		command -v node >/dev/null || apt-get install -y -qq --no-install-recommends nodejs \
			|| echo "without Node.js"; fi

benchmarks: install-test
	$(PIP) --no-deps torch-pruning==1.6.1
	$(BIN)/python benchmarks/modes.py
	$(BIN)/python benchmarks/planning.py
	$(BIN)/python benchmarks/coverage.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training_cost.py
	$(BIN)/python benchmarks/throughput.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
