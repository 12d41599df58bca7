# Everything a fresh machine needs beside python3 (3.11 or later) and make. uv is used where it is there.
#
#   make demo    the main job on real input: no key, no network after the install
#   make demo MODEL=openai/gpt-4.1-mini   the same with a model that you pay for; prints the estimate first
#   make test    the tests (loopback only)

PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
MODEL  ?=
comma  := ,
UV     := $(shell command -v uv 2>/dev/null)

# $(call install,VENV,WHAT): a virtual environment with the checkout installed editable.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "llmkit needs Python 3.11 or later; say make PYTHON=python3.12, for instance")'
	@echo "setting up $(1) ..."
	@if [ -n "$(UV)" ]; then \
	    $(UV) venv -q --allow-existing -p $(PYTHON) $(1) && $(UV) pip install -q -p $(1)/bin/python -e '$(2)'; \
	else \
	    $(PYTHON) -m venv $(1) && $(1)/bin/python -m pip install -q --disable-pip-version-check -e '$(2)'; \
	fi
	@touch $(1)/.ready
endef

.PHONY: demo test lab lint format types floors bare bench peers worlds clean

demo: $(VENV)/.ready
	$(BIN)/python notebooks/demo.py $(if $(MODEL),--model $(MODEL))

test: $(VENV)/.ready
	$(BIN)/python -m pytest

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.ready
	$(BIN)/mypy

floors: $(VENV)/.ready
	$(BIN)/python -m pytest tests/test_floors.py

# llmkit, then the rivals that are installed, then the tables of README and docs/performance.md: the better part of an hour. Parts can be run
# apart, e.g. python -m benchmarks rate --only second-headers, or python -m benchmarks rate --rivals litellm,curator
bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks --full
	$(BIN)/python -m benchmarks --rivals all
	$(BIN)/python -m benchmarks table

# The rivals of the benchmarks, each in an environment of its own (benchmarks/peers.toml).
peers: $(VENV)/.ready
	$(BIN)/python -m benchmarks.peers

lab: $(VENV)-lab/.ready
	$(VENV)-lab/bin/jupyter lab notebooks

# The package alone, no extra: it imports, loads no SDK, and says what to install when something more is asked of it.
bare: $(VENV)-bare/.ready
	$(VENV)-bare/bin/python -W error tests/bare.py

# The other world: instructor, and the openai that fits beside it. What meets an SDK must pass there too; the engine, the frames and the panels run the same
# code in both.
OF_THE_SDKS = tests/providers tests/operations tests/test_clients.py tests/test_asking.py tests/test_front.py tests/test_import.py \
              tests/test_loopback_sdks.py tests/test_loopback_vendors.py tests/frames/test_chat_options.py tests/frames/test_modes.py

worlds: $(VENV)-all/.ready
	$(VENV)-all/bin/python -c 'import openai, instructor; print("openai", openai.__version__, "beside instructor", instructor.__version__)'
	$(VENV)-all/bin/python -m pytest $(OF_THE_SDKS)

$(VENV)/.ready: pyproject.toml
	$(call install,$(VENV),.[local$(comma)dev])

$(VENV)-lab/.ready: pyproject.toml
	$(call install,$(VENV)-lab,.[notebooks])

$(VENV)-bare/.ready: pyproject.toml
	$(call install,$(VENV)-bare,.)

$(VENV)-all/.ready: pyproject.toml
	$(call install,$(VENV)-all,.[all$(comma)dev])

clean:
	rm -rf $(VENV) $(VENV)-lab $(VENV)-bare $(VENV)-all $(VENV)-llama benchmarks/.peers .pytest_cache .mypy_cache .ruff_cache

.PHONY: providers

# docs/providers.md from what the code declares; tests/providers/conformance proves it.
providers: $(VENV)/.ready
	$(BIN)/python scripts/providers_page.py

.PHONY: pictures

# docs/pictures, as the test of the panels sees them in a Chromium (scripts/install_chromium.sh).
pictures: $(VENV)/.ready
	LLMKIT_PICTURES=docs/pictures $(BIN)/python -m pytest tests/browser -k pictured

.PHONY: llama

# extract against llama.cpp and a model of random numbers that it holds to the schema's grammar. The engine has an environment of its own.
llama: $(VENV)/.ready $(VENV)-llama/.ready
	LLMKIT_LLAMA_PYTHON=$(VENV)-llama/bin/python $(BIN)/python -m pytest -s tests/process/test_llama.py

$(VENV)-llama/.ready:
	@if [ -n "$(UV)" ]; then \
	    $(UV) venv -q --allow-existing -p $(PYTHON) $(VENV)-llama && $(UV) pip install -q -p $(VENV)-llama/bin/python xllamacpp gguf; \
	else \
	    $(PYTHON) -m venv $(VENV)-llama && $(VENV)-llama/bin/python -m pip install -q --disable-pip-version-check xllamacpp gguf; \
	fi
	@touch $@
