"""Verify that the files of a checkpoint are those that were saved, and that its outputs are still the same.

    python train/verify.py runs/demo/checkpoint
    python train/verify.py USER/MODEL --revision v1.0
    python train/verify.py USER/MODEL --trust_remote_code --revision COMMIT

Lists each file, tensor or field that changed, each input and output that is not reproduced, and each library whose
version differs. The exit code is 1 if something drifted, 2 if nothing could be verified. Other versions are only noted
if the outputs stay the same.
"""

import sys
from dataclasses import MISSING, dataclass

from data_scripts.system.command_line import run, setting

WHEN_INTERRUPTED = "Nothing was verified."  # what Ctrl-C says


@dataclass
class VerifyArguments:
    """Verify that a checkpoint is what was saved, and gives the same outputs."""

    checkpoint: str = setting(MISSING, "Checkpoint folder, or Hub id.", positional=True)
    revision: str = setting("", "Branch, tag or commit of a Hub id; empty: main.")
    trust_remote_code: bool = setting(
        False,
        "Run the code in the checkpoint, as its users do, not that of the installed package. A Hub id needs --revision "
        "with the commit whose code you have read.",
    )
    tolerance: float = setting(
        1e-4,
        "How far an embedding of length 1 may move. The default allows for another machine; on the same machine with "
        "the same libraries use 1e-6.",
    )

    def __post_init__(self) -> None:
        """Check the settings before anything is loaded."""
        if not 0 < self.tolerance < 1:
            raise ValueError(f"--tolerance must lie between 0 and 1, such as 1e-4; got {self.tolerance}.")


def main(args: VerifyArguments) -> int:
    """Print what was found; return the exit code, 1 if anything drifted."""
    from transformers.utils import logging

    from train.checkpoints.verification import describe, verify_checkpoint

    logging.set_verbosity_error()  # the table names what transformers would warn of
    logging.disable_progress_bar()
    found = verify_checkpoint(
        args.checkpoint,
        revision=args.revision or None,
        trust_remote_code=args.trust_remote_code,
        tolerance=args.tolerance,
    )
    print(describe(args.checkpoint, found))
    return 1 if found.drifts else 0


if __name__ == "__main__":
    sys.exit(run(main))
