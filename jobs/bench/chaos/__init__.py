"""Commands under bad luck: python -m jobs.bench.chaos MODE [key=value ...]. A module of this package is a mode."""
