"""Every module that can be run says what it does, and ends, when it is asked for help."""

import json
import re
import subprocess
import sys

from tests.conftest import PROJECT

IS_RUNNABLE = re.compile(r'^if __name__ == "__main__":', re.MULTILINE)
# In one process, since each would import torch anew.
ASK = """
import contextlib, io, json, runpy, sys
answers = {}
for module in sys.argv[1:]:
    sys.argv, stdout = [module, "--help"], io.StringIO()
    meta_path = list(sys.meta_path)
    with contextlib.redirect_stdout(stdout):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = "no exit"
        except SystemExit as end:
            code = end.code or 0
        except Exception as error:
            code = repr(error)
    sys.meta_path[:] = meta_path
    answers[module] = code, stdout.getvalue()
print(json.dumps(answers))
"""


def test_every_module_that_runs_answers_help_and_ends():
    paths = [PROJECT / "app.py"]
    for folder in ("data_scripts", "modeling_lumbarclip", "tests", "train"):
        paths += sorted((PROJECT / folder).rglob("*.py"))
    modules = [
        ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__main__")
        for path in paths
        if IS_RUNNABLE.search(path.read_text())
    ]
    assert {"app", "train", "data_scripts.build", "tests.loopback_hub", "tests.benchmarks.bench_losses"} <= {*modules}
    words = [sys.executable, "-c", ASK, *modules]
    done = subprocess.run(words, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for module, (code, shown) in json.loads(done.stdout.splitlines()[-1]).items():
        assert code == 0 and shown.startswith("usage: "), f"{module}: {code}: {shown[:200]}{done.stderr[-1000:]}"
        assert len(shown.split("\n\n")) > 1, f"{module} says only how it is called"
