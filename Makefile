# make demo   the digits sweep, twice: the second run shows everything cached
# make check  lint, types, and all tests that start neither a program nor Slurm; run it while you work
# make test   lint, types, and all tests against the installed package, with a real Slurm where possible
# make coverage   all tests with branch coverage
# make matrix  with Hydra 1.4, in a fresh environment (.venv14): its own tests, those of sweeps, and its launcher suites
# make torture  a kill, an error or a damage at every file-system call and file, races, and the model of claims
# make lint   lint and types only
# make bench  compares everything with similar libraries and writes docs/benchmarks.md
PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(shell find src conf hydra_plugins -type f -not -name '*.pyc') pyproject.toml setup.cfg
# cluster=local, because the Slurm of the tests may be installed but stopped, and an sbatch that does not answer is an error
DEMO := ../../$(BIN)/python train.py -m model=logreg,svm seed=1,2 hydra/launcher=exca hydra/launcher/cluster=local

# the pre-releases by name: so pip takes no pre-release of anything else
HYDRA_14 := hydra-core==1.4.0rc3 omegaconf==2.4.1rc1 hydra-submitit-launcher==1.4.0rc3

.PHONY: demo check test coverage matrix torture lint bench clean

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

matrix:
	rm -rf .venv14 build
	$(PYTHON) -m venv .venv14
	.venv14/bin/pip install --quiet $(HYDRA_14) '.[test]'
	.venv14/bin/pytest -q -n 2 --dist worksteal -m "not slurm" --hypothesis-profile=check \
	    tests/unit/sweep tests/apps/test_hydra_14.py tests/contract/test_hydra_suites.py

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
	rm -rf .venv .venv14 build dist *.egg-info src/*.egg-info .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache
