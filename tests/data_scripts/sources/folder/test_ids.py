import pytest

from data_scripts.sources.folder.ids import check_no_date, check_spellings, dates_among, read_id
from data_scripts.sources.tables import Row


def rows_of(ids, column="patient_id"):
    return [Row(where=f"row {number}", cells={column: text}) for number, text in enumerate(ids, start=1)]


def refused(ids, column="patient_id"):
    rows = rows_of(ids, column)
    dates = dates_among(rows)[column]
    found = []
    for row, text in zip(rows, ids, strict=True):
        try:
            check_no_date(column, read_id(row, column), dates)
        except ValueError as error:
            assert column in str(error)
            found.append(text)
    return found


@pytest.mark.parametrize("column", ["patient_id", "study_id"])
@pytest.mark.parametrize(
    "text",
    [
        *("1.23457E+11", "1,20E+11", "1.2e+11", "1E+11", "1.2345678E11", "1.23457e+011", "-1.2E+05", "5.00E-03"),
        *(1.23457e20, 1.5e15, "123456789012345000", "9876543210987650000"),
        *("####", "##########", "#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#NUM!", "#NULL!", "#SPILL!", "#WERT!"),
        *("#BEZUG!", "#¿NOMBRE?", "Err:502", " #NAME? "),
    ],
)
def test_ids_that_a_spreadsheet_destroyed(text, column):
    assert refused([text, "P01"], column) == [text]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "5E3",
            "1e5",
            "12E-3",
            "E+11",
            "P1.2E+11x",
            "1234567890123456",
            "12345678901234567",
            "007",
            "12.5",
            "1.2.840",
        ),
        *("#7", "P#12", "#A1", "NAME?", "MAR-12", "apr-03", "DEC-2020", "3-4", "03-04-05", "12345678", "20240131"),
    ],
)
def test_ids_that_may_be_right(text):
    assert refused([text, "P01"]) == []


@pytest.mark.parametrize(
    "text", ["03-Jan", "3-Jan", "Jan-03", "1. Mrz", "03-Jan-24", "12-Dez", "Mar-05", "2024-01-03 00:00:00"]
)
def test_dates_that_are_no_patients(text):
    assert refused([text]) == refused([text, "3-45"]) == [text]
    assert refused([text], "study_id") == []  # studies may be named by their date, if all are
    assert refused([text, "3-45"], "study_id") == [text]


@pytest.mark.parametrize("text", ["2024-01-03", "03.01.2024", "3/1/2024", "1/31/2024", "03-01-1999"])
def test_dates_among_other_ids(text):
    assert refused([text, "3-45"]) == refused([text, "3-45"], "study_id") == [text]
    assert refused([text, text]) == []
    assert refused([text, "NA", ""]) == []


@pytest.mark.parametrize(
    "text", ["03-janv", "03-févr", "3-ene", "03-gen", "03/mag", "3-mrt", "03-sept-24", "12-dez", "03-août"]
)
def test_dates_with_small_months_among_other_ids(text):
    assert refused([text, "3-45"]) == refused([text, "3-45"], "study_id") == [text]
    assert refused([text]) == refused(["01-mag", "02-mag"]) == refused(["03-magnet", "A-mar", "gen-03", "3-45"]) == []


def test_accents_have_one_form():
    assert read_id(rows_of(["Mu\u0308ller"])[0], "patient_id") == "Müller"
    check_spellings(rows_of(["Mu\u0308ller", "Müller", "N/A", "n/a", "####", "#####"]))


@pytest.mark.parametrize("pair", [("Müller", "müller"), ("P 1", "P\u00a01"), ("07", "7.0"), ("Ｐ1", "p1")])
def test_spellings_of_one_patient(pair):
    with pytest.raises(ValueError, match="spell a patient one way"):
        check_spellings(rows_of(pair))
