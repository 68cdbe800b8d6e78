"""Commands under bad luck: python -m jobs.bench.chaos mode=MODE [key=value ...]; python -m jobs.bench.chaos.stores."""
