"""What is published of a run, and which runs are not."""

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from data_scripts.system.command_line import parse_arguments
from tests.loopback_hub import LoopbackHub
from tests.train.reporting.card.made_run import change, made_run
from tests.train.web_app.test_report_index import MADE, write_index
from train import pretrain, publish
from train.checkpoints.checkpoint import save_checkpoint
from train.checkpoints.golden_outputs import GOLDEN_TENSORS, write_golden_outputs
from train.checkpoints.onnx_export import weights_sha256
from train.pretraining.arguments import PretrainArguments
from train.publishing import publication
from train.publishing.arguments import PublishArguments
from train.publishing.clean_process import check_loadable

REPO = "lumbar-lab/model"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The files of a run, without its checkpoint."""
    return made_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def run(made, tiny_model, tiny_processor, tmp_path):
    """A finished run, with a real checkpoint."""
    run = Path(shutil.copytree(made, tmp_path / "run"))
    save_checkpoint(tiny_model, tiny_processor, run / "checkpoint")
    return change(run, "metrics.json", weights_sha256=weights_sha256(tiny_model))


@pytest.fixture
def hub(monkeypatch):
    with LoopbackHub() as hub:
        hub.connect(monkeypatch)
        for module in (publication, huggingface_hub):
            monkeypatch.setattr(module, "HfApi", lambda: HfApi(endpoint=hub.endpoint, token=hub.token))
        yield hub


@pytest.fixture
def trusting(monkeypatch):
    """Without the new process, which takes seconds."""
    monkeypatch.setattr(publication, "check_loadable", lambda *folders: None)


def published(run, **arguments):
    publish.main(PublishArguments(run=str(run), repo_id=REPO, **arguments))


@pytest.fixture
def never_run(monkeypatch):
    monkeypatch.setattr(publication, "check_loadable", lambda *folders: pytest.fail("the code ran"))


def make_classifier(run):
    config = json.loads((run / "checkpoint" / "config.json").read_text())
    config["architectures"] = ["LumbarCLIPForImageClassification"]
    (run / "checkpoint" / "config.json").write_text(json.dumps(config))


def test_the_folder_is_the_checkpoint_and_its_card(run, trusting, hub, capsys):
    published(run)
    model = hub.model(REPO)
    sent = {name: content for name, content in model.files.items() if name != ".gitattributes"}
    assert sent.pop("README.md").startswith(b"---\n")
    assert sent == {path.name: path.read_bytes() for path in (run / "checkpoint").iterdir()}
    assert model.private and set(model.tags) == {"v0.1"}
    assert "Published model v0.1: http://127.0.0.1" in capsys.readouterr().out


@pytest.fixture
def push(run, hub, monkeypatch, tiny_dataset_folder):
    """`train/pretrain.py --push_to_hub` with more words, after a training that left `run`."""
    monkeypatch.setattr(pretrain, "pretrain", lambda args, dataset, facts: None)
    words = ["--output_dir", str(run), "--push_to_hub", "--hub_repo_id", REPO, "--dataset"]

    def push(*more, dataset=tiny_dataset_folder):
        pretrain.main(parse_arguments(PretrainArguments, [*words, str(dataset), *more]))

    return push


def test_each_training_is_published_under_a_tag_of_its_own(push, trusting, hub):
    push()
    push("--hub_tag", "v0.2")
    assert hub.model(REPO).private and set(hub.model(REPO).tags) == {"v0.1", "v0.2"}


def test_a_tag_is_refused_before_the_training(push, trusting, hub):
    push()
    seen = len(hub.requests)
    with pytest.raises(ValueError, match=r"has a version v0\.1, which others may use: give another --hub_tag\.$"):
        push(dataset="never_looked_at")
    with pytest.raises(ValueError, match="--hub_tag 'v 2' is not a tag"):
        push("--hub_tag", "v 2", dataset="never_looked_at")
    hub.model(REPO).private = False
    with pytest.raises(ValueError, match="is public: publish with train/publish.py --public"):
        push("--hub_tag", "v0.2", dataset="never_looked_at")
    assert all(line.startswith("GET") for line in hub.requests[seen:])


def test_a_training_that_the_hub_did_not_take_names_the_command_that_sends_it(push, run, trusting, hub):
    hub.misbehave("/commit/", status=403)
    with pytest.raises(ValueError, match="but it was not published: .*may not write") as raised:
        push("--hub_tag", "v0.2")
    command = re.search(r"`python train/publish\.py (.*?)`", str(raised.value))
    publish.main(parse_arguments(PublishArguments, shlex.split(command[1])))
    assert set(hub.model(REPO).tags) == {"v0.2"}


def test_a_dry_run_writes_the_folder_and_asks_the_hub_nothing(run, trusting, hub, capsys):
    published(run, dry_run=True)
    assert hub.requests == []
    written = {path.name for path in (run / "hub" / "model").iterdir()}
    assert written == {path.name for path in (run / "checkpoint").iterdir()} | {"README.md"}
    printed = capsys.readouterr().out
    assert "nothing was sent" in printed and f"not part of the repository: {run / 'hub' / 'card.html'}\n" in printed
    assert "<h1>model</h1>" in (run / "hub" / "card.html").read_text()
    published(run)
    assert "card.html" not in hub.model(REPO).files
    assert "<h1>model</h1>" in (run / "hub" / "card.html").read_text()  # written again: that of the card that was sent


def test_a_run_without_figures_is_published_only_if_wanted_and_says_so(run, trusting, hub):
    (run / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"has no metrics.json.*--allow_unmeasured"):
        published(run)
    assert not hub.repositories and not (run / "hub").exists()
    published(run, allow_unmeasured=True)
    assert "**Not measured.**" in hub.model(REPO).files["README.md"].decode()


def test_a_space_beside_the_model(run, trusting, hub):
    published(run, space=True)
    card = hub.space(REPO).files["README.md"].decode()
    assert f"- {REPO}\nmodel_revision: v0.1\n" in card and hub.space(REPO).private
    assert set(hub.space(REPO).tags) == set(hub.model(REPO).tags) == {"v0.1"}


def test_an_index_of_other_weights_goes_to_no_space(run, trusting, hub, tiny_model, tmp_path):
    index = tmp_path / "index.parquet"
    write_index(index, np.eye(2), ["Disc bulge."] * 2)
    with pytest.raises(ValueError, match=r"encoded by tiny with weights a{12}.*cannot be compared"):
        published(run, space=True, index=str(index))
    assert not hub.repositories
    write_index(index, np.eye(2), ["Disc bulge."] * 2, {**MADE, "weights_sha256": weights_sha256(tiny_model)})
    published(run, space=True, index=str(index))
    assert "index.parquet" in hub.space(REPO).files


def test_what_was_not_saved_with_the_checkpoint_is_not_published(run, trusting, hub):
    (run / "checkpoint" / "patients.csv").write_text("John Smith,12345")
    (run / "checkpoint" / "old.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"were not saved with the checkpoint: old.safetensors, patients.csv. Move"):
        published(run)
    assert not hub.repositories and not (run / "hub").exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"may_be_shared": False, "license": "other: ask us"}, r"does not allow sharing .* \(other: ask us\)"),
        ({"deidentification": {"passed": False, "ids": "kept"}}, "failed the de-identification check"),
    ],
)
def test_what_its_card_keeps_from_others_is_not_made_public(run, trusting, hub, data, said):
    content = json.loads((run / "run.json").read_text())
    content["data"] |= data
    (run / "run.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{said}.*without --public"):
        published(run, public=True)
    assert not hub.repositories
    published(run)
    assert hub.model(REPO).private


def test_a_classifier_has_an_app_but_no_reports_to_compare_with(run, trusting, hub, tmp_path):
    make_classifier(run)
    args = PublishArguments(run=str(run), repo_id=REPO, space=True)
    with pytest.raises(ValueError, match="is a classifier, which does not compare images with reports: omit --index"):
        publication.prepare_app(replace(args, index=str(tmp_path / "index.parquet")))
    assert not (run / "hub").exists()
    assert REPO in (publication.prepare_app(args) / "README.md").read_text()


def test_what_cannot_be_published_is_refused_before_anything_is_sent(run, trusting, hub):
    weights = load_file(run / "checkpoint" / "model.safetensors")
    weights["text_projection.weight"][0, 0] += 1e-2
    save_file(weights, run / "checkpoint" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"metrics\.json has the metrics of other weights"):
        published(run)
    (run / "metrics.json").unlink()
    with pytest.raises(ValueError, match="is not what was saved: model.safetensors tensor text_projection.weight"):
        published(run, allow_unmeasured=True)
    (run / "checkpoint" / "golden_outputs.json").unlink()
    with pytest.raises(ValueError, match=r"has no golden_outputs.json"):
        published(run, allow_unmeasured=True)
    (run / "checkpoint" / "old.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"old.bin may run code"):
        published(run, allow_unmeasured=True)
    shutil.rmtree(run / "checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint is missing: set --run to the folder of a finished run"):
        published(run)
    with pytest.raises(ValueError, match="strangers/model is not yours"):
        publish.main(PublishArguments(run=str(run), repo_id="strangers/model"))
    assert not hub.repositories


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"repo_id": REPO}, "run is empty"),
        ({"run": "runs/demo"}, "repo_id is empty"),
        ({"run": "runs/demo", "repo_id": REPO, "index": "a.parquet"}, "add --space"),
        ({"run": "runs/demo", "repo_id": REPO, "adapter_base": "a/b"}, "add --adapter"),
        ({"run": "runs/demo", "repo_id": REPO, "adapter": True, "space": True}, "drop --space or --adapter"),
    ],
)
def test_arguments_that_cannot_work(arguments, said):
    with pytest.raises(ValueError, match=said):
        PublishArguments(**arguments)


@pytest.fixture
def adapter(run):
    """Adapters beside the checkpoint, trained on a folder of this machine."""
    adapter = run / "adapter"
    adapter.mkdir()
    save_file({"base_model.model.a": torch.zeros(2)}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "/data/base", "revision": None})
    )
    return adapter


def test_an_adapter_needs_a_base_that_others_have(run, adapter, trusting, hub):
    with pytest.raises(ValueError, match="/data/base, which is not on the Hub.*--adapter_base org/name"):
        published(run, adapter=True)
    with pytest.raises(ValueError, match="no repository lumbar-lab/base"):
        published(run, adapter=True, adapter_base="lumbar-lab/base")
    assert not hub.repositories and not (run / "hub").exists()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": ""}))
    with pytest.raises(ValueError, match="has no base: its run started from two towers"):
        published(run, adapter=True)
    shutil.rmtree(adapter)
    with pytest.raises(ValueError, match="has no adapter or no .*--lora_rank"):
        published(run, adapter=True)


def test_the_adapter_that_is_sent_names_its_base_by_id_and_commit(run, adapter, trusting, hub):
    base = "lumbar-lab/base"
    publish.main(PublishArguments(run=str(run), repo_id=base))
    commit, _ = hub.model(base).at("v0.1")
    published(run, adapter=True, adapter_base=base)
    sent = json.loads(hub.model(REPO).files["adapter_config.json"])
    assert sent == {"base_model_name_or_path": base, "revision": commit}
    assert "/data/base" in (adapter / "adapter_config.json").read_text()  # the run stays as it was
    card = hub.model(REPO).files["README.md"].decode()
    assert f'commit = "{commit}"' in card and f'AutoModel.from_pretrained("{base}", revision=commit' in card


def test_a_public_adapter_needs_a_base_that_all_may_see(run, adapter, trusting, hub):
    base = "lumbar-lab/base"
    publish.main(PublishArguments(run=str(run), repo_id=base))
    with pytest.raises(ValueError, match="The base lumbar-lab/base is private, so others could not use"):
        published(run, adapter=True, adapter_base=base, public=True)
    hub.model(base).private = False
    published(run, adapter=True, adapter_base=base, public=True)
    assert not hub.model(REPO).private


def test_code_of_someone_else_is_not_run(run, never_run, hub):
    code = run / "checkpoint" / "losses_lumbarclip.py"
    own = code.read_text()
    code.write_text(f"{own}\nprint('from someone else')\n")
    (run / "checkpoint" / "golden_outputs.json").unlink()
    write_golden_outputs(run / "checkpoint")  # they would record it as theirs
    with pytest.raises(
        ValueError, match=r"run/checkpoint differs from .*\(losses_lumbarclip.py\), so publishing does not run"
    ):
        published(run)


def test_code_of_someone_elses_base_is_not_run(run, adapter, trusting, hub):
    base = "lumbar-lab/base"
    publish.main(PublishArguments(run=str(run), repo_id=base))
    repository = hub.model(base)
    code = repository.files["losses_lumbarclip.py"] + b"print('from someone else')\n"
    files = repository.commits[-1][2]
    repository.commit("changed", {**files, "losses_lumbarclip.py": (code, False)})
    with pytest.raises(ValueError, match=r"the base lumbar-lab/base differs from .*\(losses_lumbarclip.py\)"):
        published(run, adapter=True, adapter_base=base)


def test_an_adapter_of_a_classifier_is_refused(run, adapter, trusting, hub):
    make_classifier(run)
    with pytest.raises(ValueError, match="is a classifier, .*publish it whole"):
        published(run, adapter=True, adapter_base="lumbar-lab/base")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # four new processes, on a machine shared by many
def test_a_checkpoint_that_needs_this_project_is_refused(run):
    check_loadable(run / "checkpoint", run / "checkpoint" / GOLDEN_TENSORS)
    code = run / "checkpoint" / "losses_lumbarclip.py"
    source = code.read_text()
    code.write_text(source + "\nimport train.training.distributed\n")
    with pytest.raises(ValueError, match="does not load in a process that has only this folder: .*train"):
        check_loadable(run / "checkpoint", run / "checkpoint" / GOLDEN_TENSORS)
    code.write_text(source)
    weights = load_file(run / "checkpoint" / "model.safetensors")
    weights["text_projection.weight"] *= -1
    save_file(weights, run / "checkpoint" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="gives other outputs .*: its .*; its code is from another version"):
        check_loadable(run / "checkpoint", run / "checkpoint" / GOLDEN_TENSORS)
    del weights["text_projection.weight"]
    save_file(weights, run / "checkpoint" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"the weights do not fit the code: .*text_projection.weight"):
        check_loadable(run / "checkpoint", run / "checkpoint" / GOLDEN_TENSORS)
