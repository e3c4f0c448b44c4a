"""Measure time and memory of the flat soft loss against the dense one and open_clip's ClipLoss, in one run.

    python tests/benchmarks/bench_losses.py

Each measurement has its own process, so that no allocator keeps earlier memory; the three losses of one size
run one after another, and the ratios are between neighbours. Memory is the rise of the peak resident size above the
inputs, during forward and backward.
"""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from tqdm import tqdm

from data_scripts.system.command_line import run

WIDTH = 256
CLASSES = 8
SYSTEMS = ("flat", "dense", "open_clip")


@dataclass
class BenchArguments:
    """The settings of this benchmark."""

    pairs: list[int] = field(
        default_factory=lambda: [1024, 2048, 4096, 8192, 16384, 32768],
        metadata={"help": "Batch sizes, in pairs."},
    )
    repeats: int = field(default=2, metadata={"help": "Timed repetitions; the fastest counts."})
    threads: int = field(default=1, metadata={"help": "Threads of torch."})
    memory_limit_gib: float = field(default=12.0, metadata={"help": "A system that needs more counts as not fitting."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


MEASUREMENT = """
import json, resource, sys, time
from pathlib import Path
import torch
system, pairs, repeats, threads, limit = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5])
torch.set_num_threads(threads)
from modeling_lumbarclip.losses_lumbarclip import soft_contrastive_loss, soft_contrastive_loss_dense
torch.manual_seed(0)
def embeds():
    return torch.nn.functional.normalize(torch.randn(pairs, WIDTH), dim=1).requires_grad_()
image_embeds, text_embeds = embeds(), embeds()
labels = (torch.rand(pairs, CLASSES) < 0.3).float()
scale = torch.tensor(1 / 0.07, requires_grad=True)
if system == "open_clip":
    from open_clip.loss import ClipLoss
    clip_loss = ClipLoss()
    compute = lambda: clip_loss(image_embeds, text_embeds, scale)
else:
    loss = {"flat": soft_contrastive_loss, "dense": soft_contrastive_loss_dense}[system]
    compute = lambda: loss(image_embeds, text_embeds, scale, labels)
small = torch.nn.functional.normalize(torch.randn(8, WIDTH), dim=1).requires_grad_()
(soft_contrastive_loss(small, small, scale, labels[:8])).backward()  # load the libraries
torch.nn.functional.cross_entropy(small @ small.T, torch.arange(8)).backward()
for leaf in (image_embeds, text_embeds, scale):
    leaf.grad = None
def status(key):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if key in line)
resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") * 1024 + int(limit * 2**30),) * 2)
seconds, before, peak = [], None, None
try:
    for repeat in range(repeats):
        for leaf in (image_embeds, text_embeds, scale):
            leaf.grad = None
        if repeat == 0:
            Path("/proc/self/clear_refs").write_text("5")  # restart the peak
            before = status("VmRSS")
        start = time.perf_counter()
        compute().backward()
        seconds.append(time.perf_counter() - start)
        if repeat == 0:
            peak = status("VmHWM")
    print(json.dumps({"seconds": min(seconds), "mib": (peak - before) / 1024}))
except RuntimeError as error:
    if "allocate memory" not in str(error):
        raise
    print(json.dumps({"seconds": None, "mib": None}))
"""


def measure(system: str, pairs: int, args: BenchArguments) -> dict[str, float | None]:
    """Run one system at one size in a fresh process; None where it did not fit."""
    code = MEASUREMENT.replace("WIDTH", str(WIDTH)).replace("CLASSES", str(CLASSES))
    numbers = [str(pairs), str(args.repeats), str(args.threads), str(args.memory_limit_gib)]
    done = subprocess.run([sys.executable, "-c", code, system, *numbers], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def cell(value: float | None, unit: str) -> str:
    """Format a measurement; None is a system that did not fit."""
    return "does not fit" if value is None else f"{value:,.2f} {unit}" if unit == "s" else f"{value:,.0f} {unit}"


def main(args: BenchArguments) -> None:
    """Measure every system at every size and print the table."""
    results = {}
    for pairs in (bar := tqdm(args.pairs, disable=None)):
        for system in SYSTEMS:
            bar.set_description(f"{system} {pairs}")
            results[f"{system} {pairs}"] = measure(system, pairs, args)
    print(
        f"forward + backward, float32, D = {WIDTH}, {args.threads} thread(s), {args.memory_limit_gib:g} GiB at most\n"
    )
    print("| pairs | flat | dense | open_clip ClipLoss | time, flat / open_clip | time, flat / dense |")
    print("|---:|---:|---:|---:|---:|---:|")
    for pairs in args.pairs:
        row = [results[f"{system} {pairs}"] for system in SYSTEMS]
        cells = [f"{cell(r['seconds'], 's')}, {cell(r['mib'], 'MiB')}" if r["mib"] else "does not fit" for r in row]
        flat, dense, clip = (r["seconds"] for r in row)
        ratios = [f"{flat / other:.2f}" if flat and other else "-" for other in (clip, dense)]
        print(f"| {pairs:,} | {' | '.join([*cells, *ratios])} |")
    if args.out:
        content = {"date": date.today().isoformat(), "arguments": vars(args), "results": results}
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(run(main))
