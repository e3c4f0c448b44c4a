import json
from dataclasses import replace

import datasets
import pytest
from PIL import Image, ImageDraw

from data_scripts.build import main
from data_scripts.privacy.protection import pseudonymise, scrub
from data_scripts.privacy.pseudonyms import Pseudonyms
from data_scripts.records import ReadOptions, Record
from data_scripts.sources import SOURCES, list_sources
from data_scripts.sources.rsna2024 import source as rsna2024
from data_scripts.system.command_line import run
from data_scripts.writing.build_report import summary_lines


def rows_of(out):
    loaded = datasets.load_dataset(str(out))
    return {split: list(loaded[split]) for split in loaded}


def own_names(out, pseudonyms):
    """Look up rows of a report in the private list next to the dataset."""
    listed = json.loads(out.with_name(f"{out.name}.rows.json").read_text())
    return [listed["rows"][pseudonym] for pseudonym in pseudonyms]


NAMED = "Patient name: Ahmad Salem. Seen 12 Mar 2016: disc bulge at L4-5, 4.5 mm"
SCRUBBED = "Patient name: [NAME]. Seen [DATE]: disc bulge at L4-5, 4.5 mm"


def named_rows(num_patients=12):
    return [
        {
            "file_name": f"images/Salem_{patient}.png",
            "report": NAMED,
            "rephrasings": "Bulge on 12 Mar 2016.",
            "patient_id": f"MRN{patient}",
            "series_id": f"MRN{patient}-t2",
            "labels": "LBP",
        }
        for patient in range(num_patients)
    ]


def test_a_name_of_the_report_is_removed_from_its_rephrasings(study, built, tmp_path):
    rows = [row | {"rephrasings": "Bulge in Salem, Ahmad.|Small bulge"} for row in named_rows()]
    built(study(rows), keep_ids=False)
    found = {tuple(row["rephrasings"]) for rows in rows_of(tmp_path / "out").values() for row in rows}
    assert found == {("Bulge in [NAME], [NAME].", "Small bulge")}


def test_nothing_that_names_a_person_is_written(study, built, tmp_path):
    report = built(study(named_rows()), keep_ids=False)
    for row in (row for rows in rows_of(tmp_path / "out").values() for row in rows):
        assert row["report"] == SCRUBBED and row["rephrasings"] == ["Bulge on [DATE]."]
        assert row["patient_id"].startswith("patient-") and row["study_id"].startswith("study-")
        assert row["series_id"].startswith("series-")
        assert row["source"].startswith("folder/file-")
    assert report["deidentification"] == {
        "passed": True,
        "ids": "pseudonyms",
        "replaced_in_texts": {"DATE": 24, "NAME": 12},
        "left_in_texts": {},
        "rows_left": [],
        "dates_in_names": [],
        "burnt_in_text": [],
    }
    card = (tmp_path / "out/README.md").read_text()
    for words in ("24 DATE, 12 NAME", "keyed pseudonyms", "rows passed"):
        assert words in card, words
    for path in (tmp_path / "out").rglob("*.parquet"):
        assert b"Salem" not in path.read_bytes() and b"MRN" not in path.read_bytes()


def test_dates_in_the_ids_of_a_public_set_are_replaced():
    record = Record(
        load_image=lambda: Image.new("L", (1, 1)),
        report="Bulge.",
        patient_id="1",
        study_id="study_20160309",
        series_id="20160309_t2",
        source="a/20160309.png",
    )
    (written,) = pseudonymise({"train": [record]}, rsna2024.ABOUT, Pseudonyms(bytes(32)))["train"]
    assert "2016" not in "".join((written.study_id, written.series_id, written.source))
    (written,) = pseudonymise({"train": [replace(record, series_id=None)]}, rsna2024.ABOUT, Pseudonyms(bytes(32)))[
        "train"
    ]
    assert written.series_id is None


ADDRESSES = (
    "contact john.smith@hospital.org for images", "<jane.doe@mayo.edu>", "see www.hospital.org/patient/8842",
    "smith@clinic.co.uk", "images://hospital.org/8842 .No bulge", "Reported.\nYours sincerely,\nJohn Smith",
    "mail john.smith@\nhospital.org", "john . smith @ hospital . org", "j.smith [at] hospital [dot] org",
    "smith＠hospital.org", "jo\u00adhn.smith&#64;hospital.org", "Hauptstr.12,79106 Freiburg//smith@hospital.org",
)  # fmt: skip


def test_what_normalising_would_split_or_move_is_not_written(study, built, tmp_path):
    """Looked up in the shards, since the finder would not know the pieces of a split address."""
    rows = named_rows()
    for row, text in zip(rows, ADDRESSES, strict=True):
        row["report"], row["rephrasings"] = f"Disc bulge.Mild ,at L4-5. {text}", f"Bulge. {text}"
    report = built(study(rows), keep_ids=False)
    texts = [text for rows in rows_of(tmp_path / "out").values() for row in rows for text in _texts_of(row)]
    assert len(texts) == 24 and report["deidentification"]["passed"] and report["facts_changed"]["count"] == 0
    for text in texts:
        assert not [part for part in ("smith", "jane", "hosp", "8842", "79106", "@", "＠") if part in text.lower()], (
            text
        )
        assert text.startswith(("Disc bulge. Mild, at L4-5. ", "Bulge. "))


def _texts_of(row):
    return row["report"], *row["rephrasings"]


def test_addresses_met_before_are_not_written(study, built, tmp_path, shared_data):
    cases = json.loads((shared_data.parent / "faults/security/cases.json").read_text(encoding="utf-8"))
    (case,) = [case for case in cases if case["id"] == "scrub-after-normalise"]
    rows = named_rows(len(case["inputs"]) + 5)
    for row, fed in zip(rows, case["inputs"], strict=False):
        row["report"] = fed["report"]
    report = built(study(rows), keep_ids=False)
    texts = [row["report"] for rows in rows_of(tmp_path / "out").values() for row in rows]
    assert report["deidentification"]["passed"] and len(texts) == len(rows)
    for text in texts:
        assert not [part for part in ("@", "salem", "smith", "doe", "klinik", "spital", "8842") if part in text.lower()]


def test_a_class_that_names_a_person_does_not_pass(study, built):
    rows = named_rows()
    for number, row in enumerate(rows):
        row["labels"] = "seen by Dr. Salem" if number % 2 else "LBP"
    found = built(study(rows), keep_ids=False)["deidentification"]
    assert found["left_in_texts"] == {"NAME": 1} and not found["passed"]


def test_a_text_in_another_language_is_kept_but_does_not_pass(study, built, tmp_path):
    rows = named_rows()
    rows[3]["report"] = "Frau Erika Muster, geboren am 3. März 1955. Bandscheibenvorfall L5/S1 links."
    rows[5]["rephrasings"] = "Bulge at L4/5.|腰椎间盘突出"
    report = built(study(rows), keep_ids=False)
    found = report["deidentification"]
    assert found["left_in_texts"] == {"LANGUAGE": 2} and not found["passed"] and report["rows_written"] == 12
    assert [row["kinds"] for row in found["rows_left"]] == [["LANGUAGE"]] * 2
    names = own_names(tmp_path / "out", [row["source"] for row in found["rows_left"]])
    assert sorted(names) == [f"study/images/Salem_{patient}.png" for patient in (3, 5)]
    texts = [text for rows in rows_of(tmp_path / "out").values() for row in rows for text in _texts_of(row)]
    assert "Frau [NAME], geboren am [DATE]. Bandscheibenvorfall L5/S1 links." in texts and "腰椎间盘突出" in texts
    card = (tmp_path / "out/README.md").read_text()
    assert "Texts that seem not to be English: 2;" in card and "**did not pass**" in card
    (line,) = [line for line in summary_lines(report, "out") if "English" in line]
    assert line.startswith("warning: texts that seem not to be English: 2; ")


def test_only_the_owner_reads_the_list_of_old_names(study, built, tmp_path):
    built(study(named_rows()), keep_ids=False)
    assert (tmp_path / "out/build_report.json").stat().st_mode & 0o777 == 0o600


def test_splits_follow_the_given_ids_and_pseudonyms_the_key(study, built, tmp_path):
    raw, key = study(named_rows(20)), tmp_path / "study" / "key"
    for name, arguments in (
        ("kept", {"keep_ids": True}),
        ("keyed", {"pseudonym_key": key}),
        ("again", {"pseudonym_key": key}),
        ("random", {}),
    ):
        built(raw, out=tmp_path / name, **{"keep_ids": False, **arguments})
    ids = {
        name: {split: [row["patient_id"] for row in rows] for split, rows in rows_of(tmp_path / name).items()}
        for name in ("kept", "keyed", "again", "random")
    }
    pseudonyms = Pseudonyms.from_file(key)
    assert ids["keyed"] == ids["again"] != ids["random"]
    assert ids["keyed"] == {
        split: [pseudonyms.of(patient, prefix="patient") for patient in kept] for split, kept in ids["kept"].items()
    }
    assert not list(tmp_path.rglob("pseudonym_key"))  # a drawn key is thrown away


def test_a_finding_taken_for_a_name_is_counted_and_named(study, built, tmp_path):
    """A misspelt finding after a cue goes, since it could be a name; what the report states is another thing then."""
    rows = named_rows()
    for patient in range(12):
        rows[patient]["report"] = f"Radiologist: {'Buldge' if patient % 2 else 'Salem, bulge'} at L4/5"
    rows[2]["rephrasings"] = "Bulge.|Doctor: Buldge at L4/5"
    report = built(study(rows), keep_ids=False)
    texts = {row["report"] for rows in rows_of(tmp_path / "out").values() for row in rows}
    assert texts == {"Radiologist: [NAME] at L4/5", "Radiologist: [NAME], bulge at L4/5"}
    changed = [f"study/images/Salem_{patient}.png" for patient in (1, 2, 3, 5, 7, 9, 11)]
    assert report["facts_changed"]["count"] == 7
    assert sorted(own_names(tmp_path / "out", report["facts_changed"]["first"])) == sorted(changed)
    (line,) = [line for line in summary_lines(report, "out") if "warning" in line]
    assert line == (
        "warning: rows whose findings changed when names were replaced: 7; build_report.json names the first"
    )
    report = built(study(named_rows()), out=tmp_path / "other")
    assert report["facts_changed"] == {"count": 0, "first": []}
    assert not any("warning" in line for line in summary_lines(report, "out"))


def test_scrubbing_changes_no_fact_of_made_reports():
    items = list(SOURCES["synthetic"].read(ReadOptions(raw=None, num_patients=6)))
    reports = {text for item in items if isinstance(item, Record) for text in (item.report, *item.rephrasings)}
    assert len(reports) > 25
    for report in reports:
        assert not scrub(report).replaced
        scrubbed = scrub(f"Referred by Dr. Ahmad Salem. {report} Compared with 12/03/2016.")
        assert scrubbed.replaced == ("NAME", "DATE") and not scrubbed.facts_changed, report


def test_kept_ids_do_not_pass(study, built, tmp_path):
    report = built(study(named_rows()), keep_ids=True)
    assert report["deidentification"]["passed"] is False and report["deidentification"]["ids"] == "kept"
    card = (tmp_path / "out/README.md").read_text()
    assert "**not** pseudonymised" in card and "**did not pass**" in card


def test_a_row_left_out_goes_by_its_pseudonym_and_a_private_list_gives_its_name(study, built, tmp_path):
    raw = study(named_rows(40))
    (raw / "images/Salem_3.png").write_bytes(b"broken")
    (exclusion,) = built(raw, keep_ids=False)["exclusions"]
    assert own_names(tmp_path / "out", [exclusion["source"]]) == ["study/images/Salem_3.png"]
    assert (tmp_path / "out.rows.json").stat().st_mode & 0o777 == 0o600
    (exclusion,) = built(raw, keep_ids=True, overwrite=True)["exclusions"]
    assert exclusion["source"] == "study/images/Salem_3.png" and not (tmp_path / "out.rows.json").exists()


def test_letters_in_images_are_named(study, built, tmp_path):
    raw = study()
    image = Image.new("L", (200, 100))
    ImageDraw.Draw(image).text((4, 4), "SALEM 12.3.61", fill=255, font_size=16)
    for patient in (4, 7):
        image.save(raw / f"images/{patient}_T2.png")
    found = built(raw, keep_ids=False)["deidentification"]
    assert sorted(own_names(tmp_path / "out", found["burnt_in_text"])) == [
        "study/images/4_T2.png",
        "study/images/7_T2.png",
    ]
    assert found["passed"] is False
    assert "Images that may contain burnt-in text: 2" in (tmp_path / "out/README.md").read_text()


def test_the_list_says_what_each_source_is(capsys):
    assert run(main, ["--list"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == list_sources()
    for line in printed.splitlines():
        assert len(line) <= 79 or "https://" in line, line
    words = " ".join(printed.split())
    for source in SOURCES.values():
        about = source.ABOUT
        for said in (about.summary, about.size, about.where, about.citation, about.license.removeprefix("other: ")):
            assert " ".join(said.split()) in words


def test_licence_and_citation_travel(study, built, tmp_path, monkeypatch):
    about = rsna2024.ABOUT
    monkeypatch.setattr("data_scripts.sources.folder.ABOUT", about)
    report = built(study())
    assert report["may_be_shared"] is False and report["source"]["citation"] == about.citation
    card = (tmp_path / "out/README.md").read_text()
    metadata = datasets.load_dataset_builder(str(tmp_path / "out")).info
    assert metadata.features["report"] == datasets.Value("string")
    head, prose = card.split("---\n")[1:3]
    assert "license: other\n" in head and "may_be_shared: false" in head and "license_details: " in head
    assert "**Not to be shared.**" in prose and about.citation in prose
    assert json.loads((tmp_path / "out/build_report.json").read_text()) == report


def test_your_own_data_may_be_shared_when_you_say_so(study, built, tmp_path):
    report = built(study())
    card = (tmp_path / "out/README.md").read_text()
    assert report["may_be_shared"] is False and "may_be_shared: false" in card
    assert "The data have no stated licence." in card
    for licence, head in (
        ("cc-by-4.0", "license: cc-by-4.0\n"),
        ("other: of our own", "license_name: of-our-own\nlicense_details: of our own\n"),
    ):
        report = built(study(), license=licence, overwrite=True)
        card = (tmp_path / "out/README.md").read_text()
        assert report["may_be_shared"] is True and "may_be_shared: true" in card and head in card
        assert report["source"]["license"] == licence and "Not to be shared" not in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"license": "All rights reserved"}, "--license must be like cc-by-4.0 or 'other: our own words', got 'All"),
        ({"license": "other: "}, "--license must be like cc-by-4.0"),
        ({"license": "CC-BY-4"}, r"got 'CC-BY-4'. Did you mean .*cc-by-4.0"),
        ({"source": "knee_kl", "license": "mit"}, "knee_kl has its own licence; leave the option out"),
        ({"num_patients": 400}, "the source folder takes all patients in --raw; leave --num_patients out"),
        ({"grades": "severity"}, "the source folder has no choice of grades; leave --grades out"),
        ({"plane": "sagittal"}, "the source folder takes slices as they were scanned; leave --plane out"),
    ],
)
def test_options_that_the_source_would_not_heed(study, built, arguments, message):
    with pytest.raises(ValueError, match=message):
        built(study(), **arguments)
