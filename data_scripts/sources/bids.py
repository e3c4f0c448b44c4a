"""A BIDS dataset: anatomical volumes of each participant and session, with a report of each session.

    my_bids/
        participants.tsv
        phenotype/reports.tsv                           participant_id, session_id, report
        sub-01/ses-01/anat/sub-01_ses-01_T2w.nii.gz     or sub-01/anat/sub-01_T2w.nii.gz, without sessions

BIDS 1.10 has no place of its own for a radiologist's report. Tables of what is not imaging lie in `phenotype/`, so a
report is a row of `phenotype/reports.tsv` there. It may also be the entry `Report` of an image's JSON sidecar, which
goes first, or the column `report` of `participants.tsv`, which goes last.

The patient is the participant, the study a session. The suffix names the sequence (`T1w`, `T2w`, `PDw`), which a label
makes precise (`acq-STIR_T2w`, `acq-space_T2w`). Each slice becomes a row, see `--slices`.
"""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from data_scripts.imaging.dicom_sequence import sequence_from_name
from data_scripts.imaging.images import UnusableImageError
from data_scripts.imaging.volumes import Series, chosen_slices, find_series, load_slice
from data_scripts.records import NOT_STATED, Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.sources.tables import Row, read_table

ABOUT = SourceAbout(
    name="bids",
    summary="A BIDS dataset of your own: anatomical NIfTI volumes, one row a slice, and a report of each session.",
    license=NOT_STATED,
    citation="not stated",
    size="yours",
    where="your folder: sub-*/[ses-*/]anat/*.nii.gz, and reports in phenotype/reports.tsv (participant_id, session_id, "
    "report), in the images' JSON files (Report) or in participants.tsv (report)",
    has_public_ids=False,
    may_be_shared=False,
    reads_volumes=True,
)
REPORT_TABLES = ("phenotype/reports.tsv", "reports.tsv", "participants.tsv")
SEQUENCE_OF_SUFFIX = {"T1w": "T1", "inplaneT1": "T1", "T2w": "T2", "inplaneT2": "T2", "PDw": "PD", "STIR": "STIR"}
MAX_SIDECAR_BYTES = 2**20

_NOT_IMAGES = ("mask", "dseg", "probseg", "defacemask")
_NOT_SPIN_ECHO = ("FLAIR", "T2starw", "T2star", "UNIT1", "angio", "PDT2", "MESE", "MEGRE", "MP2RAGE", "VFA", "MTS")


def describe(options: ReadOptions) -> SourceInfo:
    """Describe the source; raise a ValueError if the folder has no participant."""
    _images(options)
    return SourceInfo(
        about=replace(ABOUT, license=options.license, may_be_shared=True) if options.license else ABOUT,
        label_names=(),
        report_origin="as given in the dataset",
    )


def read(options: ReadOptions) -> Iterator[Record | Exclusion]:
    """Yield each slice of each volume as a record, or the volume as an exclusion; then reports without a volume.

    Raises:
        ValueError: If the folder has no participant, or a table of reports is malformed.
    """
    raw, images = _images(options)
    tables = [read_table(raw / name, ("participant_id",)) for name in REPORT_TABLES if (raw / name).is_file()]
    reports = [_by_examination(table) for table in tables]
    examinations = {path: _examination(path, raw) for path in images if _left_out(path) is None}
    sessions: dict[str, set[str]] = defaultdict(set)
    for participant, session in examinations.values():
        sessions[participant].add(session)
    for path in images:
        source = f"{raw.name}/{path.relative_to(raw).as_posix()}"
        if (rule := _left_out(path)) is not None:
            yield Exclusion(source, rule, by_rule=True)
            continue
        try:
            participant, session = examinations[path]
            _check_name(path, participant, session)
            report = _report_of(path, participant, session, reports, len(sessions[participant]))
            for series in find_series(_inside(path, raw)):
                if isinstance(series, UnusableImageError):
                    raise series
                yield from _records(series, path, (participant, session), report, source, options.slices or "all")
        except ValueError as error:
            yield Exclusion(source, str(error))
    for row in (row for table in tables for row in table):
        yield from _left_over(row, sessions)


def _images(options: ReadOptions) -> tuple[Path, list[Path]]:
    """List the NIfTI files of all participants."""
    raw = options.raw_folder("a BIDS dataset").resolve()
    images = [
        path
        for participant in sorted(raw.glob("sub-*"))
        for path in sorted(participant.rglob("*"))
        if path.name.lower().endswith((".nii", ".nii.gz"))
    ]
    if not images:
        raise ValueError(
            f"{raw} holds no BIDS dataset: there is no sub-*/anat/*.nii.gz and no sub-*/ses-*/anat/*.nii.gz. For a "
            "table next to your images, use --source folder"
        )
    return raw, images


def _entities(path: Path) -> dict[str, str]:
    """Read the labels of a file's name, and its suffix.

    Example:
        >>> _entities(Path("sub-01_ses-2_acq-sag_T2w.nii.gz"))
        {'sub': '01', 'ses': '2', 'acq': 'sag', 'suffix': 'T2w'}
    """
    *pairs, suffix = path.name.partition(".")[0].split("_")
    labels = {key: label for key, dash, label in (pair.partition("-") for pair in pairs) if dash}
    return {**labels, "suffix": suffix}


def _left_out(path: Path) -> str | None:
    """Say why a file is no image of the source; None if it is one."""
    suffix = _entities(path)["suffix"]
    if path.parent.name != "anat":
        return f"not anatomical: in the folder {path.parent.name!r}"
    return f"not an image: {suffix}" if suffix in _NOT_IMAGES else None


def _inside(path: Path, raw: Path) -> Path:
    """Return the file; raise an UnusableImageError for a link out of the dataset, as of DataLad without the content."""
    if not path.exists():
        raise UnusableImageError("the file is a link to nothing; fetch it first (`datalad get` or `git annex get`)")
    if not path.resolve().is_relative_to(raw):
        raise UnusableImageError("the file is a link out of the folder; copy it into it")
    return path


def _examination(path: Path, raw: Path) -> tuple[str, str]:
    """Return participant and session of a file by the folders that it lies in; no session is empty."""
    participant, *others = path.relative_to(raw).parts
    session = next((name for name in others if name.startswith("ses-")), "")
    return participant.removeprefix("sub-"), session.removeprefix("ses-")


def _check_name(path: Path, participant: str, session: str) -> None:
    entities = _entities(path)
    named = entities.get("sub", ""), entities.get("ses", "")
    if named != (participant, session):
        folder = f"sub-{participant}" + f"/ses-{session}" * bool(session)
        raise ValueError(f"the file lies in {folder}, but its name says sub-{named[0]} and ses-{named[1]}; rename it")


def _key(row: Row) -> tuple[str, str]:
    """Return participant and session of a row, empty if it names none; raise a ValueError if they cannot be read."""
    if row.problem:
        raise ValueError(row.problem)
    return row.text("participant_id").removeprefix("sub-"), row.text("session_id").removeprefix("ses-")


def _left_over(row: Row, sessions: Mapping[str, Collection[str]]) -> Iterator[Exclusion]:
    """Yield a row of reports that no image has, or that cannot be read; `sessions` are those of each participant."""
    try:
        participant, session = _key(row)
        of_participant = sessions.get(participant, ())
        if of_participant and (not session or session in of_participant):
            return  # what is wrong with the report is the reason why its images are left out
        if row.text("report"):
            lacking = "session" if of_participant else "participant"
            yield Exclusion(row.where, f"report of a {lacking} without an anatomical image", by_rule=True)
    except ValueError as error:
        yield Exclusion(row.where, str(error))


def _by_examination(table: list[Row]) -> dict[tuple[str, str], Row]:
    """Find rows by participant and session; one that is repeated gets a problem."""
    rows: dict[tuple[str, str], Row] = {}
    for row in table:
        try:
            key = _key(row)
        except ValueError:
            continue  # `_left_over` lists it
        repeats = f"{row.where} repeats its participant and session; keep one report of each"
        rows[key] = replace(row, problem=repeats) if key in rows else row
    return rows


def _report_of(
    path: Path, participant: str, session: str, reports: Sequence[Mapping[tuple[str, str], Row]], num_sessions: int
) -> str:
    """Find the report of an image; raise a ValueError if there is none, or it may be one of another session."""
    if report := _report_in_sidecar(path):
        return report
    for rows in reports:
        row = rows.get((participant, session)) or rows.get((participant, ""))
        if row is None or not (report := row.text("report")):
            continue
        if row.problem:
            raise ValueError(row.problem)
        if num_sessions > 1 and not row.text("session_id"):
            raise ValueError(
                f"{row.where} names no session_id, but sub-{participant} has {num_sessions} sessions; say which one "
                "the report is of"
            )
        return report
    of_session = f" in ses-{session}" if session else ""
    raise ValueError(
        f"no report of sub-{participant}{of_session}; write it into {REPORT_TABLES[0]} (participant_id, session_id, "
        "report)"
    )


def _report_in_sidecar(path: Path) -> str:
    sidecar = path.with_name(path.name.partition(".")[0] + ".json")
    if not sidecar.is_file() or sidecar.stat().st_size > MAX_SIDECAR_BYTES:
        return ""
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{sidecar.name} cannot be read: {error}") from error
    report = content.get("Report") if isinstance(content, dict) else None
    return report.strip() if isinstance(report, str) else ""


def _records(
    series: Series, path: Path, examination: tuple[str, str], report: str, source: str, slices: str
) -> Iterator[Record]:
    participant, session = f"sub-{examination[0]}", examination[1]
    for index in chosen_slices(series.num_slices, slices):
        yield Record(
            load_image=partial(load_slice, series, index),
            report=report,
            patient_id=participant,
            study_id=f"{participant}_ses-{session}" if session else participant,
            series_id=source,
            slice_index=index,
            plane=series.plane,
            sequence=_sequence(_entities(path)),
            pixel_spacing_mm=series.pixel_spacing_mm,
            slice_spacing_mm=series.slice_spacing_mm,
            source=f"{source} slice {index}",
        )


def _sequence(entities: Mapping[str, str]) -> str:
    """Name the sequence of an image.

    Example:
        >>> names = ("sub-1_T2w.nii", "sub-1_acq-sagSTIR_T2w.nii", "sub-1_acq-space_T2w.nii", "sub-1_FLAIR.nii")
        >>> [_sequence(_entities(Path(name))) for name in names]
        ['T2', 'STIR', 'T2_SPACE', 'other']
    """
    suffix = entities["suffix"]
    named = SEQUENCE_OF_SUFFIX.get(suffix)
    if named is None:
        return "other" if suffix in _NOT_SPIN_ECHO else sequence_from_name(suffix) or "unknown"
    for label in entities.get("acq", ""), entities.get("desc", ""):
        # `acq-sagSTIR` is one label, for BIDS allows no blanks in it.
        if re.search("stir|tirm", label, re.IGNORECASE):
            return "STIR"
        if named == "T2" and re.search("space|spc|cube|vista", label, re.IGNORECASE):
            return "T2_SPACE"
    return named
