.DEFAULT_GOAL := help
.PHONY: help setup run test test-unit test-all soak bench lint format clean
bin := .venv/bin

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## install system packages and .venv, whatever is missing
	@./project/setup.sh

run: setup ## start servers, API and consumers; Ctrl-C stops all
	@$(bin)/python -m project.run

test: setup ## the default tests
	$(bin)/python -m pytest -m "not slow and not soak"
	$(bin)/python -m pytest tests/shop

test-unit: setup ## the tests that need no server, in seconds
	$(bin)/python -m pytest tests/unit

test-all: setup ## also the slow ones, on more servers and with more clients
	@./project/setup.sh all-tests
	$(bin)/python -m pytest -m "not soak"
	$(bin)/python -m pytest tests/shop

soak: setup ## the long ones, with their figures
	$(bin)/python -m pytest -m soak -rP --show-capture=stdout

bench: setup ## measure speed
	$(bin)/python -m tests.benchmarks

lint: setup ## style, types, missing migrations
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	DEBUG=1 $(bin)/mypy .
	DEBUG=1 DATABASE_URL=sqlite://:memory: $(bin)/python manage.py makemigrations --check --dry-run

format: setup ## rewrite the code in the project's style
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

clean: ## remove .venv, caches, and .local with the private servers' data
	rm -rf .venv .local .mypy_cache .pytest_cache .ruff_cache
