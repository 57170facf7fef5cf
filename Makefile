# The commands that people and CI call; they use the active environment.
.PHONY: all lint types test test-fast test-docs full browser bench docs reference reliability hostile

all: lint types test

lint:
	ruff check .
	ruff format --check .
	lint-imports

types:
	mypy

test:
	python -m pytest

test-fast:
	python -m pytest tests -m "not slow and not long and not gpu and not browser"

full:
	python -m pytest -m "not gpu and not browser"

browser:
	python -m pytest tests -m browser -n 0

bench:
	python -m pytest tests/benchmarks -o 'python_files=bench_*.py test_lpips.py' --benchmark-enable -n 0
	python -m tests.benchmarks.against_reference
	python -m tests.benchmarks.peak_memory
	python -m tests.benchmarks.profile_step
	python -m tests.benchmarks.growth
	python -m tests.benchmarks.reading
	python -m tests.benchmarks.busy_neighbours
	python -m tests.benchmarks.where_time_goes
	python -m tests.benchmarks.exported

test-docs:
	python -m pytest README.md docs

docs:
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict

reference:
	python -m i2ikit.packages.reference docs/reference

KILLS = 50
FLIPS = 200
SEED = 0
reliability:
	python -m tests.reliability --kills $(KILLS) --flips $(FLIPS) --seed $(SEED)

COUNT = 2600
hostile:
	python -m pytest tests/hostile -n 0 -m "not gpu" --hostile $(COUNT) --hypothesis-seed $(SEED) --hostile-page docs/reliability.md
