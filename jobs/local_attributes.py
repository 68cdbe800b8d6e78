"""Local attributes and ablations: python jobs/local_attributes.py --config jobs/configs/local-attributes-emodb.yaml"""

from seral.options import run_job
from seral.studies.local_attributes import LocalAttributesOptions, run_local_attributes

if __name__ == "__main__":
    run_job(LocalAttributesOptions, run_local_attributes, __doc__)
