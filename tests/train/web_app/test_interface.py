"""What the page takes and what it must not do."""

import gradio as gr

from train.web_app.answer_html import SIDES
from train.web_app.interface import build_page, launch_settings, uploaded_paths


def test_only_what_was_uploaded_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    inside = tmp_path / "uploads" / "hash" / "slice.png"
    outside = [tmp_path / "secret.txt", tmp_path / "uploads" / ".." / "secret.txt", tmp_path / "uploads"]
    assert uploaded_paths({"path": str(inside)}) == [inside]
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
    assert page.delete_cache is not None
    assert settings["share"] is False
    assert settings["run_history"] is False
    fonts = [*settings["theme"]._font, *settings["theme"]._font_mono]
    assert not [font for font in fonts if isinstance(font, gr.themes.GoogleFont)]
    assert {dependency.api_visibility for dependency in page.fns.values()} == {"private"}
