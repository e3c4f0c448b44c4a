import pytest

from data_scripts.sources.folder.labels import read_labels, warn_of_labels
from data_scripts.sources.tables import Row

NOTHING = ("No Finding",)


def labels(cell):
    return read_labels(Row(where="row 1", cells={"labels": cell}))


NOT_LABELLED = ["", "  ", ";", " ; ", None, float("nan"), "nan", "NaN", "NULL", "null", "NA", "N/A", "n.a.", "#N/A"]
NOT_LABELLED += ["<NA>", "NaT", "?", ".", "not available", "Not reported", "unknown", "...", "nan; nan", "[None]"]
NOT_LABELLED += [[None], ["nan"], [float("nan")]]
NOTHING_FOUND = ["none", "None", "NONE", "nil", "No Finding", "no finding", "NO FINDINGS", "no_finding", "-", "--", "–"]
NOTHING_FOUND += ["[]", "[ ]", [], ["none"], ["No Finding"], "['none']", "none; none"]


@pytest.mark.parametrize("cell", NOT_LABELLED)
def test_not_labelled(cell):
    assert labels(cell) is None


def test_a_table_without_labels():
    assert read_labels(Row(where="row 1")) is None


@pytest.mark.parametrize("cell", NOTHING_FOUND)
def test_nothing_found(cell):
    assert labels(cell) == NOTHING


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("bulge", ("bulge",)),
        ("bulge;stenosis; bulge ", ("bulge", "stenosis")),
        (["bulge", None, "stenosis"], ("bulge", "stenosis")),
        ("['bulge', 'stenosis, mild']", ("bulge", "stenosis, mild")),
        ('["bulge"]', ("bulge",)),
        ("bulge; nan", ("bulge",)),
        ("bulge, stenosis", ("bulge, stenosis",)),
        ("Nonunion", ("Nonunion",)),
        ("normal", ("normal",)),
        ("disc  bulge", ("disc bulge",)),
        (3, ("3",)),
        ("bulge; none", ("bulge", "No Finding")),  # a contradiction, which `record_problem` names
    ],
)
def test_classes(cell, found):
    assert labels(cell) == found


@pytest.mark.parametrize("cell", ["[bulge]", "[" * 5000 + "]" * 5000, "[1 +]", {"bulge": 1}, True])
def test_what_is_no_list_of_classes(cell):
    with pytest.raises(ValueError, match="labels must be"):
        labels(cell)


@pytest.mark.parametrize(
    ("cells", "warning"),
    [
        (["bulge, stenosis", "bulge"], "'bulge, stenosis' is read as one class; separate classes by ';'"),
        (["bulge, stenosis"], "if it is 2: 'bulge; stenosis'"),
        (["bulge, stenosis", "bulge; cyst"], "'bulge, stenosis' is read as one class"),
        (["bulge|stenosis", "stenosis"], "'bulge|stenosis' is read as one class"),
        (["bulge", "None", "None"], "'None' in 2 rows is read as nothing found"),
        (["bulge; stenosis", "disc, lumbar"], None),
        (["['disc, lumbar']"], None),
        (["L4/L5"], None),
        (["bulge", "none", ""], None),
    ],
)
def test_ambiguous_cells_are_warned_of(caplog, cells, warning):
    rows = [Row(where="", cells={"labels": cell}) for cell in cells]
    warn_of_labels(rows, {name for row in rows for name in read_labels(row) or ()})
    assert len(caplog.messages) == (warning is not None) and (warning or "") in caplog.text
