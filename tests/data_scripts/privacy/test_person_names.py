"""Made-up people only: labels, titles and signatures of many languages, and names of many forms."""

import itertools
import re

import pytest

from data_scripts.privacy.identifiers import scrub_text

CUES = [
    "Patient: {}", "Pt: {}", "Pt. {}", "PATIENT: {}", "Patient {}", "Pat.: {}", "Patient(in): {}", "Patient/in: {}",
    "Patientin: {}", "Patiente: {}", "Patiënt: {}", "Paciente: {}", "Paziente: {}", "Pacjent: {}", "Hasta: {}",
    "Пациент: {}", "患者：{}", "Client: {}", "Re: {}", "Name: {}", "Patient name - {}", "Patient Name = {}",
    "Name des Patienten: {}", "Name, Vorname: {}", "Nom du patient : {}", "Nom et prénom: {}", "Nome: {}",
    "Nome do paciente: {}", "Nome del paziente: {}", "Nombre del paciente: {}", "Apellidos y nombre: {}", "Naam: {}",
    "Adı Soyadı: {}", "Imię i nazwisko: {}", "姓名：{}", "Dr. {}", "Dra. {}", "Dr.ª {}", "Dr.ssa {}", "Dott.ssa {}",
    "Prof.ssa {}", "Prof. {}", "Doctora {}", "Docteur {}", "Frau {}", "Herrn {}", "Sr. {}", "Srta. {}", "Sig.ra {}",
    "Mme. {}", "Don {}", "Mevr. {}", "Dhr. {}", "MUDr. {}", "Informe de {}", "Informe de la Dra. {}", "Befund von {}",
    "Reported by {}", "Report by {}", "Rapport de {}", "Referto di {}", "Laudo de {}", "Verslag van {}", "Médico: {}",
    "Firmado: {}", "Fdo. {}", "Signé: {}", "Assinado por {}", "Utente: {}", "Doente: {}", "Pacient: {}",
    "Pacijent: {}", "Ime i prezime: {}", "Nume: {}", "Beteg: {}", "Név: {}", "Namn: {}", "Navn: {}", "Nimi: {}",
    "Pasient: {}", "Potilas: {}", "Pasien: {}", "Nama: {}", "Họ tên: {}", "Patientenname: {}", "患者氏名：{}",
    "환자명: {}",
    "Ασθενής: {}", "Пацієнт: {}", "Paciente {}", "La paciente {}", "Il paziente {}", "Die Patientin {}", "Utente {}",
    "Pani {}", "Fru {}", "Bay {}", "Sn. {}", "Smt. {}", "Shri {}", "Master {}", "drs. {}", "Dr(a). {}", "Uzm. Dr. {}",
    "Dr. Öğr. Üyesi {}", "Signé: Pr. {}", "Radioloog: {}", "Radyolog: {}", "Lekarz: {}", "Läkare: {}", "Baby of {}",
    "Dictated: {}", "Husband: {}", "Next of kin: {}", "Contact: {}", "Tech: {}", "mevr. {}", "sig. {}",
]  # fmt: skip
NAMES = [
    "Miller, John", "MILLER, JOHN ADAM", "Smith Jr., Robert", "de Souza, Ana", "VAN DER BERG, PIETER",
    "Jan van der Berg",
    "Juan de la Cruz", "Juan García López", "JOSÉ ÁNGEL MUÑOZ", "Ana Sofía Ibáñez y Pérez",
    "Luis Fernando Alberto Gómez",
    "Maria da Silva Santos", "Ludwig von Beethoven", "O'Neill, Seán", "Anne-Marie D’Arcy", "J.-P. Martin",
    "Müller-Lüdenscheidt, J.", "Łukasz Żółć", "Ayşe Yılmaz", "Giulia Dell'Acqua", "Della Rovere, Luca",
    "Nguyễn Văn Anh",
    "Иван Иванов", "محمد علي",
]  # fmt: skip
AFTER = [
    ". Mild bulge at L4/L5.", ", mild bulge at L4/5.", "\nFindings: bulge", ", 45 y, bulge", "; bulge at L4", "",
    " // no stenosis", " (45 M)",
]  # fmt: skip


@pytest.mark.parametrize("cue", CUES)
def test_a_name_goes_with_its_every_word_and_nothing_else(cue):
    label = cue.replace("{}", "")
    for name, after in itertools.product(NAMES, AFTER):
        scrubbed = scrub_text(cue.format(name) + after)
        rest = scrubbed.replace(label, "", 1)
        left = [word for word in re.findall(r"[^\W\d_]{2,}", name) if re.search(rf"(?<!\w){word}(?!\w)", rest)]
        assert not left and scrubbed.endswith(after), (name, after, scrubbed)


@pytest.mark.parametrize("text", [
    "Patient: Mild bulge, Diffuse", "Patient: stable, Normal conus", "Pt. Diffuse bulge, Mild stenosis",
    "Report by fax. Report by phone", "Don't know", "Subject: MRI lumbar spine", "Patient name not given",
    "Pan-spinal imaging", "S/o Disc bulge", "s/o Modic change", "W/O Contrast study", "D/O Degenerative disease",
    "S/o Potts Spine", "Patient - Modic changes", "Pan spinal MRI", "Master of levels",
    "Dr. aware, Mild bulge", "Re: lumbar MRI, Normal",
])  # fmt: skip
def test_findings_after_a_label_are_no_names(text):
    assert scrub_text(text) == text


@pytest.mark.parametrize("text", [
    "S/O Mohan Lal. Bulge", "W/o Ramesh Kumar, bulge", "Patient - John Doe. Bulge", "DOE^JANE^MARIE bulge",
    "Dr. Can Öztürk. Bulge", "Pat. Schmidt (bulge",
])  # fmt: skip
def test_relatives_dashes_and_carets_tell_a_name(text):
    assert re.sub(r"[\W_]*(?:S/O|W/o|Patient -|Pat\.|Dr\.)? ?\[NAME\]\W*", "", scrub_text(text)).lower() == "bulge"


def test_a_misspelt_finding_after_a_name_and_a_comma_stays():
    for cue in ("Patient: ", "Name: ", "Dr. ", "Reported by "):
        assert scrub_text(f"{cue}Salem, Buldge, L4/5") == f"{cue}[NAME], Buldge, L4/5"


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        (
            "Patient: Salem, Ahmad. Ahmad moved; SALEM was sedated. Salem's bulge.",
            "Patient: [NAME]. [NAME] moved; [NAME] was sedated. [NAME]'s bulge.",
        ),
        (
            "Haddad was scanned. Disc bulge. Reported for Mr. Omar Haddad.",
            "[NAME] was scanned. Disc bulge. Reported for Mr. [NAME].",
        ),
        (
            "Seen by Dr. Tarlov. Tarlov cyst at S2, Tarlov informed.",
            "Seen by Dr. [NAME]. Tarlov cyst at S2, [NAME] informed.",
        ),
        ("Name: Hope Salem. There is hope, and Mild bulge.", "Name: [NAME]. There is hope, and Mild bulge."),
        ("患者：山田. 山田 returned. Disc bulge.", "患者：[NAME]. [NAME] returned. Disc bulge."),
    ],
)
def test_a_name_that_a_cue_tells_is_found_wherever_it_stands(text, scrubbed):
    assert scrub_text(text) == scrubbed


@pytest.mark.parametrize(
    "cue",
    ["Ref. by {}.", "Ref by {}.", "Ref'd by {}.", "Radiologist - {}.", "Discussed with {}.", "Communicated to {}."],
)
def test_short_cues_of_a_name(cue):
    assert scrub_text(cue.format("Ahmad Zqxsalem") + " Mild bulge.") == cue.format("[NAME]") + " Mild bulge."


@pytest.mark.parametrize(
    "text",
    [
        "Discussed with the referring team. Correlated with Pain. Bulge with Compression of the sac.",
        "Reviewed with Orthopedics. Compared with CT. Operator - dependent. Patient - Male.",
    ],
)
def test_what_follows_a_short_cue_may_be_no_name(text):
    assert scrub_text(text) == text
