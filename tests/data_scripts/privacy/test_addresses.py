"""Invented addresses are found in every form that people and layouts give them, without a word of a finding."""

import itertools

import pytest

from data_scripts.privacy.identifiers import find_identifiers, scrub_text
from data_scripts.privacy.protection import scrub

MAIL = [
    "john.smith@hospital.org", "a.salem@uni-klinik.de", "Ahmad_Salem61@gmail.com", "salem@clinic.co.uk",
    "info@spital-uster.ch", "j.doe@mail.radiology.hospital.edu.jo", "x+mri2@ju.edu.jo", "MÜLLER.JÜRG@KLINIK.DE",
    "jürgen.groß@klinikum.fr", "o'brien@nhs.uk", "salem@klinik", "a-b_c@x1.io", "john@[10.0.0.1]",
]  # fmt: skip
SPLIT_MAIL = [
    "a. b @ hospital. org", "john. smith@hospital. org", "john.smith at hospital dot org", "john.smith[at]hospital.org",
    "john.smith (at) hospital (dot) org", "john dot smith at hospital dot org", "john.smith@\nhospital.org",
    "john.smith@hospital.\norg", "john.\nsmith@hospital.org", "john.\r\nsmith@x.org",
    "john.smith@hospi-\ntal.org", "john_smith＠hospital.org",
    "john.smith@hos\u00adpital.org", "john.\u200bsmith\u200b@hospital.org", "john.smith\u00a0@\u00a0hospital.org",
    "john.smith&#64;hospital.org", "john.smith&#x40;hospital&period;org", "john.smith&amp;#64;hospital.org",
    "john.smith%40hospital.org", "john.smith@hospital\u3002org", "ｊｏｈｎ．ｓｍｉｔｈ＠ｘ．ｏｒｇ",
    "ju\u0308rgen@hospital.org",
    "salem@clinic. co. uk", "JOHN@HOSPITAL. ORG", "john_at_hospital.org", "john <at> hospital punkt de",
]  # fmt: skip
WEB = [
    "https://hospital.org/patient/8842?id=7", "www.hospital.org/patient/8842", "hospital.org/patient/8842",
    "intranet.klinik.local", "klinik.de", "spital-uster.ch", "hopital.fr/dossier", "radiology.nhs.co.uk", "ju.edu.jo/x",
    "10.0.0.1:8080", "192.168.10.20:104/wado", r"\\pacs01\images\8842", r"C:\Users\a.salem\scan.dcm", "ftp://srv/x",
    "pacs01.klinikum.at", "/mnt/salem/export", "www. hospital. org",
    "hospital. org/patient/8842", "http:. hospital. org/x", "2001:db8:85a3:0:0:8a2e:370:7334",
]  # fmt: skip
PLACES = [
    "Hauptstraße 12, 79106 Freiburg", "Musterstr. 5", "Bahnhofstrasse 3, 8001 Zürich", "Lange Gasse 3a", "Am Mühlweg 7",
    "12 rue de la Paix, 75002 Paris", "Via Roma 10", "Calle Mayor 5", "10 Downing Street", "SW1A 2AA", "M1 1AA",
    "D-79106 Freiburg", "NY 10001", "Piazza San Marco 1", "10 downing street", "Marktplatz 1", "5 place de la Concorde",
]  # fmt: skip
MEDICAL = "mild bulge at L4/5, 4.5 mm, no stenosis"

UNTOUCHED = [
    "the sac.No stenosis, canal.There is, disc.de novo, i.e. normal, e.g. bulge, sac.it is, L4.at, bulge.lt side",
    "bulge @ L4-5. local stenosis, bulge@L4, pain@rest, mild stenosis at L4.No bulge, bulge at level.dicsc height",
    "stenosis.home exercise, no. net effect, stenosis.mild, T2.de, 3.cm, canal is at L4 . No bulge",
    "compressing the sac.//L4/L5 level, and/or, w/o, 10.12.14 mm, ratio 3:2:1:4:5, 1.5 T, v.s., a.m.",
    "Ring 3, Scarring 3 mm, Measuring 12 mm, TR 3000 TE 100, TE 12000 Matrix 512, FOV 280, in 2016 Mild bulge",
    "via L4, Via the foramen, Via Posterior approach 2, 3 mm close, L4 5MM, T2 2SE, L5 1ST, 5 mm way, C/O pain",
    "T1 TSE, 3 Lumbar Way, muscle strain 5, subtract 3, L5 2 mm, S1 2 mm",
]


@pytest.mark.parametrize("address", MAIL)
@pytest.mark.parametrize("frame", ["{}", "<{}>", "mailto:{}", "{}.", "see {}, {};{} now", "({})", "E-Mail:{}"])
def test_mail_addresses_go_whole(address, frame):
    text = f"{frame.format(*[address] * 3)} {MEDICAL}"
    assert scrub_text(text) == f"{frame.format(*['[EMAIL]'] * 3)} {MEDICAL}"


@pytest.mark.parametrize("address", SPLIT_MAIL)
def test_mail_addresses_that_are_split_or_disguised_go_whole(address):
    for text in (f"contact {address} for images", f"{MEDICAL}, {address}", f"Address of mail - {address}.\n{MEDICAL}"):
        assert scrub_text(text) == text.replace(address, "[EMAIL]")


@pytest.mark.parametrize("address", WEB)
def test_web_addresses_and_paths_go_whole(address):
    for text in (f"See {address}", f"See {address}, {MEDICAL}", f"({address})"):
        assert scrub_text(text) == text.replace(address, "[URL]")


@pytest.mark.parametrize("place", PLACES)
def test_places_go(place):
    for text in (f"Lives at {place}.", f"{place}\n{MEDICAL}", f"{MEDICAL}; {place}"):
        scrubbed = scrub_text(text)
        assert not [part for part in place.replace(",", "").split() if part in scrubbed.replace(MEDICAL, "")], scrubbed
        assert "[PLACE]" in scrubbed and (MEDICAL in scrubbed) == (MEDICAL in text)


@pytest.mark.parametrize("text", UNTOUCHED)
def test_missing_spaces_and_technical_words_make_no_address(text):
    assert scrub_text(text) == text and scrub(text).replaced == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("salem@clinic.org.No stenosis", "[EMAIL].No stenosis"),
        ("salem@clinic.No stenosis", "[EMAIL].No stenosis"),
        ("stenosis. salem@x.org", "stenosis. [EMAIL]"),
        ("stenosis. salem @ x. org", "stenosis. [EMAIL]"),
        ("No stenosis.salem@x.org", "No stenosis.[EMAIL]"),
        ("Bulge at L4-5. john . smith @ x . org", "Bulge at L4-5. [EMAIL]"),
        ("Mild Bulge Hauptstr. 12, 79106 Freiburg. No stenosis", "Mild Bulge [PLACE], [PLACE]. No stenosis"),
        ("Bulge. Lange Str. 12,79106 Freiburg", "Bulge. [PLACE],[PLACE]"),
        ("pain at clinic.org", "pain at [URL]"),
        ("klinik.de.Mild bulge", "[URL].Mild bulge"),
    ],
)
def test_findings_next_to_an_address_stay(text, expected):
    assert scrub_text(text) == expected


def test_nothing_is_left_when_an_address_is_split_by_normalising():
    for address, frame in itertools.product([*MAIL, *SPLIT_MAIL, *WEB], ["{}", "bulge//{}", "bulge ,{} .No stenosis"]):
        scrubbed = scrub(frame.format(address))
        assert scrubbed.left == () and not scrubbed.facts_changed, (address, scrubbed)
        assert not any(part in scrubbed.text.lower() for part in ("smith", "salem", "hosp", "klinik", "8842"))


def test_spans_are_those_of_the_text_as_typed():
    text = "\u200bmail ｊ．ｓ\u00ad@x&#46;org, Mu\u0308ller's disc; Dr. Mu\u0308ller"
    found = find_identifiers(text)
    name = ("NAME", "Mu\u0308ller")  # found after its title, and then wherever it stands
    assert [(one.kind, one.text) for one in found] == [("EMAIL", "ｊ．ｓ\u00ad@x&#46;org"), name, name]
    assert all(text[slice(*one.span)] == one.text for one in found)
