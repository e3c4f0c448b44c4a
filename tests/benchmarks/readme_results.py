"""Write the results in `README.md` and `tests/benchmarks/README.md` from what the runs and benchmarks wrote.

    python -m tests.benchmarks.readme_results

Reads `tests/benchmarks/results/`: `demo.json` is the `metrics.json` of that run, `experiment_NAME.json` what
`keep_experiment` kept, the others what the benchmarks wrote with `--out`; `report_reading_first.json` is the first
reading of the held-out notes, before the errors that it found were fixed. A test compares both pages with them.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from data_scripts.system.markdown import Markdown, markdown_table
from tests.benchmarks.readme_benchmarks import (
    balance_section,
    build_section,
    common_tests_section,
    counterfactual_section,
    foreign_section,
    inference_section,
    leak_section,
    letters_section,
    losses_section,
    reading_section,
    robustness_section,
    training_section,
)
from tests.benchmarks.readme_experiments import (
    SYSTEM_NAMES,
    dataset_in_words,
    experiment_section,
    explanation_section,
    lead_in_words,
    probe_section,
)
from train.reporting.tables import format_entry, systems_table
from train.reporting.wordings import unseen_in_words

PROJECT = Path(__file__).parents[2]
RESULTS = PROJECT / "tests" / "benchmarks" / "results"
BEGIN, END = "<!-- results -->\n", "<!-- /results -->\n"
NAMES = {
    "majority": "majority class",
    "untrained": "untrained encoder",
    "pixel_pca": "pixel PCA",
    "hog": "HOG",
    "texture": "texture, boosted trees",
    "imagenet": "ImageNet tower",
    "no_pixels": "no pixels (sequence, level, size)",
}
ABLATION_CAVEAT = "These are drawn slices: real ones may behave differently."

# Name, title, what was compared, caveats.
EXPERIMENTS = [
    (
        "spider_folds",
        "Real discs: LumbarCLIP on SPIDER, cross-validated",
        "Crops of discs, each measured by models that never saw its patient, pooled over the folds. Captions are "
        "composed from the grades, since SPIDER has no reports. The table leads with a logistic regression on frozen "
        "image features.",
        "The recipe was chosen on folds of another division "
        "of the same patients, which flatters it; so was the baselines' probe.",
    ),
    (
        "koa",
        "Knees: CLIP-KOA and its parts",
        "Radiographs with Kellgren-Lawrence grades 0 to 4, 722 to learn from. A tower of ImageNet weights, nine of "
        "its 17 layers frozen, 128 pixels, four passes. CLIP learns the prompts of each grade beside the contrast with "
        "captions composed from grade and side; symmetry adds each film's mirror image, consistency a second augmented "
        "view, CLIP-KOA both. Image only learns the same grades without texts, so its prompts tell nothing. *Flip "
        "agreement*: share of films whose mirror image gets the same grade.",
        "We aimed at an accuracy of 0.60, a kappa of 0.75 and, with symmetry, a flip agreement of 0.95: none is "
        "reached. By prompts, no system with texts finds grade 1. The recipe was fixed before the test patients were "
        "measured, and is short: `configs/knee_koa.yaml` says what three times as many passes of CLIP-KOA reach; their "
        "number was set with test results of one seed in sight. The intervals do not cover other seeds.",
    ),
    (
        "small_cpu",
        "The paper's systems, small, on the synthetic set",
        "Seven systems of the paper's Table 2 with small towers, plus CLIP, SigLIP, a tower trained on only the "
        "labels and an untrained one; the same pairs, passes and loop. The tables lead with a logistic regression on "
        "frozen image features.",
        "",
    ),
    (
        "spider",
        "Real discs: every system on SPIDER",
        "One small tower from random weights for all systems, 15 passes over the training patients of each fold; "
        "captions are composed from the grades. The tables lead with a logistic regression on frozen image features.",
        "LumbarCLIP and MedCLIP compare the grade as well as the labels in their targets, Supervised learns "
        "only the labels. That LumbarCLIP counts absences, and its label temperature, were chosen earlier on folds of "
        "these same patients, which flatters it; *LumbarCLIP as published* was not tuned. A comparison of small towers "
        "and short training: results may differ at full size.",
    ),
    (
        "ablation_targets",
        "What soft targets do, synthetic",
        "Each pair matches only itself (hard), or all pairs by the overlap of their classes at a label temperature, "
        "or each pair of the batch is judged on its own (sigmoid). Ten passes over few patients, many test patients, "
        "only the original reports.",
        "If reports of one class are right answers for each other, nothing rewards finding the patient's own report. "
        + ABLATION_CAVEAT,
    ),
    (
        "ablation_text",
        "What augmented texts add, synthetic",
        "The second half of the loss contrasts the images with nothing, with EDA variations of their reports, with "
        "rephrasings, or with EDA variations of rephrasings. Ten passes over few patients, many test patients.",
        "The composed reports of this set vary less than radiologists' notes. " + ABLATION_CAVEAT,
    ),
    (
        "ablation_heads",
        "What projection heads do, synthetic",
        "No heads (the wider pooled feature is averaged down to the narrower), linear and non-linear ones of two "
        "widths. Ten passes over few patients, many test patients.",
        ABLATION_CAVEAT,
    ),
]


def main() -> None:
    """Replace the text between the marks of both pages."""
    for path, text in pages().items():
        before, rest = path.read_text().split(BEGIN)
        path.write_text(before + BEGIN + text + END + rest.split(END)[1])


def pages() -> dict[Path, str]:
    """Write the text between the marks, by page."""
    return {
        PROJECT / "README.md": "\n" + headline(read("experiment_spider")) + "\n",
        PROJECT / "tests" / "benchmarks" / "README.md": render(),
    }


def render() -> str:
    """Write the results as Markdown."""
    experiments = [experiment_section(*words, read(f"experiment_{words[0]}")) for words in EXPERIMENTS]
    shown, sections = [demo_section(read("demo")), *experiments[:4]], experiments[4:]
    other_maps = {name: read(name) for name in ("explanation_vit", "explanation_swin")}
    sections += [probe_section(read("probe")), explanation_section(read("explanation"), other_maps)]
    sections += [reading_section(read("report_reading_first"), read("report_reading"))]
    sections += [counterfactual_section(read("counterfactuals")), leak_section(read("leak_gap"))]
    sections += [
        foreign_section({"demo": read("foreign_images_demo"), "SPIDER discs": read("foreign_images_spider")}),
        letters_section(read("burnt_in_text")),
    ]
    sections += [balance_section(read("batch_balance")), build_section(read("build"))]
    sections += [losses_section(read("losses")), training_section(read("training"))]
    sections += [inference_section(read("inference")), robustness_section(read("robustness"))]
    sections += [common_tests_section(read("common_tests"))]
    return "\n\n".join(["## Results", *shown, *map(folded, sections)]) + "\n\n"


def folded(section: str) -> str:
    """Fold a section behind its title."""
    title, _, body = section.removeprefix("### ").partition("\n\n")
    return f"<details>\n<summary><b>{title}</b></summary>\n\n{body}\n\n</details>"


def read(name: str) -> dict[str, Any]:
    """Read one file of measurements."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def systems_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Collect the probe of our model and of every baseline."""
    baselines = {NAMES[name]: entry["linear_probe"] for name, entry in results["baselines"].items()}
    return {Markdown("**LumbarCLIP**"): results["linear_probe"], **baselines}


def demo_section(results: dict[str, Any]) -> str:
    """Describe what `make demo` measured."""
    data, zero_shot = results["dataset"], results["zero_shot"]["balanced_accuracy"]
    table = systems_table(systems_of(results), ["macro_f1", "balanced_accuracy", "grade_quadratic_kappa"])
    unseen = unseen_in_words(results, "balanced_accuracy")
    return (
        f"### Synthetic, `make demo`\n\nLow back pain or no finding on {data['num_rows']} drawn slices of "
        f"{data['num_patients']} patients never seen in training; linear probe on frozen image features, 95 % "
        f"intervals over patients. Zero-shot balanced accuracy, by prompts: {format_entry(zero_shot)}."
        f"{f' {unseen}' if unseen else ''}\n\n{table}"
        f"\n\n`{results['command']}`, {results['date'][:10]}, `results/demo.json`."
    )


def headline(results: dict[str, Any]) -> str:
    """Write the table at the top of the README: every system on real discs, with command, data and date."""
    metric, group = results["headline"]["metric"], results["headline"]["group"]
    columns = {
        "macro AUROC": (group, metric),
        "grade kappa": ("grade/unprojected", "quadratic_kappa"),
        "text to image, R@10": ("retrieval/report", "text_to_image_recall_at_10"),
    }
    rows = [
        [SYSTEM_NAMES.get(name, name), *(format_entry(entry["metrics"].get(g, {}).get(m)) for g, m in columns.values())]
        for name, entry in {**results["systems"], **results["baselines"]}.items()
    ]
    command = (
        results["command"].replace("train/study.py", "train/compare_systems.py").replace("/studies/", "/experiments/")
    )
    return f"""Training objectives on real discs: SPIDER, {results["dataset"]["num_rows"]} MRI crops of \
{results["dataset"]["num_patients"]} patients, {results["dataset"]["split"]} by patient. One small tower from random \
weights for every system. Captions are composed from the grades, since SPIDER has no reports. Macro AUROC over seven \
findings and quadratic kappa of the Pfirrmann grade, by logistic regression on frozen image features; retrieval of an \
image by its caption. {dataset_in_words(results).rpartition("; ")[2].capitalize()}; 95 % intervals over patients.

{markdown_table(["system", *columns], rows)}

{lead_in_words(results, metric)} LumbarCLIP's settings were tuned earlier on folds of these patients, which \
flatters it; *as published* was not tuned.

`{command}`, {results["date"][:10]}, `tests/benchmarks/results/experiment_spider.json`.
"""


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
