"""Judge encoders on labels: python jobs/probe.py pool=data/pool corpus=emodb classes=[anger,happiness,neutral,sadness]"""

from seral.options import run_job
from seral.train.layer_probe import ProbeOptions, probe_layers

if __name__ == "__main__":
    run_job(ProbeOptions, probe_layers, __doc__)
