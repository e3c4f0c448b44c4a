"""The entry, from a checkpoint and a dataset with masks to the report."""

import json

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from train.checkpoints.checkpoint import save_checkpoint
from train.evaluation.protocols.finding_maps import METHODS
from train.explain import ExplainArguments, main


@pytest.fixture
def masked_folder(tiny_dataset_folder, tmp_path):
    """The tiny dataset with a disc drawn into every mask."""
    mask = np.zeros((24, 40), dtype=np.uint8)
    mask[8:16, 10:30] = 1
    (tmp_path / "masked" / "data").mkdir(parents=True)
    for split, rows in load_dataset(str(tiny_dataset_folder)).items():
        features = rows.features
        rows = rows.map(lambda _: {"mask": Image.fromarray(mask)}, features=features)
        rows.to_parquet(tmp_path / "masked" / "data" / f"{split}.parquet")
    (tmp_path / "masked" / "README.md").write_text("---\nmask_names:\n- background\n- disc\n---\n")
    return tmp_path / "masked"


@pytest.mark.slow
@pytest.mark.usefixtures("any_number_is_ranked")
def test_a_checkpoint_is_scored_beside_its_baselines(tiny_model, tiny_processor, masked_folder, tmp_path, capsys):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    arguments = ExplainArguments(
        checkpoint=str(tmp_path / "checkpoint"),
        dataset=str(masked_folder),
        out=str(tmp_path / "out"),
        num_randomised=2,
        num_resamples=50,
    )
    main(arguments)
    results = json.loads((tmp_path / "out" / "explanation.json").read_text())
    affirmed = [report.startswith("Disc bulge") for report in load_dataset(str(masked_folder))["test"]["report"]]
    assert results["dataset"]["findings"] == {
        "disc bulge": {"structure": "disc", "maps": sum(affirmed), "patients": results["dataset"]["num_patients"]}
    }
    assert results["model"] == {"vision": "vit_tiny_patch16_224", "map_size": [2, 2]}
    assert list(results["methods"]) == list(METHODS)
    assert results["baselines"]["uniform map"]["inside_energy"]["value"] == pytest.approx(160 / 960)
    assert results["baselines"]["centre prior"]["pointing_game"]["value"] == 1.0
    for groups in results["methods"].values():
        less = groups["less centre prior"]["pointing_game"]["value"]
        assert less == pytest.approx(groups["trained"]["pointing_game"]["value"] - 1)
    report = (tmp_path / "out" / "explanation.md").read_text()
    assert report in capsys.readouterr().out
    assert report.count("is not evidence of where the model looks") == 1
    assert "| disc bulge (disc)" in report and "](explanation.png)" in report
    with Image.open(tmp_path / "out" / "explanation.png") as figure:
        assert figure.width > 500


@pytest.mark.slow
def test_a_data_set_without_masks_is_refused(tiny_model, tiny_processor, tiny_dataset_folder, tmp_path):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    where = {"checkpoint": str(tmp_path / "checkpoint"), "dataset": str(tiny_dataset_folder), "out": str(tmp_path)}
    with pytest.raises(ValueError, match="No report affirms a finding whose structure a mask shows"):
        main(ExplainArguments(**where, mask_names=["background", "disc"]))
    with pytest.raises(ValueError, match="names no mask classes.*--mask_names"):
        main(ExplainArguments(**where))
    with pytest.raises(ValueError, match="no split 'held_out'"):
        main(ExplainArguments(**where, split="held_out"))


@pytest.mark.parametrize("name", ["num_randomised", "batch_size", "num_resamples"])
def test_settings_that_cannot_work_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        ExplainArguments(checkpoint="", dataset="", out="", **{name: 0})
