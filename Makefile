# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := demo-run

.PHONY: demo test test-all coverage lint docs

# Installed again only when the list of dependencies changes. --prefer-binary: a wheel of an older
# release beats compiling a newer one.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --prefer-binary torch torchvision
	$(BIN)/python -m pip install --quiet --prefer-binary -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --prefer-binary -e '.[dev]'
	touch $@

# Some of the sample photos have no usable face, so only a run without any score is a failure.
demo: $(VENV)/.installed
	$(BIN)/faceqan-toolkit align-and-score samples/raw_photos -o $(RUN) --fail-on all

# Several tests at once, each process with one thread of its own.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
test test-all coverage: export OMP_NUM_THREADS = 1
# empty: bytecode is kept, or each process that tests start would compile the package again
test test-all coverage: export PYTHONDONTWRITEBYTECODE =

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow"

# With Ray, the browser, every ONNX opset, limits of memory, and bad photos through every command.
test-all: $(VENV)/.installed-dev
	$(PYTEST)

coverage: $(VENV)/.installed-dev
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

# Into site/; a broken link fails.
docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build

# Scripts that no test runs: names and calls must fit the package.
SCRIPTS_MYPY := $(BIN)/mypy --cache-dir=$(CURDIR)/.mypy_cache/scripts --config-file= \
	--ignore-missing-imports --check-untyped-defs --no-strict-optional \
	--disable-error-code arg-type --disable-error-code assignment --disable-error-code list-item

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(SCRIPTS_MYPY) benchmarks
	cd weights && ../$(SCRIPTS_MYPY) make_scale.py make_sface.py
	cd weights/instant && ../../$(SCRIPTS_MYPY) crops.py damage.py make_labels.py train.py
