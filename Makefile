.DEFAULT_GOAL := help
.PHONY: help setup run test test-unit test-all soak bench screenshots lint format clean
.PHONY: test-processes test-others reference lock audit containers pin-images
bin := .venv/bin
pytest := $(bin)/python -m pytest
# Without the settings of this machine.
manage := DEBUG=1 RABBITMQ_URL=amqp://localhost/ DATABASE_URL=sqlite://:memory: \
	MONGODB_URL=mongodb://localhost/reports MESSAGING={} $(bin)/python manage.py
# For each Python and machine on which the project runs.
compile := pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --custom-compile-command "make lock"
# On servers that are named, both would use the same databases.
jobs := $(if $(RABBITMQ_URL)$(DATABASE_URL)$(MONGODB_URL),1,2)
tests := $(MAKE) --no-print-directory --keep-going --jobs=$(jobs) test-others test-processes

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: ## install system packages and .venv, whatever is missing
	@./project/setup.sh

run: setup ## start servers, API and consumers; Ctrl-C stops all
	@$(bin)/python -m project.run

test: ## the default tests, half of them beside the others
	@./project/setup.sh tests
	@$(tests) selection="not slow and not soak"

test-others:
	$(pytest) -m "$(selection)" tests/unit tests/integration

test-processes: # each run has servers of its own; this one prints at its end
	@mkdir -p -m 700 .local && chmod 700 .local
	@rm -f .local/test-processes.log && (umask 077 && : >.local/test-processes.log)
	@$(pytest) -m "$(selection)" tests/system tests/lab >.local/test-processes.log 2>&1 && \
		$(pytest) tests/shop >>.local/test-processes.log 2>&1; \
		code=$$?; cat .local/test-processes.log; exit $$code

test-unit: setup ## the tests that need no server, in seconds
	$(pytest) tests/unit

test-all: setup ## also the slow ones, on more servers and with more clients
	@./project/setup.sh all-tests
	@$(tests) selection="not soak"

soak: setup ## the long ones, with their figures
	@./project/setup.sh all-tests
	@$(bin)/python -m pip install -q --only-binary :all: --disable-pip-version-check \
		-r tests/support/fuzzing-requirements.txt || echo "soak: goes on without atheris"
	$(pytest) -m soak -rP --show-capture=stdout

bench: setup ## measure speed beside simpler ways; writes docs/speed.md, in an hour
	@./project/setup.sh bench
	$(bin)/python -m tests.benchmarks --write

containers: setup ## build and try the images with podman, as root on Debian
	@./project/setup.sh containers
	@$(bin)/python -m tests.containers

pin-images: ## write the digests of the images into the files that name them
	@python3 deploy/pin-images

reference: setup ## write docs/asyncapi.json and its page; breaking=1 if programs may break
	@[ -n "$(breaking)" ] || $(manage) asyncapi --check docs/asyncapi.json
	@$(manage) asyncapi --output docs/asyncapi.json
	@$(manage) asyncapi --markdown --output docs/messages-reference.md

screenshots: setup ## take every page into .local/screenshots, and renew those of the docs
	@./project/setup.sh browser
	SCREENSHOTS=1 $(pytest) -m slow tests/system/test_pages.py

lock: setup ## write requirements.lock and requirements-dev.lock, with hashes
	$(bin)/uv $(compile) requirements.txt --output-file requirements.lock
	$(bin)/uv $(compile) requirements-dev.txt --constraints requirements.lock \
		--output-file requirements-dev.lock

audit: setup ## ask PyPI for known vulnerabilities; write build/sbom.json (needs PyPI)
	@mkdir -p build
	$(bin)/uvx --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements.lock \
		--output-reproducible --output-file build/sbom.json
	$(bin)/uvx pip-audit==2.10.1 --requirement requirements.lock \
		--require-hashes --disable-pip --strict

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
