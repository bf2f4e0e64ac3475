# The commands of this project; the same on a laptop and in CI. `make` alone lists them.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/ruslo/target
# Always the whole workspace: a package built alone has other features of its dependencies, which
# would all be compiled once more.
export RUSLO_CACHE ?= $(HOME)/.cache/ruslo
PYTHON := PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 $(RUSLO_CACHE)/venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test test-rust test-e2e soak bench services services-down fmt lint

help: ## List these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

# KAFKA=host:port uses that broker, REDIS_URL=redis://… that Redis, SECONDS_TO_RUN=20 ends by
# itself, EXAMPLE=join runs the second example.
demo: ## Run the article's pipeline live (KAFKA=host:port REDIS_URL=… SECONDS_TO_RUN=20 EXAMPLE=join)
	@scripts/setup demo
	@cargo build --release --workspace --bins
	@$(CARGO_TARGET_DIR)/release/ruslo demo

test: test-rust test-e2e ## Run every test

test-rust:
	@scripts/setup test
	cargo test --workspace

# The end to end tests start Kafka, Redis and PostgreSQL; nothing compiles beside them. They run a
# second time with a server killed and started again in the middle of each test.
test-e2e:
	@scripts/setup test
	cargo test --workspace --no-run
	$(PYTHON) -m pytest tests/e2e
	$(PYTHON) -m pytest tests/e2e --kill

# A history that is wrong prints the command that replays it.
soak: ## Simulate many more histories than the tests do (RUSLO_HISTORIES=… STATE_HISTORIES=…)
	RUSLO_HISTORIES=$${RUSLO_HISTORIES:-5000} STATE_HISTORIES=$${STATE_HISTORIES:-20000} \
		cargo test --workspace --test simulation -- --nocapture

bench: ## Measure throughput, memory and freshness (BENCH_EVENTS=… BENCH_RUNS=…)
	@scripts/setup test
	cargo build --release --workspace --bins
	$(PYTHON) bench/bench.py

services: ## Start Kafka, Redis and PostgreSQL; print their addresses as shell assignments
	@scripts/setup test
	@$(PYTHON) -m services up

services-down: ## End what `make services` started
	@$(PYTHON) -m services down

fmt: ## Format the Rust code
	cargo fmt --all

lint: ## Clippy, documentation and the layering of the crates
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	scripts/layering
