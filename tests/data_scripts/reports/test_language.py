"""English texts, however terse, are told from those in other languages."""

import pandas as pd
import pytest

from data_scripts.reports.language import seems_english

ENGLISH = [
    "", "   ", "...", "L4/5", "L5-S1: 3 mm.", "Normal.", "NAD", "WNL.", "Unremarkable.", "Nil acute.", "No change",
    "L4/5 buldge compresing sac", "buldge", "protrusoin L5S1 w/ compresion", "degenrative chnages",
    "mild diffuse bulge L4-5, sl. indenting sac", "s/p L4-5 lami, no hw cx", "DDD L4-S1 w/ mod NFN", "T1 post con",
    "pre and post con T1, T2, STIR", "Rt L5 radic. Lt S1 ok", "R>L. AP 9 mm, TE 100, TR 3500, FOV 280",
    "canal patent",
    "L4-5: normal disc. L5-S1: paracentral protrusion.", "Disc protrusion", "Protrusion L5/S1", "Canal normal",
    "Spina bifida occulta at S1.", "Os acetabuli. Os odontoideum.", "Cauda equina nerve roots are clumped.",
    "Filum terminale lipoma", "Ligamentum flavum hypertrophy, annulus fibrosus, nucleus pulposus",
    "Vertebra plana of L2", "psoas major, quadratus lumborum, erector spinae, multifidus", "Status post laminectomy",
    "Tarlov cysts at S2", "Schmorl's nodes. Schmorls node", "Baastrup phenomenon", "Bertolotti, Castellvi IIa",
    "Modic type 2, Pfirrmann IV", "Calvé disease; Lasègue positive; Scheuermann", "Kümmell phenomenon in situ",
    "Reported by Dr. van der Berg: mild bulge", "Patient: Juan García López de la Cruz. Mild bulge at L4/5.",
    "Dr. María Núñez, radiologist", "Dr. O'Brien and Dr. D'Souza", "Müller-Lüdenscheidt, J. No stenosis.",
    "[NAME], [DATE]: bulge", "Seen by [NAME] on [DATE].", "[PLACE] [ID]", "α-angle 40, 5 µm, 3 Ω, 20 °C",
    "Muscle spasmز noted", "Ｍｉｌｄ　ｂｕｌｇｅ", "en bloc, en face, per se, vis-à-vis, café-au-lait spots, naïve",
    "No stenosis // no nerve root compression // normal conus", "MILD BULGE AT L4/5. NO CANAL STENOSIS.",
    "The patient complains of back pain since two weeks; he is otherwise healthy and takes no medication.",
    "Findings: as above. Impression: stable.", "LOS 3 days, ED visit, MIT protocol, DES, LAS", "Cyst R", "lipoma",
    "Knee: KL grade 3, osteophytes, joint space narrowing", "Sag T2, Ax T1, cor STIR", "facet OA, LF hypertrophy",
    "Transitional vertebra", "Haemangioma in D12", "sac is pinched a bit", "tethered cord?", "Foraminal stenoses",
    "Hernia at L4/5", "Hernias, umbilical", "Lumbar columna vertebralis", "anorexia nervosa",
    "thoracic kyphosis, lordosis lost",
]  # fmt: skip
OTHER = {
    "German": [
        "LWK 4/5: Bandscheibenvorfall links mit Kompression der Nervenwurzel L5.",
        "Hochgradige Spinalkanalstenose L3/4.",
        "Bandscheibenvorfall L5/S1 links.", "Kein Bandscheibenvorfall.", "Unauffälliger Befund.", "Keine Stenose",
        "Regelrechte Lordose.", "Protrusion L5/S1 ohne Wurzelkontakt.", "GERINGE EINENGUNG DES SPINALKANALS",
        "Normale Weite des Spinalkanals", "Frau [NAME], geboren am [DATE]. Protrusion L5/S1.",
        "Facettengelenksarthrose bds.",
        "Maessiggradige Osteochondrose", "Diskusprolaps rechts", "Foramenstenose beidseits",
        "Osteochondrose L5/S1", "Spondylarthrose", "Retrolisthese", "Wirbelkoerper intakt",
    ],
    "Spanish": [
        "Hernia discal L5-S1 izquierda.", "Sin hernia discal. Canal de calibre normal.", "Estenosis de canal.",
        "Hernia discal central en L4-L5", "PROTRUSIÓN DISCAL L4-L5", "Paciente: [NAME]. Hernia discal L5/S1.",
        "Discos conservados.", "Canal lumbar de calibre normal", "No se observan hernias.",
        "Columna lumbar sin alteraciones",
        "Informe de la Dra. [NAME], [DATE].", "Abombamiento difuso del disco", "Deshidratacion discal",
        "Dolor lumbar",
    ],
    "French": [
        "Hernie discale L5-S1 gauche.", "Pas de hernie discale.", "Canal lombaire de calibre normal.",
        "Débord discal global",
        "Rétrécissement du canal à l'étage L4-L5.", "Discopathie L4-L5 sans conflit", "Absence de sténose canalaire",
        "Examen sans particularité", "HERNIE DISCALE DROITE",
    ],
    "Italian": [
        "Ernia discale L5-S1 con compressione radicolare.", "Protrusione discale L4-L5", "Non ernie discali.",
        "Canale vertebrale di normale ampiezza", "Nei limiti", "Stenosi foraminale sinistra",
        "Regolare la lordosi lombare",
    ],
    "Portuguese": [
        "Hérnia discal L5-S1 esquerda.", "Sem sinais de estenose do canal.", "Canal vertebral de amplitude normal",
        "Abaulamento discal difuso", "Protrusão discal central", "Discos intervertebrais preservados",
    ],
    "Dutch": [
        "Hernia L5-S1 links.", "Geen aanwijzingen voor een hernia.", "Normaal aspect van de wervelkolom",
        "Lichte uitpuiling van de tussenwervelschijf", "Vernauwing van het wervelkanaal", "Wortelcompressie rechts",
    ],
    "Turkish": [
        "L5-S1 sol paramedian disk fıtığı.", "L4-L5 düzeyinde bulging izlendi.", "Spinal kanal normaldir",
        "Sinir kökü basısı yoktur", "Hafif dejenerasyon", "L3-4 diskinde protrüzyon",
    ],
    "Polish": ["Przepuklina krążka L5/S1 po lewej.", "Kanał kręgowy prawidłowy.", "Bez cech ucisku korzeni",
        "Wypuklina L4/5"],
    "Czech": ["Výhřez ploténky L5/S1 vlevo.", "Páteřní kanál je volný."],
    "Romanian": ["Hernie de disc L5-S1 stânga.", "Canal spinal fără stenoză"],
    "Hungarian": ["Porckorongsérv L5-S1 bal oldalon.", "A gerinccsatorna nem szűkült."],
    "Swedish": ["Diskbråck L5-S1 vänster.", "Ingen spinal stenos på nivå L4-L5."],
    "Danish": ["Diskusprolaps L5/S1 på venstre side.", "Ikke tegn på stenose"],
    "Finnish": ["Välilevytyrä L5-S1 vasemmalla.", "Ei stenoosia."],
    "Indonesian": ["Penyempitan kanalis spinalis L4-5.", "Tidak tampak penekanan pada saraf"],
    "Swahili": ["Hakuna mgandamizo wa mishipa kwenye uti wa mgongo."],
    "Vietnamese": ["Thoát vị đĩa đệm L4/5.", "Không hẹp ống sống"],
    "Russian": ["Грыжа диска L5-S1 слева.", "Без патологии"],
    "Greek": ["Κήλη δίσκου L5-S1 αριστερά.", "Χωρίς στένωση"],
    "Chinese": ["腰椎间盘突出 L4/5，椎管狭窄。", "L5/S1 左", "正常"],
    "Japanese": ["L5/S1椎間板ヘルニア。", "のう胞"],
    "Korean": ["요추 추간판 탈출증 L4/5.", "정상"],
    "Arabic": ["انزلاق غضروفي L5/S1", "طبيعي"],
    "Hebrew": ["בלט דיסק L4/5"],
    "Hindi": ["सामान्य"],
    "Thai": ["หมอนรองกระดูกเคลื่อน L4/5"],
}  # fmt: skip


@pytest.mark.parametrize("text", ENGLISH)
def test_terse_notes_slips_latin_and_names_are_english(text):
    assert seems_english(text)


@pytest.mark.parametrize("text", [text for texts in OTHER.values() for text in texts])
def test_another_language_is_recognised_in_any_case_and_among_english_sentences(text):
    for written in (text, text.upper(), text.lower(), text.rstrip("."), f"Technique: T2 sagittal. {text}"):
        assert not seems_english(written), written
    assert not seems_english(f"Mild bulge at L4/5. {text} No stenosis.")
    assert not seems_english(f"No stenosis is seen\n{text}")


def test_a_word_of_another_language_in_an_english_sentence():
    assert not seems_english("Mild bulge at L4/5 izquierda with contact of the root")
    assert not seems_english("Disc bulge at L4/5 (腰椎间盘突出)")


def test_all_515_real_notes_are_english(shared_data):
    notes = pd.read_excel(shared_data / "mendeley_notes" / "Radiologists Report.xlsx")["Clinician's Notes"].dropna()
    assert len(notes) == 515
    for spelling in (str, str.lower, str.upper, str.title):
        assert [note for note in map(spelling, notes) if not seems_english(note)] == []


@pytest.mark.parametrize("text", [
    "Neuroforamina frei", "Fraktur L1", "hernia discal central", "Fractura vertebral", "Fracture de L1",
    "Spondylolisthésis L5", "Skolioza", "Conus normale",
])  # fmt: skip
def test_terse_findings_in_another_language(text):
    assert not seems_english(text)


@pytest.mark.parametrize("text", [
    "disco-osteophytic complex, disco-vertebral", "per os", "Foraminal stenoses", "Clinica Santa Maria", "post con T1",
])  # fmt: skip
def test_words_that_english_shares_with_other_languages(text):
    assert seems_english(text)
