# The two commands are `make run` and `make test`; each does its own set-up and says what it does. `make check` is what a change
# has to pass besides.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO := cargo
CONFIG ?= config
DATA ?= data
# Debian's names of what the build needs: llama.cpp and aws-lc by cmake and a C++ compiler, bindgen by libclang.
PACKAGES := cmake g++ libclang-dev
WASM := wasm32-unknown-unknown
# What packages are for: processors like this machine's, or x86-64-v2, x86-64-v3, x86-64-v4 (a build of their own).
LEVEL ?= native

.PHONY: help setup plugins build run test verify bench check sdk-clients dist dist-check clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | column -t -s $$'\t'

setup: ## Install what the build needs: Debian packages, the WASM target
	@scripts/setup $(PACKAGES)

plugins: setup ## Build the first-party plugins and the tests' guests into target/plugins
	@echo "== plugins (target/plugins); the first build of all takes 15 to 25 minutes on 2 cores, this part about 5"
	@$(CARGO) build --release --workspace --bin xtask
	@target/release/xtask plugins

build: plugins ## Build target/release/tollgate
	@echo "== tollgate (target/release/tollgate); most of the first build is llama.cpp and wasmtime"
	@$(CARGO) build --release --workspace --bin tollgate

run: build ## Run the gateway with CONFIG and DATA (by default ./config and ./data)
	@scripts/onnxruntime || echo "   it cannot be fetched: all but models of the backend onnx will run"
	@here=target/onnxruntime/libonnxruntime.so; [ ! -f $$here ] || export ORT_DYLIB_PATH=$${ORT_DYLIB_PATH:-$$here}; \
		exec target/release/tollgate serve --config $(CONFIG) --data $(DATA)

test: build ## Run every test in its short form
	@echo "== tests"
	@scripts/sdk-clients
	@scripts/onnxruntime
	@$(CARGO) test --release --workspace --quiet

verify: build ## Run the long forms of what is promised, or those of ROW="P-E1 P-L", and write VERIFICATION.md
	@scripts/setup haproxy nginx strace testssl.sh
	@$(CARGO) build --release --workspace --bin proof
	@target/release/proof verify $(ROW)

bench: build ## Measure against real peers, or ROW="decode added-5" of it, and write BENCHMARKS.md; the peers are fetched and built once
	@$(CARGO) build --release --workspace --bin proof
	@target/release/proof bench $(ROW)

check: plugins ## Check form, lints, docs, dependencies and the repository's own rules
	@scripts/check

dist: $(if $(filter native,$(LEVEL)),build,plugins) ## Package for LEVEL (native, x86-64-v2, -v3, -v4) into target/dist
	@scripts/setup binutils dpkg-dev
	@scripts/dist $(LEVEL)

dist-check: dist ## Unpack what `make dist` made, and take it through a first request
	@scripts/setup curl
	@scripts/dist-check $(LEVEL)

clean: ## Remove what was built
	@$(CARGO) clean
