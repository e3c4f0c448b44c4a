"""Embed a folder of images, DICOM files included, or a dataset, into a Parquet file with one row per image.

    python train/encode.py --checkpoint runs/demo/checkpoint --images scans --out embeddings.parquet
    python train/encode.py --checkpoint USER/MODEL --dataset data/synthetic --split train --out index.parquet
    python train/encode.py --checkpoint USER/MODEL --dataset data/synthetic --what reports --out reports.parquet

Columns: `source`; of a folder `frame`; of a dataset `patient_id`, `report`, `labels` and `split`; and `embedding`,
float32. The schema's metadata record under `lumbarclip` which weights made them and, of a dataset, its `license` and
whether it `may_be_shared` and passed `deidentification`. `OUT.parquet.json` lists every file that could not be read,
with the reason.

With enough processors, worker processes decode while the model encodes. Rerun a killed command to resume it, to the
same result; a broken file that killed it is found and listed. --onnx encodes with what `train/export.py` wrote.
"""

import sys

from data_scripts.system.command_line import run
from train.encoding.arguments import EncodeArguments


def main(args: EncodeArguments) -> None:
    """Load the checkpoint, encode chunk by chunk, and join the chunks."""
    from train.encoding.bulk_encoding import encode

    encode(args)


if __name__ == "__main__":
    sys.exit(run(main))
