"""What the page takes and what it must not do."""

import gradio as gr

from train.web_app.answer_words import SIDES
from train.web_app.interface import NO_CALIBRATION, build_page, uploaded_paths
from train.web_app.serving import MAX_WAITING, launch_settings


def test_only_what_was_uploaded_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    inside = tmp_path / "uploads" / "hash" / "slice.png"
    outside = [tmp_path / "secret.txt", tmp_path / "uploads" / ".." / "secret.txt", tmp_path / "uploads"]
    assert uploaded_paths({"path": str(inside)}) == [inside]
    assert uploaded_paths([{"path": f"{tmp_path}/uploads/a\0b"}]) == []
    assert uploaded_paths([{"path": str(path)} for path in [*outside, inside]]) == [inside]


def test_the_page_says_on_which_side_of_a_picture_left_is_and_which_map_comes_first(reader):
    config = build_page(reader, "tiny").get_config_file()
    shown = [component["props"].get("value") for component in config["components"]]
    assert len([value for value in shown if isinstance(value, str) and SIDES in value]) == 1
    assert "Grad-CAM" in shown  # of the choice of a map


def test_only_findings_that_the_model_knows_are_suggested(reader):
    config = build_page(reader, "tiny").get_config_file()
    (own,) = [c["props"] for c in config["components"] if "own" in (c["props"].get("label") or "")]
    assert own["choices"] == [("disc bulge", "disc bulge")]


def test_nothing_is_shared_recorded_or_reported(reader):
    page = build_page(reader, "tiny")
    settings = launch_settings()
    assert page.analytics_enabled is False
    assert page._queue.max_size == MAX_WAITING
    assert settings["share"] is False
    assert settings["run_history"] is False
    fonts = [*settings["theme"]._font, *settings["theme"]._font_mono]
    assert not [font for font in fonts if isinstance(font, gr.themes.GoogleFont)]
    assert {dependency.api_visibility for dependency in page.fns.values()} == {"private"}


def test_cells_are_text_but_for_the_thumbnails_of_a_study(reader):
    config = build_page(reader, "tiny").get_config_file()
    kinds = {c["props"]["label"]: c["props"]["datatype"] for c in config["components"] if c["type"] == "dataframe"}
    assert kinds.pop("Slice by slice") == ["html", "str", "str", "str"]
    assert len(kinds) == 4 and set(kinds.values()) == {"str"}


def test_a_checkpoint_without_calibration_can_be_asked_in_own_words_only(uncalibrated):
    config = build_page(uncalibrated, "tiny").get_config_file()
    shown = [component["props"].get("value") for component in config["components"]]
    assert len([value for value in shown if isinstance(value, str) and NO_CALIBRATION in value]) == 2  # in each tab
    labels = [component["props"].get("label") for component in config["components"]]
    assert "Slice by slice" not in labels and "Sentences for each choice" not in labels
