"""The text of the dataset card: content, origin, splits and permitted use of the set."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_scripts.lumbar_builder import card_title
from data_scripts.privacy.protection import LANGUAGE
from data_scripts.records import NOT_STATED, SourceInfo
from data_scripts.system.markdown import Markdown, code_block, escape_markdown, fill_markdown, markdown_table
from data_scripts.writing.build_report import PATHS, rule_summary

CARD = """\
# {title}

{summary}
{sharing}{leak}
**Research use only.** Not for diagnosis, and not for any decision about a patient.

## Source

- Reports: {report_origin}.
- Licence of the source: {license}.
- Cite: {citation}

## Splits

{split_text}

{split_table}

## Labels

{label_text}

{label_table}

## Columns

- `image`: the slice, 8-bit grey PNG. {image_text}
- `report`: the text, separators and blanks corrected, spelling kept. `rephrasings`: other wordings of the same facts.
- `labels`: the classes present; null where a row is not labelled. `grade`: {grade_text}
- `patient_id`, `study_id`, `series_id`: {id_text} `slice_index`: place of the slice in its series, from 0, from the
  patient's right to the left, from foot to head, or from front to back. Both are null for a single image.
- `plane`, `sequence`, `level`: `unknown` if the source does not say.
- `pixel_spacing_mm`: of the stored image. `slice_spacing_mm`: from one slice of the series to the next.
  `disc_height_mm`: of the disc at `level`, as the source measured it. All are null if unknown.
- `mask`: {mask_text} `mask_classes`: those that a row's mask marks; where it is 0, others may be. `mask_origin`:
  `source`, or `pseudo` for a mask that was computed from the image and its report, which is no truth.
- `source`: dataset and file of the row.

## Privacy

{privacy_text}

## How it was made

{num_read} rows were read, {num_written} written, {num_excluded} left out{by_rule}; `build_report.json` lists each
with its reason. Made on {date} with

{command}
"""

SHARING = Markdown("""
> **Not to be shared.** The licence of the source forbids sharing anything made from it. Get the source, and build
> this set yourself.
""")

NOBODY_SAID = Markdown("""
> **Not to be shared.** The data have no stated licence. If you may share them, build this set with `--license`.
""")

IMAGE = """\
More than 8 bits are windowed: DICOM by the window in its header if that shows the slice ({replaced} replaced), all
  else between the 0.5 and 99.5 percentiles of the slice, or of the whole volume that it is a slice of. Turned to the
  radiological convention (axial and coronal: patient's right at the left; sagittal: front at the left), but for
  {unstated} images whose files state none."""

LEAK = """
> **Leak.** These splits are by record, as in the LumbarCLIP paper: {num_shared} of {num_patients} patients have rows
> in more than one split. A model that remembers patients gets inflated test scores. Use them only to compare with
> the paper.
"""


PRIVACY = """\
Rules replaced dates, names, numbers and addresses in the texts with placeholders such as `[DATE]`: {counts}.
Images that may contain burnt-in text: {letters}. Texts that seem not to be English: {other_language}; the rules may
miss names in them. The check of the written rows {verdict}. Rules miss things: read before you share. Do not share
`build_report.json`, nor the names of its rows next to this folder."""

PSEUDO = " **{num_pseudo_masks} of these are pseudo-masks: no expert drew them.**"

ID_TEXTS = {
    "pseudonyms": Markdown("keyed pseudonyms, as is the file name in `source`."),
    "as published": Markdown("the pseudonyms that the dataset was published with; dates in file names are replaced."),
    "kept": Markdown("as in the source; they are **not** pseudonymised, nor are file names."),
}


def without_paths(argv: Sequence[str], path_options: Sequence[str] = PATHS) -> list[str]:
    """Replace the paths in a command's arguments with placeholders: they help no reader and may name someone.

    Example:
        >>> without_paths(["--raw", "studies/SMITH_JOHN", "--num_proc", "4", "--pseudonym_key=keys/ours"])
        ['--raw', 'RAW', '--num_proc', '4', '--pseudonym_key=PSEUDONYM_KEY']
    """
    placeholders = {f"--{name}": name.upper() for name in path_options}
    shown: list[str] = []
    for word in argv:
        option, equals, _ = word.partition("=")
        if shown and shown[-1] in placeholders:
            shown.append(placeholders[shown[-1]])
        else:
            shown.append(f"{option}={placeholders[option]}" if equals and option in placeholders else word)
    return shown


def card_text(info: SourceInfo, report: Mapping[str, Any]) -> str:
    """Write the card from the source's description and the build report."""
    splits = report["splits"]
    labels = [[name, *(split["labels"].get(name, 0) for split in splits.values())] for name in info.label_names]
    leak = report["leak"]
    values = {
        "image_text": fill_markdown(
            IMAGE, {"replaced": len(report["windows_replaced"]), "unstated": len(report["orientation_not_stated"])}
        ),
        "title": card_title(info.about),
        "summary": info.summary or info.about.summary,
        "sharing": "" if info.about.may_be_shared else NOBODY_SAID if info.about.license == NOT_STATED else SHARING,
        "leak": fill_markdown(LEAK, leak) if leak else "",
        "report_origin": info.report_origin,
        "license": info.about.license.removeprefix("other: "),
        "citation": info.about.citation,
        "split_text": report["split_rule"],
        "split_table": markdown_table(
            ["split", "rows", "patients"], [[name, split["rows"], split["patients"]] for name, split in splits.items()]
        ),
        "label_text": _label_text(report["labels"]),
        "label_table": markdown_table(["class", *splits], labels) if labels else "The source has no labels.",
        "grade_text": f"{', '.join(info.grade_names)}, lowest first." if info.grade_names else "the source has none.",
        "id_text": ID_TEXTS[report["deidentification"]["ids"]],
        "privacy_text": _privacy_text(report),
        "mask_text": _mask_text(info, report["num_masks"], report["pseudo_masks"]["written"]),
        "num_read": report["rows_read"],
        "num_written": report["rows_written"],
        "num_excluded": len(report["exclusions"]),
        "by_rule": Markdown(f" ({escape_markdown(summary)})")
        if (summary := rule_summary(report["exclusions"]))
        else "",
        "date": report["date"],
        "command": code_block(report["command"], "sh"),
    }
    return fill_markdown(CARD, values)


def _label_text(account: Mapping[str, Any]) -> str:
    is_pair = account["classes"] == "paper"
    have = "A row has one of the two classes of the LumbarCLIP paper" if is_pair else "A row may have several classes"
    origin = " Rules read them from the reports." if account["from_reports"] else ""
    without = f" Not labelled: {account['rows_without']} rows." if account["rows_without"] else ""
    return f"Number of rows with each class, by split. {have}, or none.{origin}{without}"


def _privacy_text(report: Mapping[str, Any]) -> Markdown:
    found = report["deidentification"]
    counts = ", ".join(f"{count} {kind}" for kind, count in found["replaced_in_texts"].items()) or "none"
    other_language = found["left_in_texts"].get(LANGUAGE, 0)
    verdict = Markdown("passed" if found["passed"] else "**did not pass**: do not share the set")
    return fill_markdown(
        PRIVACY,
        {
            "counts": counts,
            "other_language": other_language,
            "letters": len(found["burnt_in_text"]),
            "verdict": verdict,
        },
    )


def _mask_text(info: SourceInfo, num_masks: int, num_pseudo_masks: int) -> str | Markdown:
    if num_masks == 0:
        return "the source has none."
    if not info.mask_names:
        return f"8-bit class indices, {num_masks} rows; the source does not name the classes."
    names = ", ".join(f"{index} {name}" for index, name in enumerate(info.mask_names))
    return fill_markdown(
        "8-bit class indices, {num_masks} rows: {names}." + PSEUDO * bool(num_pseudo_masks),
        {"num_masks": num_masks, "names": names, "num_pseudo_masks": num_pseudo_masks},
    )
