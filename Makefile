# Everything a fresh clone needs. `make render` and `make test` go through `make setup`, which does its work once:
# .venv/.ready is younger than what it was made from, so later calls start at once and need no network.
# Knobs: PYTHON (3.11 or newer), OUTPUT (where `make render` writes), ARGS (more words for happyhorse or pytest).

OUTPUT ?= outputs/demo
UV     ?= $(shell uv --version > /dev/null 2>&1 && echo uv || echo .uv/bin/uv)

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(NEW_ENOUGH)' 2> /dev/null && echo $$p && break; done)

# An environment that forbids .pyc files makes every process compile all of torch and Ray again: twice the start-up.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup render test lint fmt check bench bench-gpu judge race hosts chaos soak safeguards fuzz pins clean

help: ## print these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: .venv/.ready ## make .venv with everything in it, ffmpeg included

render: .venv/.ready ## render the ten clips of examples/demo.parquet into outputs/demo
	.venv/bin/happyhorse render manifest=examples/demo.parquet output="$(OUTPUT)" $(ARGS)

test: .venv/.ready ## run every test, two at a time (ARGS="-n 0 FILE" for one under a debugger)
	.venv/bin/python -m pytest -n 2 $(ARGS)

lint: .venv/.ready ## style and types, without running anything
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

fmt: .venv/.ready ## put the sources into the house's format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

check: lint test ## the whole gate: lint, types, tests

bench: .venv/.ready ## measure ratios side by side, into bench.json (ARGS=model for one section)
	.venv/bin/python -m tests.bench $(ARGS)

bench-gpu: ## time the 15B model with random weights on a GPU; torch and safetensors suffice (ARGS="--only 256P")
	$(or $(wildcard .venv/bin/python),$(PYTHON)) -m tests.bench.gpu $(ARGS)

judge: .venv/.ready ## render the foal's held-out prompts and measure the clips (ARGS="--clips 24")
	.venv/bin/python -m tests.judge $(ARGS)

hosts: .venv/.ready ## render on three hosts with addresses of their own, and cut one off (root; network namespaces)
	HOSTS=1 .venv/bin/python -m pytest -q tests/e2e/test_hosts.py $(ARGS)

race: .venv/.ready ## start eight runs at once on one output, 20 times, on disk and on Swift
	RACE_ROUNDS=20 .venv/bin/python -m pytest -q tests/publication/test_race.py $(ARGS)

chaos: .venv/.ready ## render while ranks, nodes, driver and storage fail, 20 minutes (seed=1 clips=200)
	.venv/bin/python -m tests.chaos --seed $(or $(seed),1) --clips $(or $(clips),200) \
		--page docs/benchmarks/chaos.md $(ARGS)

soak: .venv/.ready ## render 2,000 clips of a tiny model in one run and see what grows
	.venv/bin/python -m tests.chaos.soak --page docs/benchmarks/soak.md $(ARGS)

safeguards: .venv/.ready ## break each safeguard in a copy, one at a time, and see its test go red
	SAFEGUARDS=all .venv/bin/python -m pytest -q tests/chaos/test_safeguards.py $(ARGS)

fuzz: .venv/.ready ## read damaged files for as long as you like (ARGS="--seconds 600")
	.venv/bin/python -m tests.fuzz $(ARGS)

pins: .venv/.ready ## resolve constraints.txt anew (torch stays where TORCH says)
	@$(machine); echo 'torch==$(TORCH)' > .venv/torch.txt; \
	$(UV) pip compile --quiet pyproject.toml --all-extras --python .venv --no-header --no-annotate \
		--constraint .venv/torch.txt --no-emit-package torch --no-emit-find-links --upgrade --output-file .venv/pins.txt; \
	cat .venv/pins.txt .venv/torch.txt | LC_ALL=C sort -f > constraints.txt
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)

clean: ## remove .venv, caches and the demo's output
	rm -rf .venv .venv-swift .uv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist bench.json outputs/demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What pip on this machine would look through, uv is to look through too: on most machines, nothing.
# Linux without an NVIDIA driver wants the small torch for CPUs; elsewhere the default build is the right one.
define machine
set -e; \
links="$${PIP_FIND_LINKS:-$$($(PYTHON) -m pip config get global.find-links 2> /dev/null || true)}"; \
export UV_FIND_LINKS="$${UV_FIND_LINKS:-$$(echo $$links | tr ' ' ',')}"; \
torch="the default build"; \
if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi > /dev/null && ! [ -e /proc/driver/nvidia/version ]; then \
	torch="for CPUs"; \
	at_hand=$$(for folder in $$links; do ls "$$folder"/torch-*; done 2> /dev/null || true); \
	[ -n "$$at_hand" ] || export UV_TORCH_BACKEND="$${UV_TORCH_BACKEND:-cpu}"; \
fi
endef

.venv/.ready: pyproject.toml constraints.txt | $(filter .uv/%,$(UV))
	@test -n "$(PYTHON)" || { echo "no Python of 3.11 or newer found: make PYTHON=/path/to/python3.12"; exit 2; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "$(PYTHON) is older than 3.11: make PYTHON=/path/to/python3.12"; exit 2; }
	@.venv/bin/python -c '$(NEW_ENOUGH)' 2> /dev/null \
		|| $(UV) venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv
	@$(machine); echo "installing into .venv: $$(.venv/bin/python --version), torch $$torch"; \
	$(UV) pip install --quiet --python .venv --constraint constraints.txt --editable '.[dev]'
	@touch $@

.uv/bin/uv:
	$(PYTHON) -m pip install --quiet --target .uv uv
