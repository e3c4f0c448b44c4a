"""Compare a checkpoint with its golden outputs, for `train/verify.py`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from modeling_lumbarclip.calibration_lumbarclip import calibration_problem
from train.checkpoints.golden_outputs import (
    GOLDEN_TENSORS,
    PIXEL_TOLERANCE,
    TOLERANCE,
    Arrays,
    deviation,
    load_for_golden_outputs,
    model_outputs,
    package_versions,
    processed,
    read_golden_outputs,
)
from train.checkpoints.loading import check_files, find_checkpoint
from train.checkpoints.manifest import Drift, compare_files, other_code, unrecorded_files

MAX_ROWS = 20  # of the table; a checkpoint with other weights has a row for each tensor


@dataclass(frozen=True)
class Verification:
    """The differences found."""

    drifts: list[Drift]
    notes: list[Drift]  # differences that changed no output: library versions, files added since
    deviations: dict[str, float]  # by output, relative to its length; empty if nothing could be computed


def check_checkpoint(folder_or_id: str | Path, revision: str | None = None) -> list[Drift]:
    """List what drifted in a checkpoint since it was saved, as in `verify_checkpoint`."""
    return verify_checkpoint(folder_or_id, revision=revision).drifts


def verify_checkpoint(
    folder_or_id: str | Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    tolerance: float = TOLERANCE,
) -> Verification:
    """Compare a checkpoint with its golden outputs.

    Checks three things: files, against their digests; the processor, on the recorded images and texts; and the model,
    on the recorded inputs, so that a changed processor is not blamed on the weights.

    Args:
        folder_or_id: Checkpoint folder, or Hub id.
        revision: Branch, tag or commit of a Hub id.
        trust_remote_code: Whether to run the code in the checkpoint instead of the installed package; a Hub id then
            needs a commit as revision, since a branch or tag can move to other code. A process that has imported the
            package runs the package in any case, and a note says so.
        tolerance: How far an output may move, relative to its length. Pixels may move by `PIXEL_TOLERANCE`.

    Raises:
        ValueError: If there is no such checkpoint, it was saved without golden outputs, or it is unchanged and may not
            be loaded.
    """
    if trust_remote_code and not Path(folder_or_id).is_dir() and not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise ValueError(
            f"--trust_remote_code runs the code of {folder_or_id}, and a branch or tag can move to other code: also "
            f"pass the commit that you have read, --revision with 40 hexadecimal digits; got {revision!r}."
        )
    folder = find_checkpoint(folder_or_id, revision)
    golden = read_golden_outputs(folder)
    drifts = compare_files(folder, golden["files"])
    notes = [
        Drift("file", name, "was added after the checkpoint was saved, and loading may read it")
        for name in unrecorded_files(folder, golden["files"])
    ]
    if any(drift.file == GOLDEN_TENSORS for drift in drifts):
        return Verification(drifts, notes, {})  # nothing to compare with
    if not drifts:
        check_files(folder)
    try:
        recorded = load_file(folder / GOLDEN_TENSORS)
        model, processor = load_for_golden_outputs(folder, trust_remote_code=trust_remote_code)
        images = _group(recorded, "image")
        inputs = processed(processor, [images[str(number)] for number in range(len(images))], golden["texts"])
        outputs = model_outputs(model, _group(recorded, "input"))
    except Exception as error:  # files and code of the checkpoint may be broken in any way
        failed = Drift("outputs", GOLDEN_TENSORS, f"cannot be computed: {type(error).__name__}: {error}")
        return Verification([*drifts, failed], notes + list(_other_versions(golden)), {})
    if not type(model).__module__.startswith("transformers_modules."):
        notes += [
            Drift("code", name, "differs from the installed package, which was run; see --trust_remote_code")
            for name in other_code(folder)
            if name in golden["files"]
        ]
    if problem := calibration_problem(model):
        notes.append(Drift("calibration", "config.json", problem))
    moved = list(_compare_inputs(_group(recorded, "input"), inputs, golden["texts"]))
    deviations = {
        # Infinitely far, if the model no longer has the output.
        name: deviation(before, outputs.get(name, np.empty(0)))
        for name, before in _group(recorded, "output").items()
    }
    moved += [
        Drift(f"output {name}", GOLDEN_TENSORS, f"moved by {distance:.2g} of its length, {tolerance:g} allowed")
        for name, distance in deviations.items()
        if not distance <= tolerance
    ]
    versions = list(_other_versions(golden))
    if moved:  # then they are suspects
        return Verification([*drifts, *moved, *versions], notes, deviations)
    return Verification(drifts, notes + versions, deviations)


def describe(checkpoint: str, found: Verification) -> str:
    """Write what was found as a table.

    Example:
        >>> drift = Drift("field image_processor.image_mean", "processor_config.json", "0.4 when recorded, 0.5 now")
        >>> print(describe("runs/demo/checkpoint", Verification([drift], [], {"image_embeds": 2e-7})))
        runs/demo/checkpoint has DRIFTED from what was saved.
          processor_config.json  field image_processor.image_mean  0.4 when recorded, 0.5 now
        Largest move of an output: 2e-07 of its length (image_embeds).
    """
    verdict = "has DRIFTED from what was saved." if found.drifts else "is what was saved."
    lines = [f"{checkpoint} {verdict}", *_table(found.drifts)]
    if found.deviations:
        name = max(found.deviations, key=lambda output: found.deviations[output])
        lines.append(f"Largest move of an output: {found.deviations[name]:.2g} of its length ({name}).")
    if found.notes:
        lines += ["Different, without effect on the outputs:" if found.deviations else "Different:"]
        lines += _table(found.notes)
    return "\n".join(lines)


def _compare_inputs(recorded: Arrays, now: Arrays, texts: list[str]) -> Iterator[Drift]:
    for name, before in recorded.items():
        after = now.get(name, np.empty(0))
        if before.shape != after.shape:
            detail = f"shape {before.shape} when recorded, {after.shape if name in now else 'none'} now"
        elif np.issubdtype(before.dtype, np.integer):  # tokens: there is no small difference
            changed = np.flatnonzero((before != after).any(axis=1))
            detail = f"other for the text {texts[changed[0]][:80]!r}" if len(changed) else ""
        else:
            distance = deviation(before, after)
            moved = f"moved by {distance:.2g} of its length, {PIXEL_TOLERANCE:g} allowed"
            detail = "" if distance <= PIXEL_TOLERANCE else moved
        if detail:
            yield Drift(f"input {name}", GOLDEN_TENSORS, detail)


def _other_versions(golden: dict[str, Any]) -> Iterator[Drift]:
    for name, now in package_versions().items():
        if now != (recorded := golden["packages"].get(name)):
            yield Drift(f"package {name}", "", f"{recorded} when recorded, {now} now")


def _group(tensors: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _table(drifts: list[Drift]) -> list[str]:
    shown = drifts[:MAX_ROWS]
    files = max((len(drift.file) for drift in shown), default=0)
    names = max((len(drift.what) for drift in shown), default=0)
    lines = [f"  {drift.file:{files}}  {drift.what:{names}}  {drift.detail}" for drift in shown]
    return lines + [f"  and {len(drifts) - len(shown)} more"] * (len(drifts) > len(shown))
