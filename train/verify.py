"""Verify that a checkpoint is what was saved, and gives the outputs that it gave then.

python train/verify.py runs/demo/checkpoint
python train/verify.py USER/MODEL --revision v1.0
python train/verify.py USER/MODEL --trust_remote_code
"""

import sys

from train.checkpoints.verification import main

if __name__ == "__main__":
    sys.exit(main())
