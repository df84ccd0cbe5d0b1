"""What multipliers cost: `python -m tests.benchmarks`, from the root of a clone."""
