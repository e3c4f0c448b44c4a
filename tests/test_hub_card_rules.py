"""The loopback Hub refuses the cards that the Hub refuses."""

import pytest
from huggingface_hub import HfApi

from data_scripts.hub.licenses import HUB_LICENSES
from tests.hub_card_rules import LICENSES, card_errors
from tests.loopback_hub import LoopbackHub

RESULT = {"task": {"type": "image-classification"}, "dataset": {"type": "made", "name": "made"}}


def card(**metadata):
    return f"---\n{metadata}\n---\n# Title\n"


@pytest.mark.parametrize(
    ("kind", "metadata", "said"),
    [
        ("dataset", {"license": "cc-by-4"}, '"license" must be one of'),
        ("dataset", {"license": "other"}, '"license_name" must be given'),
        ("dataset", {"license": "other", "license_name": "of our own"}, '"license_name" must be given'),
        ("model", {"datasets": ["data/synthetic", "/srv/mri"]}, "'/srv/mri' is not valid"),
        ("model", {"base_model": "../demo/checkpoint"}, "'../demo/checkpoint' is not valid"),
        ("model", {"tags": ["lumbar", 9]}, '"tags" must be strings'),
        ("model", {"language": "english"}, "ISO 639"),
        ("model", {"model-index": [{"results": [RESULT]}]}, 'model-index[0].name" is required'),
        ("model", {"model-index": [{"name": "made"}]}, 'model-index[0].results" is required'),
        ("model", {"model-index": [{"name": "made", "results": [{"task": {}}]}]}, "task.type"),
        (
            "model",
            {"model-index": [{"name": "made", "results": [RESULT | {"metrics": [{"type": "f1"}]}]}]},
            "metrics[0]",
        ),
        ("space", {"sdk": "flask"}, '"sdk" must be one of'),
        ("space", {"sdk": "gradio", "colorFrom": "grey"}, '"colorFrom" must be one of'),
        ("space", {"sdk": "gradio", "short_description": "a" * 61}, "60 characters"),
    ],
)
def test_wrong_heads_are_named(kind, metadata, said):
    (error,) = [error for error in card_errors(card(**metadata), kind) if said in error]
    assert error


def test_right_heads_are_taken():
    results = [RESULT | {"metrics": [{"type": "f1", "value": 0.5}]}]
    assert card_errors(card(license="other", license_name="our-own", datasets=["us/mri"]), "dataset") == []
    assert card_errors(card(license="mit", **{"model-index": [{"name": "made", "results": results}]}), "model") == []
    assert card_errors(card(sdk="gradio", colorTo="gray", models=["us/lumbar"]), "space") == []


def test_the_hub_takes_every_licence_that_we_offer():
    assert HUB_LICENSES.issubset(LICENSES - {"unknown", "other"})
    assert all(not card_errors(card(license=licence), "dataset") for licence in HUB_LICENSES)


def test_the_client_is_told_before_anything_is_sent(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text(card(license="ours"))
    with LoopbackHub() as hub:
        hub.connect(monkeypatch)
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("lumbar-lab/model")
        with pytest.raises(ValueError, match=r'(?s)Invalid metadata.*"license" must be one of'):
            api.upload_folder(repo_id="lumbar-lab/model", folder_path=tmp_path)
        assert not hub.model("lumbar-lab/model").messages
