"""Local attributes and ablations: python jobs/local_attributes.py --config jobs/configs/local-attributes-emodb.yaml"""

from seral.verbs import run_verb

if __name__ == "__main__":
    run_verb("local-attributes")
