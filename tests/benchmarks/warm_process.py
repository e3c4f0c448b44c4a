"""A process that has imported everything, and starts commands at once by forking."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from data_scripts.system.command_line import run

PATIENCE_SECONDS = 300


class WarmProcess:
    """Starts commands, each in a fork of a process that has imported everything and in a process group of its own."""

    def __init__(self, modules: Sequence[str]) -> None:
        code = "from tests.benchmarks.warm_process import serve; serve()"
        settings = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
        self.process = subprocess.Popen([sys.executable, "-c", code], **settings)
        self.running: set[int] = set()
        self._say([*modules])
        self.process.stdout.readline()

    def _say(self, content: Any) -> None:
        self.process.stdin.write(json.dumps(content) + "\n")
        self.process.stdin.flush()

    def start(self, module: str, words: list[str], folder: Path, log: Path, fresh: bool = False) -> int:
        """Return the process id; `fresh` starts a new interpreter."""
        self._say([module, words, str(folder), str(log), fresh])
        self.running.add(pid := int(self.process.stdout.readline()))
        return pid

    def wait(self, pid: int) -> int:
        """The exit code; negative for a signal, which is SIGKILL after `PATIENCE_SECONDS`."""
        self._say(pid)
        if not select.select([self.process.stdout], [], [], PATIENCE_SECONDS)[0]:
            kill_group(pid)
        self.running.discard(pid)
        return int(self.process.stdout.readline())

    def close(self) -> None:
        for pid in (*self.running, self.process.pid):
            kill_group(pid)
        self.process.wait()


def serve() -> None:
    """Import modules; fork a child for each command on standard input, or wait for one. Runs in a warm process."""
    for module in json.loads(sys.stdin.readline()):
        import_module(module)
    print("ready", flush=True)
    for line in sys.stdin:
        content = json.loads(line)
        if isinstance(content, int):
            print(os.waitstatus_to_exitcode(os.waitpid(content, 0)[1]), flush=True)
        elif pid := os.fork():
            print(pid, flush=True)
        else:
            module, words, folder, log, fresh = content
            os.setsid()
            os.chdir(folder)
            for number, name in enumerate((os.devnull, f"{log}.out", f"{log}.err")):
                os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
            if fresh:
                os.execv(sys.executable, [sys.executable, "-m", module, *words])
            sys.argv = [module, *words]
            sys.exit(run(import_module(module).main, words))


def kill_group(pid: int) -> None:
    """Kill a command with all processes it has started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
