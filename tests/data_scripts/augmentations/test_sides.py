"""A text is exchanged for a mirrored image only if each word that may tell a side was understood."""

import pandas as pd
import pytest

from data_scripts.augmentations.sides import exchange_all_sides


@pytest.mark.parametrize("text, exchanged", [
    ("Left protrusion at L5/S1.", "Right protrusion at L5/S1."),
    ("Central protrusion at L5/S1.", "Central protrusion at L5/S1."),
    ("Levocurvature centred at L3.", "Dextrocurvature centred at L3."),
    ("levoscoliosis, DEXTROCONVEX curve", "dextroscoliosis, LEVOCONVEX curve"),
    ("Mild levo-convex scoliosis with dextrorotation", "Mild dextro-convex scoliosis with levorotation"),
    ("Dextrokyphoscoliosis. Levo scoliosis", "Levokyphoscoliosis. Dextro scoliosis"),
    ("Levoposition of L4 and right-sided facet", "Dextroposition of L4 and left-sided facet"),
    ("left-sided, LEFT SIDED, leftward, right-hand side", "right-sided, RIGHT SIDED, rightward, left-hand side"),
    ("Lt foraminal stenosis, rt. facet, R>L, (L)", "Rt foraminal stenosis, lt. facet, L>R, (R)"),
    ("lft root, rght facet", "rght root, lft facet"),
    ("Bulge is left paracentral, more to the right at L4/5", "Bulge is right paracentral, more to the left at L4/5"),
    ("The root was left lateral; bright cyst, upright scan, clefts",
    "The root was right lateral; bright cyst, upright "
     "scan, clefts"),
    ("left and right foramina", "right and left foramina"),
])  # fmt: skip
def test_sides_are_exchanged(text, exchanged):
    assert exchange_all_sides(text) == exchanged
    assert exchange_all_sides(exchanged) == text


@pytest.mark.parametrize("text", [
    "Leftt foraminal protrusion.", "lefft root", "letf disc", "rigth root", "lef foramen", "elft facet",
    "rihgt root", "rightt root",
    "righ foramen", "Rihgth facet", "leftish bulge", "lefts", "alright", "The screws were left in place",
    "left in situ",
    "Patient has left the scanner", "has left before contrast", "left out", "left untreated", "nothing left",
    "a right angle", "right-angled", "all right", "right away", "right behind L5", "right-handed",
    "left hand dominant",
    "cyst R", "Cyst (r)", "l > r", "r paracentral bulge", "bulge more to l", "L4L root", "L5/S1 R", "Lsided bulge",
    "RLE pain", "LHS foramen", "post RT changes", "tear at 7 o'clock", "clockwise rotation", "sinistroconvex",
    "dext. root",
    "Levothyroxine intake", "Dextrose given", "levo", "curve to the left; leftt", "Bandscheibenvorfall L5/S1 links.",
    "Hernia discal L5-S1 izquierda.", "Hernie discale L5-S1 gauche.", "Ernia destra", "Hérnia à direita",
    "Hernia L5 rechts",
    "Sol paramedian fıtık", "L5/S1 左", "Sol foraminal darlık.", "Protrusion L4/5 li.", "Prolaps re. L5/S1",
    "hernia izq.", "hernia dcha L5-S1", "hernia lado esq.", "prot. L5/S1 lks.", "rite facet", "sinister root",
    "jobb oldali cyst",
    "reft root",
    "protrusion on the port side", "starboard root", "protrusion ←", "the near side root",
    "Грыжа слева", "Left bulge. Hernia discal derecha.",
])  # fmt: skip
def test_a_text_with_an_unclear_side_is_not_exchanged(text):
    for written in (text, f"Mild bulge. {text}", f"Left facet cyst. {text}"):
        assert exchange_all_sides(written) is None, written


def test_a_relative_side_is_clear_only_beside_a_named_one():
    for relative in ("ipsilateral", "contralateral", "contra-lateral"):
        assert exchange_all_sides(f"Left cyst, {relative} root") == f"Right cyst, {relative} root"
        assert exchange_all_sides(f"Cyst, {relative} root") is None
    assert exchange_all_sides("Cyst on the opposite side") is None


def test_real_notes_are_exchanged_and_restored(shared_data):
    notes = pd.read_excel(shared_data / "mendeley_notes" / "Radiologists Report.xlsx")["Clinician's Notes"].dropna()
    exchanged = {note: other for note in notes if (other := exchange_all_sides(note)) is not None}
    assert len(exchanged) >= 480
    assert all(exchange_all_sides(other) == note for note, other in exchanged.items())
