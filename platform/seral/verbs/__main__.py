"""Any verb as a job: python -m seral.verbs NAME [--config FILE.yaml] [key=value ...]"""

import sys

from seral.errors import unknown_name
from seral.verbs import VERBS, run_verb


def main() -> None:
    """Run the verb that the first argument names, as its file in jobs/ does."""
    jobs = [verb.name for verb in VERBS.values() if verb.job]
    name = sys.argv.pop(1).replace("_", "-") if len(sys.argv) > 1 else ""
    if name not in jobs:
        sys.exit(f"error: {unknown_name('job', name, jobs)}")
    sys.argv[0] = f"python -m seral.verbs {name}"
    run_verb(name)


if __name__ == "__main__":
    main()
