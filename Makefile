# make demo   the digits sweep, twice: the second run shows everything cached
# make check  lint, types, and all tests that start neither a program nor Slurm; run it while you work
# make test   lint, types, and all tests against the installed package, with a real Slurm where possible
# make coverage   all tests with branch coverage
# make matrix  the tests in a fresh environment for each row of versions: matrix-hydra14, matrix-lowest, matrix-py312, ...
# make torture  a kill, an error or a damage at every file-system call and file, races, and the model of claims
# make lint   lint and types only
# make bench  compares everything with similar libraries and writes docs/benchmarks.md
# make bench-hydra14  the sweeps among it, with Hydra 1.4; prints them
PYTHON ?= python3
PYTHON_312 ?= python3.12
PYTHON_313 ?= python3.13
PYTHON_314 ?= python3.14
BIN := .venv/bin
SOURCES := $(shell find src conf hydra_plugins -type f -not -name '*.pyc') pyproject.toml setup.cfg
# cluster=local, because the Slurm of the tests may be installed but stopped, and an sbatch that does not answer is an error
DEMO := ../../$(BIN)/python train.py -m model=logreg,svm seed=1,2 hydra/launcher=exca hydra/launcher/cluster=local

# the pre-releases by name: so pip takes no pre-release of anything else
HYDRA_14 := hydra-core==1.4.0rc3 omegaconf==2.4.1rc1 \
	hydra-submitit-launcher==1.4.0rc3 hydra-joblib-launcher==1.4.0rc3 hydra-optuna-sweeper==1.4.0rc3

# the oldest that is tested: several GB, as it comes with CUDA. .ci/run has a newer one
TORCH := 2.4.1

.PHONY: demo check test coverage matrix torture lint bench bench-hydra14 clean

demo: .venv/demo
	cd examples/digits && $(DEMO)
	@echo; echo "The same again:"; echo
	cd examples/digits && $(DEMO)

# Two at a time, because these tests compute. hypothesis tries a tenth of the inputs of `make test`.
check: lint
	$(BIN)/pytest -q -n 2 --dist worksteal --no-programs --hypothesis-profile=check

# The tests start and stop Slurm themselves, and name what they skip. Six at a time, because many of them only wait;
# worksteal keeps neighbouring tests together, which share fixtures that run programs.
test: lint
	$(BIN)/pytest -n 6 --dist worksteal

coverage: .venv/test
	$(BIN)/pytest -n 2 --dist worksteal --cov --cov-report=term

# One row: a fresh environment in .venv-<row>. The row of the default versions is `make test`. Slurm is left out where
# it would show nothing new. Python 3.14 needs Hydra 1.4: 1.3 does not start there.
matrix: matrix-hydra14 matrix-lowest matrix-py312 matrix-py313 matrix-py314 matrix-torch-oldest

matrix-%: ROW_PYTHON = $(PYTHON)
matrix-%: ROW_INSTALL = '.[test]'
matrix-%: ROW_TESTS = -m "not slurm"
matrix-hydra14 matrix-py314: ROW_INSTALL = $(HYDRA_14) '.[test]'
matrix-hydra14: ROW_TESTS =
matrix-lowest: ROW_INSTALL = --constraint .venv-lowest/lowest.txt '.[tools]'
matrix-lowest: ROW_TESTS = -m "not slurm" --ignore tests/apps/test_benchmarks.py
matrix-torch-oldest: ROW_INSTALL = torch==$(TORCH) '.[test]'
matrix-torch-oldest: ROW_TESTS = tests/unit/store tests/unit/rerun/test_same_values.py tests/unit/identity/test_uid.py
matrix-py312: ROW_PYTHON = $(PYTHON_312)
matrix-py313: ROW_PYTHON = $(PYTHON_313)
matrix-py314: ROW_PYTHON = $(PYTHON_314)

matrix-%:
	rm -rf .venv-$* build
	$(ROW_PYTHON) -m venv .venv-$*
	sed -n '/^dependencies/,/^]/ {/python_version >=/!s/^    "\([A-Za-z-]*\)>=\([0-9.]*\).*/\1==\2/p}' pyproject.toml > .venv-$*/lowest.txt
	.venv-$*/bin/pip install --quiet $(ROW_INSTALL)
	.venv-$*/bin/pytest -q -n 2 --dist worksteal --hypothesis-profile=check $(ROW_TESTS)

# Prints figures, and what is wrong with the command that repeats it. SEED=n makes another run.
torture: .venv/test
	$(BIN)/python tests/torture --seed $(or $(SEED),0)

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Rows with Slurm need a running Slurm (CONTRIBUTING.md); without it they are left out, and the page says so.
bench: .venv/bench
	$(BIN)/python benchmarks --json benchmarks.json --markdown docs/benchmarks.md

bench-hydra14:
	rm -rf .venv-bench-hydra14 build
	$(PYTHON) -m venv .venv-bench-hydra14
	.venv-bench-hydra14/bin/pip install --quiet $(HYDRA_14) '.[bench]'
	.venv-bench-hydra14/bin/python benchmarks --rows found submitted computed startup --json benchmarks-hydra14.json

# The package is installed, not linked, so that the tests run what is shipped.
# rm -rf build: setuptools would ship files that an earlier build left there.
.venv/demo: .venv/created $(SOURCES)
	rm -rf build
	$(BIN)/pip install --quiet --upgrade '.[examples]'
	touch $@

.venv/test: .venv/created $(SOURCES)
	rm -rf build
	$(BIN)/pip install --quiet --upgrade '.[test]'
	touch $@ .venv/demo .venv/bench

.venv/bench: .venv/created $(SOURCES)
	rm -rf build
	$(BIN)/pip install --quiet --upgrade '.[bench]'
	touch $@

.venv/created:
	$(PYTHON) -m venv .venv
	touch $@

clean:
	rm -rf .venv .venv-* build dist *.egg-info src/*.egg-info .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache
