"""Run transformers' own common tests on LumbarCLIP with five vision towers, of timm and of transformers.

    python -m tests.benchmarks.common_tests --out tests/benchmarks/results/common_tests.json    # 15 minutes on 2 cores
    python -m tests.benchmarks.common_tests --only "TimmViT and training"

Exits with 1 if a test failed. The source distribution of the installed transformers, and `parameterized`, come from
PyPI into a temporary folder; neither is kept. That distribution has only the files `tests/test_*.py`: the tests of
export, generation and pipelines are not among them.

`common_test_cases.py` describes the models, and says why a test is skipped.
"""

import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from data_scripts.system.command_line import run, setting
from data_scripts.system.markdown import markdown_table
from data_scripts.system.whole_files import write_json

PROJECT = Path(__file__).parents[2]
CASES = Path(__file__).with_name("common_test_cases.py")
PACKAGE = "transformers_tests"  # their `tests`, renamed: there is one of ours
# What the common tests import from files that the source distribution lacks.
LACKING = {
    f"{PACKAGE}/__init__.py": "",
    f"{PACKAGE}/exporters/test_export.py": "class ExportTesterMixin: pass",
    f"{PACKAGE}/generation/test_utils.py": "class GenerationTesterMixin: pass",
    f"{PACKAGE}/utils/test_configuration_utils.py": "config_common_kwargs = {}",
    "utils/fetch_hub_objects_for_ci.py": "url_to_local_path = str",
}
OUTCOMES = ("passed", "failed", "skipped")


@dataclass
class CommonTestsArguments:
    """Run transformers' own common tests on LumbarCLIP."""

    out: str = setting("", "JSON file to write the results to; nothing when empty.")
    only: str = setting("", "Run the tests that match this expression, as with pytest -k; all when empty.")
    num_processes: int = setting(2, "Processes that run tests.")


@dataclass(frozen=True)
class Result:
    """What a test came to: `reason` says why it was skipped, or how it failed."""

    group: str
    test: str
    outcome: str
    reason: str = ""


def main(args: CommonTestsArguments) -> int:
    """Fetch the tests, run them, print tables, and write the results."""
    with tempfile.TemporaryDirectory(prefix="common-tests-") as folder:
        fetch(Path(folder))
        results = run_tests(Path(folder), args)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for result in results:
        counts[result.group][result.outcome] += 1
    failures = [asdict(result) for result in results if result.outcome == "failed"]
    skips = skips_by_reason(results)
    print(markdown_table(["tests of", *OUTCOMES], [[name, *map(of.__getitem__, OUTCOMES)] for name, of in counts.items()]))
    print("\n".join(["", *(f"skipped {len(tests)}: {reason}" for reason, tests in skips.items())]))
    print("\n".join(["", *(f"FAILED {each['group']} {each['test']}: {each['reason']}" for each in failures)]))
    if args.out:
        content = {
            "command": shlex.join(["python", "-m", "tests.benchmarks.common_tests", *sys.argv[1:]]).partition(" --out")[0],
            "date": date.today().isoformat(),
            "packages": {name: version(name) for name in ("torch", "transformers", "timm")},
            "counts": {name: {outcome: of[outcome] for outcome in OUTCOMES} for name, of in counts.items()},
            "skips": skips,
            "failures": failures,
        }
        write_json(Path(args.out), content)
    return 1 if failures or not counts else 0


def fetch(folder: Path) -> None:
    """Lay transformers' tests, what they import, and our cases into a folder."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    requirement = f"transformers=={version('transformers')}"
    source = ["--no-binary", ":all:", "--no-deps", "--no-build-isolation", requirement]
    subprocess.run([*pip, "download", "--dest", folder, *source], check=True)
    subprocess.run([*pip, "install", "--target", folder, "--no-deps", "parameterized"], check=True)
    (path,) = folder.glob("transformers-*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.glob("transformers-*/")
    (root / "tests").rename(folder / PACKAGE)
    for name, content in LACKING.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content + "\n")


def run_tests(folder: Path, args: CommonTestsArguments) -> list[Result]:
    """Run pytest, and read its report."""
    report = folder / "report.xml"
    words = [f"--rootdir={folder}", "--noconftest", "--quiet", "--tb=line", f"--junitxml={report}"]
    words += ["--config-file=/dev/null", "-p", "no:cacheprovider", "-n", str(args.num_processes), "--dist", "loadscope"]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{PROJECT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(folder),
    }
    only = ["-k", args.only] if args.only else []
    subprocess.run([sys.executable, "-m", "pytest", *words, *only, CASES], cwd=folder, env=environment)
    if not report.exists():
        raise RuntimeError("pytest wrote no report: see its output above.")
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return [result_of(case, folder) for case in cases]


def result_of(case: ElementTree.Element, folder: Path) -> Result:
    """Read one test of the report."""
    group = re.sub(r"^.*\.(Test)?|Cases$", "", case.get("classname", ""))
    for tag, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if (element := case.find(tag)) is not None:
            reason = element.get("message", "").replace(f"{folder}{os.sep}", "")
            return Result(group, case.get("name", ""), outcome, reason)
    return Result(group, case.get("name", ""), "passed")


def skips_by_reason(results: list[Result]) -> dict[str, list[str]]:
    """Collect the skipped tests of each reason."""
    skips: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if result.outcome == "skipped":
            skips[result.reason].append(f"{result.group}.{result.test}")
    return dict(sorted(skips.items()))


if __name__ == "__main__":
    sys.exit(run(main))
