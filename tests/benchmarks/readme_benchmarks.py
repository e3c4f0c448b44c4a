"""Write the sections of the results page on data and speed, as Markdown."""

import statistics
from typing import Any

from data_scripts.system.markdown import code_span, markdown_table
from train.reporting.tables import format_entry, readable

MEGABYTE = 1e6
FEW_SOURCES = 10  # patients or files

ATTACKS = {
    "kills": "commands killed, then rerun",
    "damaged": "damaged files, read",
    "together": "commands started three times at once",
    "full disk": "commands on a full disk",
}

LABEL_SETS = {
    "development": "development: known when the rules were written",
    "held_out": "held out, after its errors were fixed",
    "second": "second: read for the rules, labelled later",
}


def reading_section(first: dict[str, Any], now: dict[str, Any]) -> str:
    """Describe how well reports are read: at first, and after errors were fixed."""
    rows = []
    for name, title in LABEL_SETS.items():
        if name == "held_out":
            rows.append(_reading_row("held out, first reading: never read before", first["scores"][name]))
        rows.append(_reading_row(title, now["scores"][name]))
    header = ["labels", "notes", "findings at a level, micro-F1", "negation", "side"]
    notes, patients = now["notes"], now["notes"]["patients"]
    return f"""### Reports, read

Radiologists' notes of the Mendeley lumbar set: {notes["all"]} = {notes["with_text"]} with text and \
{notes["all"] - notes["with_text"]} empty ones. Findings (bulge, protrusion, extrusion, sequestration, herniation, \
compression of sac and roots, stenosis, foraminal narrowing) against labels made by reading. Errors in the first \
reading of the held-out notes were then fixed, so their second row is not a test.

{markdown_table(header, rows)}

{patients["LBP"]} patients are LBP, {patients["No Finding"]} No Finding (the paper: 2,868 and 492 images, about six \
per patient). All notes in {now["seconds"]:.1f} s.

`python -m tests.benchmarks.report_reading --notes "Radiologists Report.xlsx"`, {now["date"]}, \
`results/report_reading.json`."""


def _reading_row(title: str, scores: dict[str, Any]) -> list[str]:
    found, invented, missed = scores["found"], scores["invented"], scores["missed"]
    return [
        title,
        str(scores["num_notes"]),
        f"{2 * found / (2 * found + invented + missed):.3f} ({found} found, {invented} invented, {missed} missed)",
        f"{scores['right_negations']} of {scores['negations']}",
        f"{scores['right_sides']} of {scores['sides']}",
    ]


def counterfactual_section(content: dict[str, Any]) -> str:
    """Describe how many reports have texts that differ from them in one fact, and how fast these are made."""
    changes = list(next(iter(content["sets"].values()))["share_with"])
    rows = [
        [
            *(ONE_FACT_CHANGED[name], str(found["reports"])),
            *(f"{found['share_with'][change]:.2f}" for change in changes),
            *(f"{found['share_with_any']:.2f}", f"{found['texts_per_cpu_second']:.0f}"),
        ]
        for name, found in content["sets"].items()
    ]
    return f"""### Reports, with one fact changed

Share of distinct reports with at least one text that differs from them in exactly one fact, by what is changed, and \
texts a second of CPU time. Reading the text again proves the change. Levels change rarely, since most reports state \
several facts of a level; captions of SPIDER name no side.

{markdown_table(["reports", "number", *changes, "any", "texts/s"], rows)}

`python -m tests.benchmarks.counterfactual_texts --datasets data/synthetic data/spider_discs --notes "Radiologists \
Report.xlsx"`, {content["date"]}, `results/counterfactuals.json`."""


ONE_FACT_CHANGED = {
    "synthetic": "composed, of drawn slices",
    "spider_discs": "composed, of SPIDER's grades",
    "notes": "radiologists' notes of the Mendeley set",
}


def leak_section(content: dict[str, Any]) -> str:
    """Describe what a split by record adds to the scores."""
    rows = [
        [f"{system}, {readable(metric)}"]
        + [format_entry(results[split][metric]) for split in ("record", "patient", "difference")]
        for system, results in content["cross_validated"].items()
        for metric in results["record"]
    ]
    data = content["dataset"]
    return f"""### What a leak is worth

The same probes on {data["num_rows"]} SPIDER discs of {data["num_patients"]} patients, {content["num_folds"]} folds by \
record and by patient, {content["arguments"]["cuts"]} times; 95 % intervals over patients. Pixel features are fixed; \
LumbarCLIP was pretrained from scratch in every fold of {content["arguments"]["pretrained_cuts"]} of the cuts, under \
either split.

{markdown_table(["system", "by record", "by patient", "difference"], rows)}

`python tests/benchmarks/leak_gap.py --pretrained_cuts {content["arguments"]["pretrained_cuts"]}`, \
{content["date"]}, `results/leak_gap.json`."""


def foreign_section(contents: dict[str, dict[str, Any]]) -> str:
    """Describe which foreign images get no answer, by checkpoint."""
    kinds = list(dict.fromkeys(kind for content in contents.values() for kind in content["held_back"]))
    alarms = "images like those of the training, of test patients"
    entries = {name: {**content["held_back"], alarms: content["false_alarms"]} for name, content in contents.items()}
    rows = [[kind, *(format_entry(of_kind.get(kind)) for of_kind in entries.values())] for kind in (*kinds, alarms)]
    checks = "; ".join(
        f"{name}: {check['num_images']} images of {check['num_patients']} patients"
        for name, check in ((name, content["scope"]["check"]) for name, content in contents.items())
    )
    of_few = {
        kind: f"{kind}: {of_kind['num_sources']}"
        for content in contents.values()
        for kind, of_kind in content["held_back"].items()
        if of_kind["num_sources"] < FEW_SOURCES
    }
    last = next(reversed(contents.values()))
    return f"""### Images that a checkpoint was not trained for

Share held back by the features alone, without a header. The threshold aims at \
{last["scope"]["check"]["false_alarm_rate"]:g} false alarms and was set on validation images ({checks}). The way to \
measure the distance was chosen on the first half of each kind; this is the second, which was looked at once before, \
when the distance was not yet between the roots of the features. Intervals count patients or files, of which some \
kinds have few ({"; ".join(of_few.values())}).

{markdown_table(["images", *contents], rows)}

{code_span(last["command"])} and the same for the demo, {last["date"]}, `results/foreign_images_*.json`."""


def letters_section(content: dict[str, Any]) -> str:
    """Describe how much text burnt into images is found."""
    found = [[kind, f"{number} of {content['drawings']}"] for kind, number in content["found"].items()]
    suspected = ", ".join(
        f"{len(result['suspected'])} of {result['images']} ({name})" for name, result in content["suspected"].items()
    )
    return f"""### Text burnt into images

Names, ids and dates drawn on real slices. The patients, the texts and, except Pillow's and STIX, the fonts are not \
those that the rule was fitted to. Letters are 7 to 16 pixels high unless stated otherwise.

{markdown_table(["text", "found"], found)}

Suspected although they have no text: {suspected}. {content["milliseconds"]:.0f} ms on one CPU for 512 x 512 pixels.

`python -m tests.benchmarks.burnt_in_text --data ../shared/data`, {content["date"]}, `results/burnt_in_text.json`."""


def balance_section(content: dict[str, Any]) -> str:
    """Describe what the ways to balance do to batches."""
    rows = [
        [code_span(balance)]
        + [f"{100 * values[name]:.1f} %" for name in ("duplicate_text_rate", "duplicate_patient_rate")]
        + [f"{100 * values['share_of_rarest_class']:.1f} %", f"{values['target_entropy']:.2f}"]
        for balance, values in content["results"]["mendeley_notes"]["128"].items()
    ]
    header = [code_span("--balance"), "report comes twice", "patient comes twice", "No Finding", "target entropy, nats"]
    return f"""### Batches

Batches of 128 of the paper's rows, each of {content["num_rows"]["mendeley_notes"] // 6} notes six times: share of \
pairs. Pairs of one report are false negatives of each other; repeating the rare class makes more of them. As in the \
paper: five texts of each pair in an epoch, and the rare class raised to the 16 % of its Table 1.

{markdown_table(header, rows)}

`python tests/benchmarks/batch_balance.py`, {content["date"]}, `results/batch_balance.json`."""


def build_section(content: dict[str, Any]) -> str:
    """Describe what the benchmark of the build measured."""
    arguments, build, loop = content["arguments"], content["seconds"]["build"], content["seconds"]["plain loop"]
    return f"""### The build

{arguments["slices"]:,} generated DICOM slices of {arguments["size"]} x {arguments["size"]}, 16 bit, half of them RLE: \
the build with `--num_proc {arguments["num_proc"]}` takes {min(build):.1f} s, a plain pydicom loop in one process \
(percentiles, PNG, Parquet) {min(loop):.1f} s, {content["ratio"]:.2f} times as long. The build also checks, splits, \
looks for names and letters, and writes the card.

`python -m tests.benchmarks.bench_build`, {content["date"]}, `results/build.json`."""


def robustness_section(content: dict[str, Any]) -> str:
    """Describe which attacks the commands and readers withstand."""
    rows, counts = [], content["counts"]
    for area, title in ATTACKS.items():
        of_area = {
            target.removeprefix(f"{area}/"): of for target, of in counts.items() if target.startswith(f"{area}/")
        }
        tried, held = (sum(of.get(name, 0) for of in of_area.values()) for name in ("tried", "held"))
        failed = [
            f"{target} ({of['tried'] - of['held']})" for target, of in of_area.items() if of["held"] < of["tried"]
        ]
        rows.append([title, f"{tried:,}", f"{held:,}", ", ".join(failed) or "-"])
    kills = sum(of.get("kills", 0) for of in counts.values())
    minutes = f"{content['seconds'] / 60:.0f} minutes on {content['num_processors']} processors"
    return f"""### Attacks

Small inputs, made by the script. After a kill at a random moment ({kills} kills), a command holds if nothing is \
half-written under its final name and a rerun ends with the numbers of an undisturbed run. A damaged file must give a \
result or an error that names it. Of three processes on one folder, one must work and the others say why they do not; \
in separate folders, all must work. On a full disk, a command must end in a one-line error, and finish once there is \
room. Seed {content["arguments"]["seed"]}, {minutes}.

{markdown_table(["attack", "tried", "held", "did not hold"], rows)}

`{content["command"]}`, {content["date"]}, `results/robustness.json`, which says how to repeat each failure."""


def losses_section(content: dict[str, Any]) -> str:
    """Describe what the benchmark of the losses measured."""
    results, rows = content["results"], []
    for pairs in content["arguments"]["pairs"]:
        flat, dense, clip = (results[f"{system} {pairs}"] for system in ("flat", "dense", "open_clip"))
        cells = [
            f"{r['seconds']:.2f} s, {r['mib']:,.0f} MiB" if r["seconds"] else "does not fit"
            for r in (flat, dense, clip)
        ]
        ratio = f"{flat['seconds'] / clip['seconds']:.2f}" if clip["seconds"] else "-"
        rows.append([f"{pairs:,}", *cells, ratio])
    header = ["pairs", "soft loss, flat", "soft loss, dense", "open_clip ClipLoss", "time, flat / open_clip"]
    return (
        "### The loss\n\nForward and backward, float32, width 256, one CPU thread, 12 GiB at most; peak memory above "
        f"the inputs.\n\n{markdown_table(header, rows)}\n\n"
        f"`python tests/benchmarks/bench_losses.py`, {content['date']}, `results/losses.json`."
    )


def training_section(content: dict[str, Any]) -> str:
    """Describe what the benchmark of the trainer measured."""
    rows = [[name, _median_and_range(of_turns)] for name, of_turns in content["ratios_of_turns"].items()]
    return (
        "### The trainer\n\nRatios of pairs per second, same towers, same machine: median of the ratio within a turn, "
        "with the smallest and the largest.\n\n"
        f"{markdown_table(['ratio', 'value'], rows)}\n\n"
        f"`python tests/benchmarks/bench_training.py`, {content['date']}, `results/training.json`."
    )


def inference_section(content: dict[str, Any]) -> str:
    """Describe what the benchmark of inference measured."""
    towers = content["towers"]
    header = ["ratio of images per second", *(f"{name}, {tower['image_size']} px" for name, tower in towers.items())]
    ratios = next(iter(towers.values()))["ratios"]
    rows = [[name, *(_median_and_range(tower["ratios"][name]) for tower in towers.values())] for name in ratios]
    sizes = [f"{name} {_megabytes(tower, '')} ({_megabytes(tower, '_int8')})" for name, tower in towers.items()]
    metric = next(iter(content["int8_probe"]["difference"]))
    probe = {name: format_entry(entries[metric]) for name, entries in content["int8_probe"].items()}
    return (
        "### Inference\n\n`encode` is the bulk encoder from PNG files to Parquet, decoding included; `pipeline` is "
        f'`pipeline("image-feature-extraction")` on the same files; {content["num_threads"]} threads. Every system in '
        f"turn, {content['arguments']['turns']} turns: median of the ratio within a turn, with the smallest and the "
        "largest.\n\n"
        f"{markdown_table(header, rows)}\n\n"
        f"Vision tower and head as ONNX, and in int8: {', '.join(sizes)}. Linear probe on the test split, "
        f"{readable(metric)}: {probe['float32']} in float32, {probe['int8']} in int8, difference "
        f"{probe['difference']}.\n\n"
        f"`{content['command'].partition(' --out')[0]}`, {content['date']}, `results/inference.json`."
    )


def _median_and_range(turns: list[float]) -> str:
    return f"{statistics.median(turns):.2f} ({min(turns):.2f}-{max(turns):.2f})"


def _megabytes(tower: dict[str, Any], suffix: str) -> str:
    return f"{tower['file_bytes'][f'vision_model{suffix}.onnx'] / MEGABYTE:.1f} MB"


def common_tests_section(content: dict[str, Any]) -> str:
    """Describe what transformers' own tests say of our models."""
    names = {"TimmResNet": "timm ResNet", "TimmViT": "timm ViT", "TimmSwin": "timm Swin", "ViT": "ViT", "Swin": "Swin"}
    rows, counts = [], content["counts"]
    for tower, name in names.items():
        for model, title in (("Model", "LumbarCLIP"), ("Classifier", "classifier")):
            rows.append([f"{title}, {name}", *counts[f"{tower}{model}"].values()])
    others = {"ImageProcessor": "image processor", "Processor": "processor", "Config": "configuration"}
    rows += [[title, *counts[name].values()] for name, title in others.items()]
    return f"""### transformers' own tests

The common tests of transformers {content["packages"]["transformers"]}, on small models from random weights with a \
BERT. Most skips need a GPU, Flash Attention, DeepSpeed, or are of other modalities; the JSON file has the reason of \
each. The source distribution has no tests of export, generation and pipelines.

{markdown_table(["tests of", "passed", "failed", "skipped"], rows)}

`{content["command"]}`, {content["date"]}, `results/common_tests.json`."""
