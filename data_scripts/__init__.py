"""Raw studies to a folder that `datasets.load_dataset` reads."""

import os
import sys
from typing import Any


def _quiet_when_interrupted(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Print no traceback for a Ctrl-C before `command_line.run` handles it: imports take seconds."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("Interrupted.", file=sys.stderr, flush=True)
    os._exit(130)


sys.excepthook = _quiet_when_interrupted  # here, since every command imports this package first
