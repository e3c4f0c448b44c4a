"""Rules of the house that would otherwise be broken without a sound."""

import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
        ["train/finetune_segmentation.py"],
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


@pytest.fixture(scope="module")
def bounds():
    """Return the specifier of each package that setup.cfg or the build asks for."""
    settings = ConfigParser()
    settings.read(PROJECT / "setup.cfg")
    texts = [settings["options"]["install_requires"], *settings["options.extras_require"].values()]
    build = tomllib.loads((PROJECT / "pyproject.toml").read_text())["build-system"]["requires"]
    requirements = [Requirement(line) for line in (*"\n".join(texts).split(), *build)]
    return {canonicalize_name(asked.name): asked.specifier for asked in requirements if asked.name != "lumbarclip"}


def test_every_package_is_pinned_once_with_hashes_and_without_a_host():
    text = (PROJECT / "constraints.txt").read_text()
    lines = re.sub(r"^#.*\n", "", text, flags=re.M)
    pin = r"([a-z0-9-]+)==[\w.+!-]+(?: ; [^\n]+?)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    names = re.findall(f"^{pin}", lines, flags=re.M)
    assert re.fullmatch(f"(?:{pin})+", lines), "run make pins"
    assert len(names) == len(set(names)) > 100
    assert "://" not in text


def test_every_pin_is_within_the_bound_of_setup_cfg(bounds):
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (PROJECT / "constraints.txt").read_text(), flags=re.M))
    assert {"torch", "pydicom", "gradio", "onnx", "pytest", "setuptools"} <= set(bounds)
    assert not [f"{name}=={pins.get(name)}" for name in bounds if not bounds[name].contains(pins.get(name, "0"))]


@pytest.mark.parametrize(
    "last_bad",
    [
        "gradio==6.23.1",  # does not know `run_history`
        "gradio==6.29.0",  # refuses huggingface_hub 2
        "safetensors==0.7.0",  # transformers refuses it
        "pip==26.2.1",  # ignores the hashes of constraints beside an editable project
        # Published flaws; setup.cfg names them.
        "torch==2.9.1",
        "pillow==12.2.0",
        "datasets==5.1.0",
        "filelock==4.2.0",
        "pydicom==3.0.1",
        "tqdm==4.66.2",
        "accelerate==1.14.0",
        "jinja2==3.1.5",
        "markdown==3.8",
        "onnx==1.20.1",
        "pytest==9.0.2",
    ],
)
def test_a_version_that_is_known_to_be_bad_is_refused(bounds, last_bad):
    name, version = last_bad.split("==")
    assert not bounds[name].contains(version)


def test_make_installs_and_builds_with_pinned_files_alone():
    told = ["make", "--dry-run", "--always-make", ".venv/installed-train"]
    recipe = subprocess.run(told, capture_output=True, text=True, cwd=PROJECT, check=True).stdout
    pip, project = (line for line in recipe.splitlines() if "pip install" in line)
    assert "--require-hashes" in pip
    assert {"--constraint constraints.txt", "--build-constraint constraints.txt"} <= set(
        re.findall(r"--\S*constraint \S+", project)
    )
