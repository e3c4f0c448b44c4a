"""The card of a dataset whose classes, licence and file names try to be more than text."""

from huggingface_hub import DatasetCard

from data_scripts.auditing.audit_report import audit, audit_markdown
from data_scripts.auditing.built_folder import opened_afresh
from tests.page_content import HOSTILE, page_content, shown
from train.reporting.rendering import html_page


def card_and_audit(study, built, out, texts):
    """Build a dataset that holds the texts in its table; return its card, and the pages of card and audit."""
    rows = [
        {
            "file_name": f"{number}.png",
            "report": "Disc bulge.",
            "patient_id": f"p{number}",
            "labels": texts,
            "grade": text,
            "split": ("train", "validation", "test")[number % 3],
        }
        for number, text in enumerate(texts)
    ]
    report = built(study(rows, table="metadata.jsonl"), out=out, license=f"other: {' '.join(texts)}")
    card = DatasetCard.load(out / "README.md")
    with opened_afresh(out) as dataset:
        found = audit(dataset)
        assert dataset["train"].features["labels"].feature.names == texts
    found["privacy"] |= {"findings": [], "passed": True}  # some of the texts hold addresses
    found |= {"dataset": texts[0], "command": texts[1], "in_words": texts[2]}
    found["leaks"] = {"study": {"examples": texts, "num_shared": len(texts)}}
    assert report["rows_written"] == len(texts)
    return card, html_page(card.text, "A card", {}), html_page(audit_markdown(found), "An audit", {})


def test_what_a_table_says_adds_nothing_to_card_and_audit_but_words(study, built, tmp_path):
    texts = sorted(" ".join(text.split()) for text in HOSTILE)  # as classes are read
    plain = [f"plain{number:02}" for number, _ in enumerate(texts)]
    _, *expected = card_and_audit(study, built, tmp_path / "plain", plain)
    card, *pages = card_and_audit(study, built, tmp_path / "out", texts)
    assert card.data["license_details"] == " ".join(texts)
    for page, of_plain in zip(pages, expected, strict=True):
        elements, words = page_content(of_plain)
        for name, text in zip(plain, texts, strict=True):
            words = words.replace(name, shown(text))
        assert page_content(page) == (elements, words)
