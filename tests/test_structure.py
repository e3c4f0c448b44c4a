"""The rules that keep the house in order: few files a folder, short files, one meaning a word, layers."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conftest import PROJECT

PACKAGES = ("modeling_lumbarclip", "data_scripts", "train")
FILES = {path.relative_to(PROJECT): path.read_text() for name in PACKAGES for path in (PROJECT / name).rglob("*.py")}
MAX_FILES = 12
# Registries, one file an entry; and the model: transformers copies only flat files beside a checkpoint.
LARGE_FOLDERS = {Path("train/evaluation/protocols"), Path("train/objectives"), Path("modeling_lumbarclip")}
MAX_LINES = 500
MAX_MAIN_LINES = 60
COMPARING = ("train/experiments", "train/reporting/experiment", "train/compare_systems.py")
# A word that means something else in the glossary: where names must not use it, and what to say there.
GLOSSARY = [
    (r"\brefuse", PACKAGES, "check_..."),
    (r"\bcontrols?\b", PACKAGES, "baseline"),
    (r"\bstud(y|ies)\b(?! id)", COMPARING, "experiment"),
    (r"\banswers?\b", ("train/evaluation", "train/experiments"), "predictions"),
    (r"\bfigures?\b", ("train/evaluation", "train/experiments", "train/training", "data_scripts"), "metrics"),
    (r"\bremed(y|ies)\b", PACKAGES, "imbalance corrections"),
]
ENTRIES = {
    *(Path("train") / f"{name}.py" for name in ("export", "verify", "publish")),
    *(Path("train") / f"{name}.py" for name in ("pretrain", "finetune_classification", "evaluate_model")),
    Path("train/finetune_segmentation.py"),
    *(Path("train") / f"{name}.py" for name in ("compare_systems", "explain", "encode")),
    *(Path("data_scripts") / f"{name}.py" for name in ("build", "audit", "deidentify", "paraphrase")),
    *(Path("data_scripts") / f"{name}.py" for name in ("parse_reports", "publish_dataset")),
}
TESTS_OF_SEVERAL_FILES = {
    "data_scripts/test_build_hostile_tables.py",
    "data_scripts/test_build_interrupted.py",
    "data_scripts/test_build_named_study.py",
    "data_scripts/test_build_privacy.py",
    "modeling_lumbarclip/test_calibrated_weights.py",
    "modeling_lumbarclip/test_other_libraries.py",
    "modeling_lumbarclip/test_transformers_conventions.py",
    "train/objectives/test_losses.py",
    "train/publishing/test_end_to_end.py",
    "train/reporting/card/test_card_metrics.py",
    "train/reporting/card/test_card_page.py",
    "train/test_accelerate_configs.py",
    "train/test_compare_systems_as_in_the_paper.py",
    "train/test_pretrain_without_labels.py",
    "train/test_pretrain_frozen.py",
    "train/test_pretrain_objectives.py",
}
# Files that one sibling alone imports: each answers a question of its own. Any other is merged into that sibling.
OWN_QUESTION = {
    "data_scripts.auditing.near_duplicates": "which images are almost the same?",
    "data_scripts.augmentations.image_variation": "how do pixels vary without changing a finding?",
    "data_scripts.augmentations.polarity_changes": "how is a denial turned into a statement, and back?",
    "data_scripts.augmentations.sides": "can every side of a text be exchanged?",
    "data_scripts.imaging.dicom_series": "which DICOM slices belong together, and in which order?",
    "data_scripts.imaging.nifti": "what does a NIfTI file hold, within bounds?",
    "data_scripts.paraphrasing.rephraser": "how are facts put in other words without a model?",
    "data_scripts.privacy.addresses": "is this an address, and where does it end?",
    "data_scripts.privacy.dates": "is this a date, and where does it end?",
    "data_scripts.reports.assertions": "which words are denied, doubted, or about another examination?",
    "data_scripts.reports.gradings": "which sides and levels are graded one by one?",
    "data_scripts.reports.modifiers": "which side, level and severity?",
    "data_scripts.reports.sections": "which parts of a report assert nothing?",
    "data_scripts.sources.folder.labels": "which classes does a cell name?",
    "data_scripts.sources.folder.names": "which file does a name in a table mean?",
    "data_scripts.sources.folder.pictures": "which pictures does a file have?",
    "data_scripts.sources.folder.reports": "which report belongs to a row?",
    "data_scripts.sources.lsma_pqr.heights": "how high is each disc?",
    "data_scripts.sources.rsna2024.tables": "what do the competition's tables say?",
    "data_scripts.sources.spider.captions": "what caption do grades make?",
    "data_scripts.sources.spider.crops": "which part of a volume shows which disc?",
    "data_scripts.sources.synthetic.reports": "what report fits drawn findings?",
    "data_scripts.sources.synthetic.sagittal": "what does the spine look like from the side?",
    "data_scripts.sources.synthetic.scanner": "how does a scanner degrade a drawing?",
    "data_scripts.sources.synthetic.surroundings": "what lies around the canal?",
    "data_scripts.writing.parts": "which parts are written, and survive a kill?",
    "modeling_lumbarclip.pipeline_lumbarclip": "how do pipelines of transformers use the model?",
    "train.data.report_texts": "which text does an epoch show?",
    "train.data.statement_words": "in which words does a report state or deny a class?",
    "train.encoding.encoders": "torch or ONNX: what embeds a batch?",
    "train.encoding.inputs": "what is embedded, and what cannot be read?",
    "train.experiments.comparison": "which system leads, and by chance?",
    "train.experiments.kinds.pretraining_speed": "how fast does pretraining run here?",
    "train.experiments.kinds.unet": "what is a plain U-Net of equal size?",
    "train.experiments.measures": "what is measured on one system's predictions?",
    "train.experiments.plan": "what will an experiment cost?",
    "train.experiments.results": "what do all runs say together?",
    "train.experiments.systems": "which settings make a published system?",
    "train.objectives.pid_tversky": "how do weights of classes follow the errors of an epoch?",
    "train.pretraining.batch_statistics": "what do batches look like to the loss?",
    "train.publishing.checks": "may this be published?",
    "train.publishing.clean_process": "does it load with nothing but its folder?",
    "train.publishing.space": "what does a Space hold?",
    "train.reporting.card.metadata": "what does the Hub read of a card?",
    "train.reporting.card.origin": "where does a model come from?",
    "train.reporting.card.tables": "which results does a card show?",
    "train.reporting.card.values": "what does a card know of a run?",
    "train.reporting.figures.gallery": "which images were right and wrong?",
    "train.training.result": "what does a finished run leave, and can it be written?",
    "train.training.update_numbers": "what did the updates measure, and is it finite?",
    "train.web_app.examples": "what can be tried without an upload?",
    "train.web_app.views": "what does the page show for an upload?",
}
TOP_LEVEL = {"modeling_lumbarclip", "data_scripts", "train", "tests"}


def module_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def importers() -> dict[str, set[str]]:
    """Which modules import each module of ours."""
    modules = {module_of(path) for path in FILES}
    found: dict[str, set[str]] = defaultdict(set)
    for path, source in {**FILES, Path("app.py"): (PROJECT / "app.py").read_text()}.items():
        package = module_of(path).split(".") if path.name == "__init__.py" else module_of(path).split(".")[:-1]
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                base = (
                    ".".join([*package[: len(package) + 1 - node.level], node.module or ""])
                    if node.level
                    else node.module
                )
                names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                if name in modules and name != module_of(path):
                    found[name].add(module_of(path))
    return found


def names_in(source: str) -> set[str]:
    """Names of functions, classes, arguments, attributes and settings that a file declares."""
    tree, names = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def test_the_top_level_holds_the_four_folders_of_the_card():
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    folders = {name.split("/")[0] for name in tracked.splitlines() if "/" in name and not name.startswith(".")}
    assert folders == TOP_LEVEL


def test_each_of_the_four_folders_explains_itself():
    for name in ("modeling_lumbarclip", "data_scripts", "train"):
        assert (PROJECT / name / "README.md").exists(), name
    assert (PROJECT / "tests/benchmarks/README.md").exists()
    assert (PROJECT / "README.md").stat().st_size <= 10_240


def test_a_folder_has_at_most_twelve_modules():
    counts: dict[Path, int] = defaultdict(int)
    for path in FILES:
        if path.name not in ("__init__.py", "__main__.py"):
            counts[path.parent] += 1
    crowded = {folder.as_posix(): count for folder, count in counts.items() if count > MAX_FILES}
    assert not {folder: count for folder, count in crowded.items() if Path(folder) not in LARGE_FOLDERS}


def test_a_file_is_at_most_500_lines():
    assert not {path.as_posix(): lines for path, text in FILES.items() if (lines := len(text.splitlines())) > MAX_LINES}


def test_every_module_is_used():
    used = importers()
    entries = {module_of(path) for path in ENTRIES} | {"train.__main__"}
    unused = {module_of(path) for path in FILES if path.name != "__init__.py"} - set(used) - entries
    by_path = {"train.publishing.load_alone", "train.evaluation.lumbar_metrics"}  # run, and loaded
    assert unused <= by_path | {"data_scripts.preprocessing.map_functions"}  # for `datasets.map` of a user


def test_a_file_that_one_sibling_imports_answers_a_question_of_its_own():
    alone = {
        name
        for name, (importer, *others) in ((name, sorted(found)) for name, found in importers().items())
        if not others and importer.rpartition(".")[0] == name.rpartition(".")[0]
    }
    inits = {module_of(path) for path in FILES if path.name == "__init__.py"}
    assert alone - inits == OWN_QUESTION.keys()


def test_main_of_an_entry_reads_at_a_glance():
    for path in ENTRIES:
        functions = [node for node in ast.parse(FILES[path]).body if isinstance(node, ast.FunctionDef)]
        (main,) = [node for node in functions if node.name == "main"]
        assert main.end_lineno - main.lineno < MAX_MAIN_LINES, path


@pytest.mark.parametrize("path", sorted(FILES), ids=lambda path: path.as_posix())
def test_names_keep_to_the_glossary(path):
    names = [re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name).lower() for name in {path.stem, *names_in(FILES[path])}]
    for word, places, instead in GLOSSARY:
        if path.as_posix().startswith(places):
            assert not [name for name in names if re.search(word, name)], f"say {instead}"


def test_tests_mirror_the_packages():
    """A test file for a source file; those of several files together say so in their names."""
    sources = {path.with_name(f"test_{path.stem.removeprefix('__').removesuffix('__')}.py") for path in FILES}
    tests = {path.relative_to(PROJECT / "tests") for path in (PROJECT / "tests").rglob("test_*.py")}
    apart = {path for path in tests if len(path.parts) > 1 and path not in sources}
    assert {path.as_posix() for path in apart} == TESTS_OF_SEVERAL_FILES


def test_help_imports_nothing_heavy():
    """In a fresh process, of every command: what takes seconds is imported when there is work to do."""
    script = (
        "import sys\nfrom importlib import import_module\n"
        "from data_scripts.system.command_line import arguments_class_of, build_parser\n"
        "from train.__main__ import COMMANDS\n"
        "for module, _ in COMMANDS.values():\n"
        "    build_parser(arguments_class_of(import_module(module).main)).format_help()\n"
        "    heavy = {'torch', 'transformers', 'gradio', 'datasets'} & set(sys.modules)\n"
        "    assert not heavy, (module, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
