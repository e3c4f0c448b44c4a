"""Export a checkpoint to ONNX.

pip install lumbarclip[export]
python train/export.py runs/demo/checkpoint --out runs/demo/onnx
python train/export.py USER/MODEL --out onnx --int8
"""

import sys

from train.checkpoints.onnx_export import main

if __name__ == "__main__":
    sys.exit(main())
