from data_scripts.system.markdown import markdown_table
from train.reporting.tables import (
    format_entry,
    metrics_table,
    retrieval_table,
    systems_table,
    undefined_notes,
)

ENTRY = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}
UNDEFINED = {"value": None, "low": None, "high": None, "n": 8, "reason": "no row of `LBP`"}


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_systems_stand_beside_each_other_and_gaps_are_shown():
    lines = systems_table({"ours": {"macro_f1": ENTRY}, "HOG": {}}, ["macro_f1"]).splitlines()
    assert cells(lines[0]) == ["system", "macro F1"]
    assert cells(lines[2]) == ["ours", "0.500 [0.250, 0.750]"]
    assert cells(lines[3]) == ["HOG", "-"]


def test_metrics_of_all_columns_are_listed_once_in_order():
    lines = metrics_table({"a": {"accuracy": ENTRY}, "b": {"accuracy": ENTRY, "auroc/Modic change": UNDEFINED}})
    assert [cells(line)[0] for line in lines.splitlines()[2:]] == ["accuracy", "AUROC Modic change"]
    assert cells(lines.splitlines()[-1])[1:] == ["-", "not defined: no row of `LBP`"]


def test_recall_stands_beside_chance_and_ranks_have_none():
    entries = {
        "image_to_text_recall_at_1": ENTRY,
        "image_to_text_chance_at_1": ENTRY | {"value": 0.125},
        "image_to_text_median_rank": {"value": 3.0, "low": 1.0, "high": 12.0, "n": 8},
    }
    lines = retrieval_table(entries).splitlines()[2:]
    assert cells(lines[0]) == ["image to text", "recall at 1", "0.500 [0.250, 0.750]", "0.125"]
    assert cells(lines[1]) == ["image to text", "median rank", "3.0 [1.0, 12.0]", "-"]


def test_a_figure_without_interval_stands_alone():
    assert format_entry(ENTRY | {"low": None, "high": None}) == "0.500"


def test_each_reason_is_said_once():
    groups = {"probe": {"macro_f1": UNDEFINED, "recall": UNDEFINED}, "zero_shot": {"macro_f1": UNDEFINED}}
    assert undefined_notes(groups.values()) == ["`macro_f1`, `recall`: no row of `LBP`."]


def test_all_lines_of_a_table_are_equally_long():
    lines = markdown_table(["a", "long heading"], [["long cell | bar", "1"], ["b", "22"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
