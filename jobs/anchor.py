"""From labelled languages to unlabelled ones: python jobs/anchor.py --config jobs/configs/anchors-whisper.yaml"""

from seral.options import run_job
from seral.studies.transfer import TransferOptions, run_transfer

if __name__ == "__main__":
    run_job(TransferOptions, run_transfer, __doc__)
