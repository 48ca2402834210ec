# Every job of this repository. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test lint format check faults fuzz bench openapi wheel clean install

BIN := .venv/bin
CODE := node swarm rewards tests bench
FUZZ_S ?= 60

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: ## run a swarm of four nodes on this machine and measure it
	@./demo

test: ## pass the tests (./test -k NAME for some of them)
	@./test

lint: install ## ruff, format, mypy, layers
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## rewrite the code as ruff formats it
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

check: lint ## lint, then the tests: what CI runs
	@./test

faults: ## kill nodes, part networks, play bad peers: more than CI has time for, with figures
	@TEST_KILLS=30 TEST_FAULTS=5 ./test tests/integration -s

fuzz: install ## search for texts that break a verifier, FUZZ_S seconds (60) for each part
	@$(BIN)/python -c "import atheris" 2>/dev/null || \
		$(BIN)/python -m pip install -q --no-build-isolation -e ".[fuzz]"
	@for part in $(notdir $(wildcard tests/fuzz/corpus/*)); do echo "== $$part"; \
		$(BIN)/python tests/fuzz $$part -max_total_time=$(FUZZ_S) || exit 1; done

bench: install ## seconds and shares of one node-round; answers judged a second
	$(BIN)/python bench/round.py
	$(BIN)/python bench/verify.py

openapi: install ## write docs/openapi.json, the document of the REST API
	$(BIN)/python -m node.api_schema > docs/openapi.json.new
	mv docs/openapi.json.new docs/openapi.json

wheel: install ## build the wheel into dist/
	rm -rf build
	$(BIN)/python -m pip wheel --no-deps --no-build-isolation -w dist .

clean: ## remove what was built and measured, the environment stays
	rm -rf build dist *.egg-info .demo .fuzz .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find node swarm rewards tests bench -name __pycache__ -prune -exec rm -rf {} +

install: ## what all of them need, into .venv
	@sh deploy/install.sh --dev
