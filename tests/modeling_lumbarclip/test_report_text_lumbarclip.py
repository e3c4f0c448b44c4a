import random

import pytest

from modeling_lumbarclip.report_text_lumbarclip import normalise_report


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" // \r\n - ", ""),
        ("L4/L5 bulge of 4.5 mm, i.e. mild.", "L4/L5 bulge of 4.5 mm, i.e. mild."),
        ("narrowing.//// dehydrated L4-5 discs./// mild", "narrowing. dehydrated L4-5 discs. mild"),
        ("noted at the level of\nL4/L5", "noted at the level of L4/L5"),
        ("bulge at L5-S1 level\nNo stenosis", "bulge at L5-S1 level. No stenosis"),
        ("disc bulge noted\ncompressing the sac", "disc bulge noted compressing the sac"),
        ("exit canals.associated with,mild stenosis .", "exit canals. associated with, mild stenosis."),
        ("cyst ..\r\n", "cyst."),
        ("Featrure of muscle spam", "Featrure of muscle spam"),
        ("zero\u200bwidth\u00a0blank\ttab", "zerowidth blank tab"),
        ("LSS MRI:\r\n-Bulge at L5/S1.No leak", "LSS MRI: Bulge at L5/S1. No leak"),
    ],
)
def test_values(text, expected):
    assert normalise_report(text) == expected


def test_normalising_twice_changes_nothing_and_keeps_every_letter():
    pieces = [
        "bulge",
        " ",
        ".",
        "..",
        ",",
        "//",
        "///",
        "\n",
        "\r\n",
        "-",
        "• ",
        "L4/L5",
        "4.5 mm",
        ":",
        "No",
        "i.e.",
        "(",
        ")",
    ]
    choose = random.Random(0)
    for _ in range(5000):
        text = "".join(choose.choice(pieces) for _ in range(choose.randint(1, 9)))
        once = normalise_report(text)
        assert normalise_report(once) == once, text
        assert [char for char in once if char.isalnum()] == [char for char in text if char.isalnum()], text
        assert "  " not in once and "\n" not in once
