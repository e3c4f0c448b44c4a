"""Write the sections of the results page on models: experiments, probes and maps, as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_scripts.system.markdown import Markdown, escape_markdown, markdown_table
from train.evaluation.statistics.spreads import POLARITY, SINGLE, spread_name
from train.reporting.tables import format_entry, readable

ASKED = ("zero_shot", SINGLE, POLARITY)  # groups of what prompts reach
LEVEL = 0.05  # of Holm's correction
SYSTEM_NAMES = {
    "majority": "majority class",
    "pixel_pca": "pixel PCA",
    "hog": "HOG",
    "texture": "texture, boosted trees",
    "imagenet": "ImageNet tower",
    "no_pixels": "no pixels",
}
WORDS = {
    "quadratic_kappa": "quadratic kappa of the grade",
    "text_to_image_recall_at_10": "text-to-image retrieval, R@10",
}
SCORES = {"pointing_game": "pointing game", "inside_energy": "inside-mask energy"}
MAP_BASELINES = ("randomised model", "centre prior", "uniform map")
# What tells the grade of a knee, by group; the last one is measured for baselines, too.
READERS = {
    "grade_by/prompts": "prompts",
    "grade_by/fusion": "image and text fused",
    "grade_by/probe": "probe",
    "grade/unprojected": "probe",
}
PAPER = "probe/paper/unprojected"
PROBES = {
    "paper": "the paper's probe, each row once",
    "paper_upsampled": "rare class upsampled to equality",
    "paper_five_texts": "five texts a row, as the paper's set",
    "paper_five_texts_table_1": "five texts, rare class raised to 16 %",
    "paper_five_texts_upsampled": "five texts, upsampled to equality",
    "paper_balanced": "each row once, class-balanced loss",
    "paper_logit_adjusted": "each row once, logit-adjusted loss",
    "paper_threshold": "each row once, threshold of validation patients",
    "logistic": "logistic regression",
    "knn": "nearest neighbours",
}


def experiment_section(name: str, title: str, introduction: str, closing: str, results: dict[str, Any]) -> str:
    """Write one experiment: its table, which system leads, how much seeds differ, and a picture.

    Columns of zero-shot also have the standard deviation over the seeds, on which prompts depend far more than probes.

    Args:
        name: Name of the experiment's files in `tests/benchmarks/results`.
        title: Title of the section.
        introduction: What was compared.
        closing: Caveats; may be empty.
        results: What `keep_experiment.py` kept.

    Returns:
        Markdown.
    """
    if _any_has(results, "grade_by/prompts", "flip_agreement"):
        return knee_section(name, title, introduction, closing, results)
    headline, metric = results["headline"]["group"], results["headline"]["metric"]
    differences = _differences(results, metric)
    if results["headline"]["exclusive"]:
        columns = {
            in_words(metric): (headline, metric),
            "AUROC": (headline, "auroc"),
            "macro F1, the paper's probe": (PAPER, metric),
            "zero-shot macro F1": ("zero_shot", metric),
        }
    else:
        columns = {
            in_words(metric): (headline, metric),
            "grade kappa": ("grade/unprojected", "quadratic_kappa"),
            "zero-shot macro AUROC": ("zero_shot", metric),
        }
    columns |= {title: column for title, column in asked_columns(metric).items() if _any_has(results, *column)}
    columns["text to image, R@10"] = ("retrieval/report", "text_to_image_recall_at_10")
    reference = results["headline"]["reference"]
    rows = []
    for system, entry in {**results["systems"], **results["baselines"]}.items():
        found = [(group, entry["metrics"].get(group, {}).get(figure)) for group, figure in columns.values()]
        cells = [with_spread(one) if group in ASKED else format_entry(one) for group, one in found]
        rows.append([SYSTEM_NAMES.get(system, system), *cells, differences.get(system, "-")])
    header = ["system", *columns, f"{reference} less this"]
    where = f"{dataset_in_words(results)}"
    told = [metric, "text_to_image_recall_at_10"]
    if not results["headline"]["exclusive"]:
        told.insert(1, "quadratic_kappa")
    verdicts = [lead_in_words(results, figure) for figure in told]
    parts = [
        f"### {title}",
        f"{introduction} Measured on {where}; 95 % intervals over patients.",
        markdown_table(header, rows),
        "\n".join(f"- {verdict}" for verdict in verdicts if verdict),
        f"![{title}](results/experiment_{name}.png)",
        " ".join(filter(None, (seeds_in_words(results, metric), closing, rarest_in_words(results)))),
        f"`{results['command']}`, {results['date'][:10]}, `results/experiment_{name}.json`.",
    ]
    return "\n\n".join(part for part in parts if part)


def knee_section(name: str, title: str, introduction: str, closing: str, results: dict[str, Any]) -> str:
    """Write an experiment on grades of knees: what reads the grade, and whether a mirror image changes it."""
    systems = {**results["systems"], **results["baselines"]}
    told = ("accuracy", "quadratic_kappa", "flip_agreement")
    columns = {
        f"{readable(metric)}, {READERS[group]}": (group, metric)
        for group in READERS
        for metric in told
        if _any_has(results, group, metric)
    }
    rows = [
        [
            SYSTEM_NAMES.get(system, system),
            *(format_entry(entry["metrics"].get(g, {}).get(m)) for g, m in columns.values()),
        ]
        for system, entry in systems.items()
    ]
    compared = [
        entry
        for entry in results["comparisons"]
        if entry["to"] == "systems" and entry["group"] in READERS and entry["metric"] in told
    ]
    reference = results["headline"]["reference"]
    pairs = [
        [f"{readable(entry['metric'])}, {READERS[entry['group']]}"]
        + [format_entry(entry["differences"].get(system)) for system in results["systems"] if system != reference]
        for entry in compared
    ]
    others = [f"{reference} less {system}" for system in results["systems"] if system != reference]
    return "\n\n".join(
        part
        for part in (
            f"### {title}",
            f"{introduction} Measured on {dataset_in_words(results)}; 95 % intervals over patients.",
            markdown_table(["system", *columns], rows),
            "Differences, paired on the same patients:",
            markdown_table(["difference", *others], pairs),
            "\n".join(
                "- " + differences_in_words(entry, f"{readable(entry['metric'])} by {READERS[entry['group']]}")
                for entry in compared
            ),
            f"![{title}](results/experiment_{name}.png)",
            " ".join(
                filter(None, (closing, f"The picture: {in_words(results['headline']['metric'])} of the findings."))
            ),
            f"`{results['command']}`, {results['date'][:10]}, `results/experiment_{name}.json`.",
        )
        if part
    )


def differences_in_words(comparison: Mapping[str, Any], metric: str) -> str:
    """Say from which systems the first one of a comparison differs by more than chance.

    Example:
        >>> pairs = {"A": {"value": -0.2, "excludes_zero": True}, "B": {"value": 0.1, "excludes_zero": False}}
        >>> differences_in_words({"first": "CLIP", "differences": pairs}, "accuracy")
        'Accuracy: *CLIP* is below *A*; any other difference may be chance.'
    """
    sure = {name: pair["value"] for name, pair in comparison["differences"].items() if pair["excludes_zero"]}
    sides = {
        "above": [f"*{name}*" for name, value in sure.items() if value > 0],
        "below": [f"*{name}*" for name, value in sure.items() if value < 0],
    }
    told = " and ".join(f"{side} {_listed(names)}" for side, names in sides.items() if names)
    found = f"*{comparison['first']}* is {told}" if told else f"no difference of *{comparison['first']}* exceeds chance"
    rest = "; any other difference may be chance" if told and len(sure) < len(comparison["differences"]) else ""
    return f"{metric[0].upper()}{metric[1:]}: {found}{rest}."


def asked_columns(metric: str) -> dict[str, tuple[str, str]]:
    """List the columns of what unseen wordings reach, which older results do not have."""
    return {
        "one unseen wording: mean": (SINGLE, spread_name(metric, "mean")),
        "SD of wordings": (SINGLE, spread_name(metric, "standard_deviation")),
        "worst wording": (SINGLE, spread_name(metric, "worst")),
        "polarity accuracy": (POLARITY, "polarity_accuracy"),
        "polarity, all wordings": (POLARITY, "polarity_accuracy_together"),
    }


def _any_has(results: Mapping[str, Any], group: str, metric: str) -> bool:
    return any(metric in system["metrics"].get(group, {}) for system in results["systems"].values())


def with_spread(entry: Mapping[str, Any] | None) -> Markdown:
    """Write a metric with its interval and its standard deviation over the seeds, if there are several.

    Example:
        >>> entry = {"value": 0.64, "low": 0.554, "high": 0.697, "standard_deviation_of_seeds": 0.12}
        >>> with_spread(entry)
        '0.640 [0.554, 0.697] ± 0.120'
        >>> with_spread(entry | {"standard_deviation_of_seeds": None}), with_spread(None)
        ('0.640 [0.554, 0.697]', '-')
    """
    spread = entry and entry.get("standard_deviation_of_seeds")
    return Markdown(f"{format_entry(entry)}{'' if spread is None else f' ± {spread:.3f}'}")


def seeds_in_words(results: Mapping[str, Any], metric: str) -> str:
    """Say how much the metrics of the reference differ between seeds, or that there was only one."""
    seeds = len(results["seeds"])
    if seeds == 1:
        return "One seed: the intervals do not cover another training run, which changes zero-shot scores most."
    reference = results["headline"]["reference"]
    of_reference = results["systems"][reference]["metrics"]
    spreads = [
        f"{of_reference[group][metric]['standard_deviation_of_seeds']:.3f} {words}"
        for group, words in ((results["headline"]["group"], f"for {in_words(metric)}"), ("zero_shot", "zero-shot"))
        if of_reference.get(group, {}).get(metric)
    ]
    return (
        f"Means over {seeds} seeds; the intervals cover patients, not other seeds. Standard deviation of {reference} "
        f"over the seeds: {', '.join(spreads)}."
    )


def rarest_in_words(results: Mapping[str, Any]) -> str:
    """Name the finding with the fewest images; empty for exclusive classes.

    Example:
        >>> labels = {"slip": {"rows": 7, "patients": 4}, "bulge": {"rows": 35, "patients": 22}}
        >>> rarest_in_words({"headline": {"exclusive": False}, "dataset": {"labels": labels}})
        'Rarest finding: slip, 7 images of 4 patients.'
    """
    labels = results["dataset"]["labels"]
    if results["headline"]["exclusive"]:
        return ""
    name = min(labels, key=lambda label: labels[label]["rows"])
    return f"Rarest finding: {name}, {labels[name]['rows']} images of {labels[name]['patients']} patients."


def probe_section(results: dict[str, Any]) -> str:
    """Describe what caching features is worth, and what finds a rare class."""
    speed = results["speed"]
    kept = {share: results["training_rows"][share] for share in results["corrections"]}
    header = ["probe", *(f"{min(rows.values())} of {sum(rows.values())} training rows rare" for rows in kept.values())]
    names = next(iter(results["corrections"].values()))
    rare = list(results["corrections"])[1]
    recalls = {name: f"{of['minority_recall']['mean']:.3f}" for name, of in results["corrections"][rare].items()}
    num_rare, num_rows = min(kept[rare].values()), sum(kept[rare].values())
    rows = [
        [
            PROBES[name],
            *(
                f"{of[name]['macro_f1']['mean']:.3f} / {of[name]['minority_recall']['mean']:.3f}"
                for of in results["corrections"].values()
            ),
        ]
        for name in names
    ]
    return (
        "### Probes\n\n"
        f"Fifty epochs of the paper's probe on cached features of {speed['training_images']:,} images take "
        f"{speed['cached_seconds']:.0f} s with encoding; encoding again in each epoch takes "
        f"{speed['encoding_each_epoch_seconds']:,.0f} s ({speed['ratio']:.0f} times as long; "
        f"{results['arguments']['encoding_epochs']} of the 50 encodings were timed).\n\n"
        "The rare class thinned only for the probe; macro F1 / minority recall on the synthetic test patients, mean "
        f"of {results['arguments']['seeds']} draws. The paper trains its probe, 50 epochs at 1e-4, on a set in which "
        "each image comes with five texts, and upsamples it. How much of a rare class the probe finds depends on that: "
        f"with {num_rare} of {num_rows} rows rare, minority recall is {recalls['paper']} with each row once, "
        f"{recalls['paper_five_texts']} with five texts, {recalls['paper_five_texts_table_1']} if the rare class is "
        "raised to the 16 % of the paper's Table 1, too, and "
        f"{recalls['paper_five_texts_upsampled']} if it is raised to equality.\n\n"
        f"{markdown_table(header, rows)}\n\n"
        f"`{results['command']}`, {results['date']}, `results/probe.json`."
    )


def _differences(results: dict[str, Any], metric: str) -> dict[str, str]:
    """Select the reference less each other system and baseline, by the headline metric."""
    found = [entry for entry in results["comparisons"] if entry["metric"] == metric and entry["to"] != "best"]
    return {name: format_entry(entry) for comparison in found for name, entry in comparison["differences"].items()}


def explanation_section(content: dict[str, Any], others: Mapping[str, dict[str, Any]]) -> str:
    """Describe where maps of the demo's model fall, with baselines; and those of other towers, by result file."""
    data, model = content["dataset"], content["model"]
    rows, columns = model["map_size"]
    verdicts = "\n".join(f"- {verdict(name, groups)}" for name, groups in content["methods"].items())
    return f"""### Where the model looks, synthetic

{data["num_maps"]} findings that the reports of {data["num_patients"]} unseen patients affirm, each mapped with its \
prompts; the masks of the drawn structures are known. Pointing game: share of the maps whose maximum lies in the \
structure. Inside-mask energy: share of their non-negative mass there. Randomised: the same maps by \
{content["num_randomised"]} models with random weights; rank correlation: with these. *Less its denial*: the direction \
from "No disc bulge." to "Disc bulge.". Maps of {rows} x {columns} cells ({model["vision"]}); 95 % intervals over \
patients.

{scores_table(content)}

{verdicts}

The demo with other towers, trained from random weights on the same few drawings: pointing game of the maps / of the \
same maps by randomised models.

{_other_towers(others.values())}

`{content["command"]}`, {content["date"][:10]}, `results/explanation.json`; {_sources(others)}."""


def _other_towers(contents: Iterable[dict[str, Any]]) -> str:
    rows = []
    for content in contents:
        height, width = content["model"]["map_size"]
        both = [(groups["trained"], groups["randomised model"]) for groups in content["methods"].values()]
        cells = [Markdown(" / ".join(format_entry(scores["pointing_game"]) for scores in pair)) for pair in both]
        rows.append([f"{content['model']['vision']}, {height} x {width}", *cells])
        methods = [*content["methods"]]
    return markdown_table(["tower, cells of a map", *methods], rows)


def _sources(contents: Mapping[str, dict[str, Any]]) -> str:
    return "; ".join(
        f"`{content['command']}`, {content['date'][:10]}, `results/{name}.json`" for name, content in contents.items()
    )


def in_words(metric: str) -> str:
    """Name a compared metric."""
    return WORDS.get(metric, readable(metric))


def dataset_in_words(results: Mapping[str, Any]) -> str:
    """Name the data, their size, and over how many seeds metrics are averaged."""
    data, seeds = results["dataset"], len(results["seeds"])
    name = f"{data['name']}{' (synthetic)' if data['synthetic'] else ''}, {data['split']}"
    averaged = "one seed" if seeds == 1 else f"mean over {seeds} seeds"
    return f"{name}: {data['num_rows']} images of {data['num_patients']} patients; {averaged}"


def lead_in_words(results: Mapping[str, Any], metric: str) -> str:
    """Say which system has the highest metric, and over which others its lead is more than chance."""
    best = next(entry for entry in results["comparisons"] if entry["to"] == "best" and entry["metric"] == metric)
    entry = results["systems"][best["first"]]["metrics"][best["group"]][metric]
    found = best["differences"].items()
    sure = [name for name, difference in found if difference["excludes_zero"]]
    kept = [name for name in sure if best["differences"][name]["p_holm"] < LEVEL]
    unsure = [name for name, difference in found if not difference["excludes_zero"]]
    sentences = [f"**{best['first']}** has the highest {in_words(metric)}, {format_entry(entry)}."]
    if unsure:
        sentences.append(f"Its lead over {_listed(unsure)} may be chance: the 95 % interval includes zero.")
    if len(kept) < len(sure):
        lost = [name for name in sure if name not in kept]
        sentences.append(f"After Holm's correction, so may its lead over {_listed(lost)}.")
    if kept:
        tests = best["num_comparisons"]
        holm = f", also after Holm's correction for {tests} tests" if tests > 1 else ""
        sentences.append(f"It leads {_listed(kept)}{holm}.")
    if metric == results["headline"]["metric"]:
        by_paper = {name: system["metrics"][PAPER][metric] for name, system in results["systems"].items()}
        highest = max(by_paper, key=lambda name: by_paper[name]["value"])
        sentences.append(f"With the paper's probe, {highest} scores highest, {format_entry(by_paper[highest])}.")
    return " ".join(sentences)


def verdict(name: str, groups: Mapping[str, Any]) -> str:
    """Say whether maps beat their baselines."""
    unmet = []
    for baseline in MAP_BASELINES:
        scores = [words for score, words in SCORES.items() if not (groups[f"less {baseline}"][score]["low"] or 0) > 0]
        if scores:
            unmet.append(f"the {baseline}{f' in the {scores[0]}' if len(scores) < len(SCORES) else ''}")
    title = f"{name[0].upper()}{name[1:]}"
    if not unmet:
        return f"{title} beats every baseline by both scores."
    return f"{title} is not evidence of where the model looks: it does not beat {_listed(unmet)}."


def scores_table(results: Mapping[str, Any]) -> str:
    """Tabulate each kind of map, the same by randomised models, and the maps that need no model."""
    systems = {}
    for name, groups in results["methods"].items():
        systems[Markdown(f"**{escape_markdown(name)}**")] = groups["trained"]
        systems[f"{name}, randomised model"] = groups["randomised model"]
    systems |= results["baselines"]
    rows = [
        [name, *(format_entry(entries.get(metric)) for metric in (*SCORES, "rank_correlation"))]
        for name, entries in systems.items()
    ]
    return markdown_table(["map", *SCORES.values(), "rank correlation"], rows)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
