"""A date is found whatever stands beside it; levels, sizes, counts and grades are none."""

import json
import re

import pytest

from data_scripts.privacy.dates import find_dates
from data_scripts.privacy.identifiers import scrub_text

NUMERIC = [
    "12/03/2016", "2/3/2016", "12.3.2016", "12-03-2016", "2016-03-12", "2016/3/12", "2016.03.12", "2016. 03. 12",
    "03/25/2016", "20160312", "20160312_091629", "20160312091629", "2016-03-12T10:35", "12032016", "12_03_2016",
    "12 03 2016", "12–03–2016", "12. 3. 2016", "12/03-2016", "12.-14.03.2016", "12/13.03.2016", "12\\03\\2016",
    "12|03|2016", "12,03,2016", "12.III.2016", "12 III 2016", "١٢/٣/٢٠١٦", "１２／０３／２０１６", "12 / 03 / 2016",
    "2016-3-2",
    "2016/3/2", "2016.3.2", "12’03’2016", "12'03'2016",
]  # fmt: skip
IN_WORDS = [
    "12MAR2016", "12mar2016", "12Mar16", "12MAR16", "12/Mar/16", "12/Mar/2016", "12.Mar.2016", "12-Mar-16",
    "12 Mar '16", "Mar '16", "Mar-16", "Mar/12/2016", "Mar-12-2016", "March 12, 2016", "2016-Mar-12", "2016Mar12",
    "2016 March 12", "March of 2016", "March, 2016", "Mar.2016", "12th of March 2016", "12th day of March 2016",
    "12-14 March 2016", "March 12-14, 2016", "12 and 14 March 2016", "12th March", "March 12th", "3rd of June",
    "Tuesday, 12 March 2016", "Tue 12 Mar 2016", "12. Maerz 2016", "12. März", "3. März 1955", "12.Dez.16",
    "12 mars 2016", "12 mars", "12 marzec 2016",
    "2016 kovo 12", "1er août 2016", "12 d'août 2016", "12 décembre 2016", "12 de marzo de 2016",
    "12 de marzo del 2016",
    "3 de marzo", "12 de março de 2016", "5 maggio 2016", "12 januari 2016", "12 mart 2016", "12 Haziran 2016",
    "12 marca 2016", "12 března 2016", "12 марта 2016", "12 مارس 2016", "١٢ مارس ٢٠١٦", "2016. március 12",
    "2016年3月12日", "平成28年3月12日", "3月12日", "二〇一六年三月十二日",
    "2016년 3월 12일", "ngày 12 tháng 3 năm 2016",
]  # fmt: skip
AROUND = [
    "{}", "Compared with {}.", "MRI of {}: no stenosis", "({})", "[{}]", '"{}"', "DOB:{}", "geb.{}", "*{}",
    "Born *{}, bulge",
    "MRI_{}", "study {}, L4/5 bulge", "L4/5 {}", "L5. {}", "L5, {}", "{}\nBulge", "{} // bulge", "{}//bulge",
    "- {}", "-{}",
    "={}", "#{}", "{}!", "{};", "1) {}", "<{}>",
]  # fmt: skip
BETWEEN = ["{}-{}", "{} - {}", "{}–{}", "{},{}", "{}, {}", "{};{}", "{}/{}", "{} to {}", "{} and {}"]
NO_DATES = [
    "Sagittal 2/3/10 images", "axial 3/4/12 slices", "5/12/3 mm", "7-8-10 mm", "7*8*12", "3*2 cm", "10.12.14 mm",
    "10,12,14 mm", "levels 10/11/12", "discs 1/2/10", "T11-12-L1", "D10-11-12", "L3-4-5", "L3/4/5/S1", "L4/5",
    "T2/T1",
    "grade 1/2", "grades 1/2/3", "Modic 1/2/10", "AP 10/11/12", "score 3/4/10", "VAS 7/10", "power 5/5/5", "1/3",
    "4-5/10",
    "TR/TE 2000/100", "TE 10, 12, 2000 ms", "matrix 512/512/20", "b 1000/2000", "from 2000 to 2010", "in 2014",
    "1:2:12",
    "mar 5 mm", "L5 mar", "may be at L4/5", "no 4 nerve root, mar be", "disc 5 may bulge", "DISC 5 MAY BULGE",
    "2 set of images",
    "10 gen", "out 5", "4-5-12 weeks", "every 2/3/10 years", "Cobb 10/11/12 degrees", "L2-3-4 measures 10 x 12 mm",
    "1.5T, 3 T", "august, marching, decreased, sepsis 5", "Mars", "S1/2/3", "C5/C6/C7", "L4/5/2016",
]  # fmt: skip


def digits_and_months(date):
    return [
        part
        for part in re.findall(r"\d{2,}|[^\W\d_]{3,}", date)
        if part.lower() not in ("day", "and", "tuesday", "tue")
    ]


@pytest.mark.parametrize("date", NUMERIC + IN_WORDS)
def test_a_date_goes_whatever_stands_beside_it(date):
    for around in AROUND:
        scrubbed = scrub_text(around.format(date))
        assert "[DATE]" in scrubbed or "[ID]" in scrubbed, scrubbed
        assert not [part for part in digits_and_months(date) if part in scrubbed], (around, scrubbed)
        for kept in ("L4/5 bulge", "no stenosis", "Bulge", "L5"):
            assert (kept in around) == (kept in scrubbed), (around, scrubbed)


@pytest.mark.parametrize("date", NUMERIC + IN_WORDS)
def test_dates_in_ranges_and_lists_go_both(date):
    for between in BETWEEN:
        scrubbed = scrub_text(f"MRI {between.format(date, date)}. Bulge of 3*2 cm at L4/5")
        assert not [part for part in digits_and_months(date) if part in scrubbed], (between, scrubbed)
        assert scrubbed.endswith("Bulge of 3*2 cm at L4/5") and scrubbed.startswith("MRI ")


@pytest.mark.parametrize("date", ["12/03/16", "2.3.16", "12-03-16", "25/03/16", "3-25-16", "16-03-25", "02/03/10"])
def test_a_year_of_two_digits_counts_where_nothing_speaks_against_it(date):
    for around in (
        "{}",
        "MRI {}",
        "MRI of {}.",
        "Compared with {} images",
        "MRI_{}",
        "MRI-{}",
        "{} - {}",
        "{}, {}",
        "({})",
    ):
        text = around.format(date, date)
        assert scrub_text(text) == around.replace("{}", "[DATE]"), text


@pytest.mark.parametrize("text", NO_DATES)
def test_levels_sizes_counts_and_grades_are_no_dates(text):
    for around in ("{}", "Bulge. {}, normal", "L4/5: {}."):
        assert not list(find_dates(around.format(text))), around.format(text)
    if "may" not in text:
        assert not list(find_dates(text.upper()))


def test_a_level_beside_a_date_stays():
    assert scrub_text("L4/5 March 2016, L4/5 12/03/2016, S1 12 Mar 2016") == "L4/5 [DATE], L4/5 [DATE], S1 [DATE]"
    assert scrub_text("Bulge at L3-4. 5 May 2016 compared") == "Bulge at L3-4. [DATE] compared"


def test_dates_met_before(shared_data):
    cases = json.loads((shared_data.parent / "faults/data/expected.json").read_text(encoding="utf-8"))
    for text, gone in cases["deidentification"]:
        scrubbed = scrub_text(text)
        assert not [part for part in gone if part in scrubbed], scrubbed
        assert gone or scrubbed == text
