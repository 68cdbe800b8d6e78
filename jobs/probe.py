"""Judge encoders on the labels of a pool: python jobs/probe.py pool=data/pool classes=[anger,happiness,sadness]"""

from seral.options import run_job
from seral.studies.layer_probe import ProbeOptions, probe_layers

if __name__ == "__main__":
    run_job(ProbeOptions, probe_layers, __doc__)
