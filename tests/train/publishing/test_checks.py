"""What may not be published, each named with file and value."""

import json

import pytest
import torch

from train.publishing.checks import check_code, check_fit


def change_json(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def problems(folder):
    with pytest.raises(ValueError, match="cannot be published:\n- ") as raised:
        check_fit(folder)
    return str(raised.value).splitlines()[1:]


def test_a_saved_checkpoint_is_fit(checkpoint):
    check_fit(checkpoint)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "training_args.pt", "sub/optimizer.pkl", "weights.dat"])
def test_weights_that_run_code(checkpoint, name):
    (checkpoint / name).parent.mkdir(exist_ok=True)
    torch.save({"a": torch.zeros(2)}, checkpoint / name)
    (problem,) = problems(checkpoint)
    assert problem.startswith(f"- {name} may run code when it is loaded; only safetensors are published.")


def test_no_weights(checkpoint):
    for path in checkpoint.glob("*.safetensors"):
        path.unlink()
    assert problems(checkpoint) == ["- the folder has no weights: no file is named *.safetensors."]


def test_code_that_is_missing_is_named_with_the_entry_that_wants_it(checkpoint):
    (checkpoint / "towers_lumbarclip.py").unlink()  # imported by a file that the entry imports
    found = problems(checkpoint)
    assert any("config.json: auto_map: AutoModel: modeling_lumbarclip.LumbarCLIPModel" in line for line in found)
    assert all("towers_lumbarclip.py is imported but missing" in line for line in found)


@pytest.mark.parametrize(
    "reference, said",
    [
        ("modeling_gone.LumbarCLIPModel", "modeling_gone.py is missing."),
        ("modeling_lumbarclip.Gone", "modeling_lumbarclip.py defines no class Gone."),
        ("me/other--modeling_lumbarclip.LumbarCLIPModel", "the code is in another repository"),
    ],
)
def test_an_entry_of_auto_map_that_leads_nowhere(checkpoint, reference, said):
    change_json(checkpoint / "config.json", auto_map={"AutoModel": reference})
    (problem,) = problems(checkpoint)
    assert problem.startswith(f"- config.json: auto_map: AutoModel: {reference}: {said}")


def test_no_auto_map(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    del config["auto_map"]
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert problems(checkpoint)[0].startswith("- config.json has no auto_map")


@pytest.mark.parametrize(
    "file, fields, said",
    [
        ("config.json", {"_name_or_path": "/mnt/smith/run"}, "_name_or_path = '/mnt/smith/run' is a path"),
        ("config.json", {"text_config": {"_name_or_path": "../bert"}}, "text_config._name_or_path = '../bert'"),
        ("config.json", {"notes": [{"from": "C:\\data\\mri"}]}, "notes[0].from = 'C:\\\\data\\\\mri'"),
        ("config.json", {"_name_or_path": "/mnt/runs of May/run"}, "_name_or_path = '/mnt/runs of May/run' is a path"),
        ("config.json", {"data": "/srv/John Smith/mri"}, "data = '/srv/John Smith/mri' is a path"),
        ("config.json", {"note": "from /mnt/smith/mri"}, "note = 'from /mnt/smith/mri' is a path"),
        ("processor_config.json", {"data": "~/mri/lumbar"}, "data = '~/mri/lumbar'"),
        ("processor_config.json", {"data": "file:///mri"}, "data = 'file:///mri'"),
        ("tokenizer_config.json", {"is_local": True}, "is_local = True records how it was loaded here"),
        (
            "tokenizer_config.json",
            {"local_files_only": False},
            "local_files_only = False records how it was loaded here",
        ),
    ],
)
def test_local_paths(checkpoint, file, fields, said):
    change_json(checkpoint / file, **fields)
    (problem,) = problems(checkpoint)
    assert problem.startswith(f"- {file}: {said}")


def test_a_folder_that_looks_like_a_hub_id(checkpoint, tmp_path, monkeypatch):
    change_json(checkpoint / "config.json", _name_or_path="runs/of_nobody")
    check_fit(checkpoint)
    (tmp_path / "runs" / "of_nobody").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert problems(checkpoint) == [
        "- config.json: _name_or_path = 'runs/of_nobody' is a path on this machine: use a Hub id, or remove it."
    ]


def test_a_path_in_the_card(checkpoint, tmp_path):
    card = checkpoint / "README.md"
    card.write_text(f"See https://huggingface.co{tmp_path} and L4/L5; /no/such/folder. Trained by `run {tmp_path}`.")
    assert problems(checkpoint) == [f"- README.md: {str(tmp_path)!r} is a path on this machine: remove it."]


@pytest.mark.parametrize("place, separator", [("/home", "/"), ("/Users", "/"), ("/mnt", "/"), (r"C:\Users", "\\")])
@pytest.mark.parametrize("text", ['`--raw "{}" --out b`', "Trained on {}", "See <file://{}"])
def test_a_path_of_whatever_machine_in_the_card(checkpoint, place, separator, text):
    path = separator.join([place, "John Smith", "scans of May.dcm"])
    (checkpoint / "README.md").write_text(f"A model.\n{text.format(path)}\nA disc.")
    assert problems(checkpoint) == [f"- README.md: {path!r} is a path on this machine: remove it."]


def test_a_folder_of_this_machine_with_a_blank(checkpoint, tmp_path):
    (tmp_path / "my scans").mkdir()
    (checkpoint / "README.md").write_text(f"`--raw '{tmp_path}/my scans'`")
    assert f"- README.md: '{tmp_path}/my scans' is a path on this machine: remove it." in problems(checkpoint)


def test_all_problems_are_told_at_once(checkpoint):
    (checkpoint / "a.bin").write_bytes(b"")
    change_json(checkpoint / "tokenizer_config.json", is_local=True)
    assert len(problems(checkpoint)) == 2


def test_a_truncated_json(checkpoint):
    path = checkpoint / "config.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"config.json cannot be read .*Fetch the checkpoint again"):
        check_fit(checkpoint)


def test_code_that_is_not_the_packages_is_not_run(checkpoint):
    check_code(checkpoint, "it")
    changed = checkpoint / "losses_lumbarclip.py"
    changed.write_text(f"{changed.read_text()}\n")
    (checkpoint / "sub").mkdir()
    (checkpoint / "sub" / "more.py").touch()
    with pytest.raises(
        ValueError, match=r"code of it differs .* \(losses_lumbarclip.py, sub/more.py\).* does not run it"
    ):
        check_code(checkpoint, "it")


def test_code_of_another_repository_is_not_run(checkpoint):
    change_json(checkpoint / "config.json", auto_map={"AutoModel": "other/code--modeling.Model"})
    with pytest.raises(ValueError, match="'other/code--modeling.Model': code in another repository"):
        check_code(checkpoint, "it")
