# The commands that people and CI call; they use the active environment.
.PHONY: all lint types test bench docs reference

all: lint types test

lint:
	ruff check .
	ruff format --check .
	lint-imports

types:
	mypy

test:
	python -m pytest

bench:
	python -m pytest tests/benchmarks --benchmark-enable

docs:
	python -m pytest README.md docs

reference:
	python -m i2ikit.packages.reference docs/reference
