"""Rules of the house that would otherwise be broken without a sound."""

import re
import runpy
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PAGES = [
    PROJECT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "data_scripts/README.md",
        "modeling_lumbarclip/README.md",
        "tests/benchmarks/README.md",
        "train/README.md",
    )
]
COMMANDS = [
    line.strip()
    for page in PAGES
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]
PACKAGES = ("modeling_lumbarclip", "data_scripts", "train")
SETTING = re.compile(r'^    (\w+): .+ = (?:setting|field)\(|^        "--(\w+)",$', flags=re.M)  # or one added by hand


def test_no_module_of_train_hides_a_library():
    """`accelerate launch train/pretrain.py` puts `train/` first on the path."""
    names = {
        path.stem for path in (PROJECT / "train").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    specs = {name: find_spec(name) for name in names - {"__init__", "__main__", "train"}}
    hidden = {name for name, spec in specs.items() if spec and spec.origin}  # a folder of results is no library
    assert not hidden


@pytest.mark.parametrize("path", sorted((PROJECT / "modeling_lumbarclip").glob("*.py")), ids=lambda path: path.name)
def test_model_files_work_as_remote_code(path):
    """Flat siblings with unique names; the scanner of transformers reads docstrings too."""
    source = path.read_text()
    assert not re.search(
        r"^\s*from \.\s+import|^\s*from \.\.|^\s*(from|import) (modeling_lumbarclip|train|data_scripts)",
        source,
        flags=re.M,
    )
    assert not re.search(r"^\s*from \.\w+\.\w+ import", source, flags=re.M)


def test_commands_of_the_pages_name_files_targets_and_settings_that_exist():
    makefile = (PROJECT / "Makefile").read_text()
    assert any(command.startswith("make demo") for command in COMMANDS)
    sources = [path.read_text() for folder in PACKAGES for path in (PROJECT / folder).rglob("*.py")]
    settings = {
        name
        for source in (*sources, (PROJECT / "app.py").read_text())
        for names in SETTING.findall(source)
        for name in names
    }
    for command in COMMANDS:
        words = shlex.split(command, comments=True)
        ours = next((place for place, word in enumerate(words) if word.endswith(".py") or word == "-m"), len(words))
        for word in words[ours:]:
            if word.startswith("--"):
                assert word.removeprefix("--").removeprefix("no_") in settings, command
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, flags=re.M), command
        for word in words:
            if word.startswith(("train/", "tests/")):
                assert (PROJECT / word).exists(), command
            if word.startswith("data_scripts."):
                assert find_spec(word) is not None, command


@pytest.mark.slow
@pytest.mark.parametrize(
    "entry",
    [
        ["train/pretrain.py"],
        ["train/evaluate_model.py"],
        ["train/compare_systems.py"],
        ["train/finetune_classification.py"],
        ["train/explain.py"],
        ["train/encode.py"],
        ["train/publish.py"],
        ["-m", "data_scripts.build"],
        ["-m", "data_scripts.publish_dataset"],
    ],
)
def test_every_entry_explains_itself(entry):
    done = subprocess.run([sys.executable, *entry, "--help"], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr[-2000:]
    options = re.findall(r"^  --(\w+)", done.stdout, flags=re.M)
    assert len(options) > 5


def test_ctrl_c_ends_an_entry_with_the_way_on(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("data_scripts.system.command_line.parse_arguments", interrupt)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(PROJECT / "train" / "pretrain.py"), run_name="__main__")
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("Interrupted. Rerun with --resume")


def test_results_of_the_pages_are_those_of_the_files(monkeypatch):
    monkeypatch.syspath_prepend(PROJECT)
    from tests.benchmarks import readme_results

    for page, rendered in readme_results.pages().items():
        assert page.read_text().split(readme_results.BEGIN)[1].split(readme_results.END)[0] == rendered


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_of_a_page_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        path, _, anchor = "".join(target).partition("#")
        if not path.startswith("https://"):
            linked = page.parent / path if path else page
            assert linked.exists(), path
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), flags=re.M) if anchor else []
            assert not anchor or anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


def test_subcommands_that_the_pages_name_exist():
    from train.__main__ import COMMANDS as SUBCOMMANDS

    named = [name for page in PAGES for name in re.findall(r"`lumbarclip (\w[\w-]*)", page.read_text())]
    assert "build" in named
    assert {name.replace("-", "_") for name in named} <= set(SUBCOMMANDS)


def test_make_help_lists_the_targets():
    shown = subprocess.run(["make", "help"], capture_output=True, text=True, cwd=PROJECT, check=True).stdout
    for target in ("demo", "test", "check", "bench", "smoke"):
        assert re.search(rf"make {target} +\S", shown)
