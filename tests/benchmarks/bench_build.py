"""Time a build from DICOM slices against a plain pydicom loop in one process, in one run.

    python -m tests.benchmarks.bench_build

Both read the same generated studies, half of them RLE-compressed, and write Parquet; each turn is a fresh process,
imports included. They take turns, and the fastest turn of each counts. The plain loop decodes, windows between two
percentiles with numpy and encodes PNG as Pillow does by default; it does none of a build's checks, splits,
de-identification or card.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
from openpyxl import Workbook
from pydicom.uid import ExplicitVRLittleEndian, RLELossless
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from data_scripts.system.command_line import run
from tests.data_scripts.imaging.dicom_files import make_dicom

SLICES_OF_A_PATIENT = 50


@dataclass
class BenchArguments:
    """The settings of this benchmark."""

    slices: int = field(default=2000, metadata={"help": "Slices; a multiple of 50."})
    size: int = field(default=320, metadata={"help": "Rows and columns."})
    num_proc: int = field(default=2, metadata={"help": "Processes of the build."})
    turns: int = field(default=3, metadata={"help": "Turns of each; the fastest counts."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


PLAIN_LOOP = """
import io, sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from PIL import Image
from pydicom import dcmread
rows = []
for path in sorted(Path(sys.argv[1]).rglob("*.ima")):
    dataset = dcmread(path)
    pixels = dataset.pixel_array.astype(np.float64)
    low, high = np.percentile(pixels, (0.5, 99.5))
    grey = np.round(np.clip((pixels - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    rows.append({"image": {"bytes": buffer.getvalue(), "path": None}, "patient_id": dataset.PatientID})
pq.write_table(pa.Table.from_pylist(rows), Path(sys.argv[2]) / "plain.parquet")
"""


def make_studies(raw: Path, args: BenchArguments) -> None:
    """Write studies in the layout of the Mendeley lumbar set: noise on smooth shapes, as compressible as MR slices."""
    rng = np.random.default_rng(0)
    shapes = [gaussian_filter(rng.normal(size=(args.size, args.size)), 6) for _ in range(8)]
    notes = Workbook()
    notes.active.append(["Patient ID", "Clinician's Notes"])
    for patient in range(1, args.slices // SLICES_OF_A_PATIENT + 1):
        notes.active.append([patient, "Disc bulge at L4-L5." if patient % 2 else "No significant abnormality."])
        for number in range(SLICES_OF_A_PATIENT):
            shape = shapes[number % len(shapes)]
            pixels = 600 + 400 * shape / shape.std() + rng.normal(0, 20, shape.shape)
            make_dicom(
                raw / f"{patient:04}" / "L-SPINE" / "T2_TSE_TRA_384_0005" / f"{number:03}.ima",
                pixels.clip(0, 4095).astype(np.uint16),
                transfer_syntax=RLELossless if number % 2 else ExplicitVRLittleEndian,
                patient_id=f"{patient:04}",
                position=(0, 0, 4.4 * number),
                InstanceNumber=number,
            )
    notes.save(raw / "Radiologists Report.xlsx")


def seconds(command: list[str]) -> float:
    """Measure the wall time of a process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return time.perf_counter() - start


def main(args: BenchArguments) -> None:
    """Measure in turns and print the ratio."""
    times: dict[str, list[float]] = {"plain loop": [], "build": []}
    with tempfile.TemporaryDirectory() as folder:
        raw, built = Path(folder) / "raw", Path(folder) / "built"
        make_studies(raw, args)
        build = ["-m", "data_scripts.build", "--source", "mendeley", "--raw", str(raw), "--out", str(built)]
        build += ["--overwrite", "--num_proc", str(args.num_proc)]
        for _ in tqdm(range(args.turns), desc="turns", disable=None):
            times["plain loop"].append(seconds(["-c", PLAIN_LOOP, str(raw), folder]))
            times["build"].append(seconds(build))
    ratio = min(times["plain loop"]) / min(times["build"])
    print(f"\n{args.slices} slices of {args.size} x {args.size}, half of them RLE, {args.num_proc} processes\n")
    print("| | s, fastest turn | slices/s |\n|:--|--:|--:|")
    for name, values in times.items():
        print(f"| {name} | {min(values):.1f} | {args.slices / min(values):.0f} |")
    print(f"\nplain loop / build: {ratio:.2f}")
    if args.out:
        settings = {name: value for name, value in vars(args).items() if name != "out"}
        content = {"date": date.today().isoformat(), "arguments": settings, "seconds": times, "ratio": ratio}
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(run(main))
