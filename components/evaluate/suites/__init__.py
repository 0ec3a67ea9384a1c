"""Which benchmarks a suite holds, and what figure each of them gives: data in YAML, and arithmetic on lmms-eval's results."""
