"""Whatever changes in a checkpoint is found and called by its name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import modeling_lumbarclip
from data_scripts.system import command_line
from tests.loopback_hub import LoopbackHub
from train.checkpoints import verification
from train.checkpoints.golden_outputs import TOLERANCE
from train.checkpoints.verification import check_checkpoint, describe, verify_checkpoint
from train.verify import VerifyArguments, main

PROJECT = Path(__file__).parents[3]


def change_weight(folder, name, index):
    weights = load_file(folder / "model.safetensors")
    weights[name][index] += 1e-2
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(folder, name, change):
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def swap_words(content, first, second):
    vocabulary = content["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]


def found(folder):
    return {(drift.file, drift.what) for drift in check_checkpoint(folder)}


def test_a_checkpoint_as_it_was_saved(checkpoint):
    result = verify_checkpoint(checkpoint, tolerance=1e-6)
    assert (result.drifts, result.notes) == ([], [])
    assert {"image_embeds", "text_embeds", "logits_per_image", "inverse_temperature"} <= set(result.deviations)
    assert max(result.deviations.values()) <= 1e-6


GOLDEN = "golden_outputs.safetensors"
PIXELS = (GOLDEN, "input pixel_values")
TOKENS = (GOLDEN, "input input_ids")
TEXT_EMBEDS = (GOLDEN, "output text_embeds")
LOGITS = ((GOLDEN, "output logits_per_image"), (GOLDEN, "output logits_per_text"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda folder: change_weight(folder, "text_projection.weight", (0, 3)),
            {("model.safetensors", "tensor text_projection.weight"), TEXT_EMBEDS, *LOGITS},
            id="one weight",
        ),
        pytest.param(  # no golden text has this word: no output can tell
            lambda folder: change_weight(folder, "text_model.embeddings.word_embeddings.weight", (4, 0)),
            {("model.safetensors", "tensor text_model.embeddings.word_embeddings.weight")},
            id="one weight of [MASK]",
        ),
        pytest.param(
            lambda folder: change_weight(folder, "log_inverse_temperature", ()),
            {("model.safetensors", "tensor log_inverse_temperature"), (GOLDEN, "output inverse_temperature"), *LOGITS},
            id="temperature",
        ),
        pytest.param(  # the model is not blamed for what its processor does
            lambda folder: change_json(
                folder, "processor_config.json", lambda content: content["image_processor"].update(image_mean=[0.5] * 3)
            ),
            {("processor_config.json", "field image_processor.image_mean"), PIXELS},
            id="mean",
        ),
        pytest.param(
            lambda folder: change_json(
                folder, "processor_config.json", lambda content: content["image_processor"].update(resample=0)
            ),
            {("processor_config.json", "field image_processor.resample"), PIXELS},
            id="interpolation",
        ),
        pytest.param(
            lambda folder: change_json(folder, "processor_config.json", lambda content: content.update(max_length=16)),
            {("processor_config.json", "field max_length"), TOKENS}
            | {(GOLDEN, f"input {name}") for name in ("attention_mask", "token_type_ids")},
            id="length",
        ),
        pytest.param(
            lambda folder: change_json(folder, "tokenizer.json", lambda content: swap_words(content, "left", "right")),
            {("tokenizer.json", f"field model.vocab.{side}") for side in ("left", "right")} | {TOKENS},
            id="left and right in the vocabulary",
        ),
        pytest.param(  # no golden text has these words
            lambda folder: change_json(
                folder, "tokenizer.json", lambda content: swap_words(content, "[MASK]", "normal")
            ),
            {("tokenizer.json", f"field model.vocab.{word}") for word in ("[MASK]", "normal")},
            id="other words in the vocabulary",
        ),
        pytest.param(
            lambda folder: change_json(folder, "config.json", lambda content: content.update(text_pooling="mean")),
            {("config.json", "field text_pooling"), (GOLDEN, "output text_features"), TEXT_EMBEDS, *LOGITS},
            id="pooling",
        ),
        pytest.param(
            lambda folder: (folder / "losses_lumbarclip.py").unlink(),
            {("losses_lumbarclip.py", "file")},
            id="no code file",
        ),
        pytest.param(
            lambda folder: (folder / "towers_lumbarclip.py").open("a").write("\n# another line\n"),
            {("towers_lumbarclip.py", "file")},
            id="other code",
        ),
        pytest.param(
            lambda folder: os.truncate(folder / "model.safetensors", 20_000),
            {("model.safetensors", "file"), (GOLDEN, "outputs")},
            id="truncated weights",
        ),
        pytest.param(
            lambda folder: (folder / GOLDEN).unlink(),
            {(GOLDEN, "file")},
            id="no golden tensors",
        ),
    ],
)
def test_a_change_is_found_and_named(checkpoint, change, expected):
    change(checkpoint)
    assert found(checkpoint) == expected


def test_the_field_is_told_as_it_was_and_as_it_is(checkpoint):
    change_json(
        checkpoint, "processor_config.json", lambda content: content["image_processor"].update(image_mean=[0.5])
    )
    drift = next(drift for drift in check_checkpoint(checkpoint) if drift.file == "processor_config.json")
    assert drift.detail == "[0.485, 0.456, 0.406] when recorded, [0.5] now"


@pytest.mark.slow
def test_every_truncated_file_is_named(checkpoint):
    names = sorted(path.name for path in checkpoint.iterdir())
    assert {"model.safetensors", "config.json", "tokenizer.json", "modeling_lumbarclip.py"} <= set(names)
    for name in names:
        content = (checkpoint / name).read_bytes()
        (checkpoint / name).write_bytes(content[: len(content) // 2])
        if name == "golden_outputs.json":
            with pytest.raises(ValueError, match=r"golden_outputs.json cannot be read .*Fetch the checkpoint again"):
                check_checkpoint(checkpoint)
        else:
            # What cannot be loaded has no outputs: said too, after the file.
            first = check_checkpoint(checkpoint)[0]
            assert (first.file, first.what) == (name, "file"), name
            assert f"{len(content):,} bytes when recorded, {len(content) // 2:,} now" in first.detail
        (checkpoint / name).write_bytes(content)
    assert check_checkpoint(checkpoint) == []


def change_versions(folder):
    change_json(folder, "golden_outputs.json", lambda content: content["packages"].update(torch="2.0.0"))


def test_other_versions_are_a_note_while_the_outputs_are_the_same(checkpoint):
    change_versions(checkpoint)
    result = verify_checkpoint(checkpoint)
    assert result.drifts == []
    ((what, detail),) = ((note.what, note.detail) for note in result.notes)
    assert what == "package torch" and detail.startswith("2.0.0 when recorded, ")


def test_other_versions_are_named_where_outputs_have_moved(checkpoint, monkeypatch):
    compute = verification.model_outputs

    def of_another_version(model, inputs):
        outputs = compute(model, inputs)
        row = outputs["image_embeds"][1]  # unit length; moved by 2e-4, a right angle away
        row += 2e-4 * np.linalg.qr(np.stack([row, np.ones_like(row)], axis=1))[0][:, 1]
        return outputs

    change_versions(checkpoint)
    monkeypatch.setattr(verification, "model_outputs", of_another_version)
    moved, package = check_checkpoint(checkpoint)
    assert (moved.what, moved.detail) == ("output image_embeds", "moved by 0.0002 of its length, 0.0001 allowed")
    assert package.what == "package torch"
    assert verify_checkpoint(checkpoint, tolerance=1e-3).drifts == []


def test_a_card_may_be_written_and_an_added_file_is_noted(checkpoint):
    (checkpoint / "README.md").write_text("# A card\n")
    (checkpoint / "metrics.json").write_text("{}")
    assert verify_checkpoint(checkpoint).notes == []
    (checkpoint / "generation_config.json").write_text("{}")
    result = verify_checkpoint(checkpoint)
    assert result.drifts == [] and [note.file for note in result.notes] == ["generation_config.json"]


def test_code_of_another_version_is_noted(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(
        modeling_lumbarclip, "__file__", str(tmp_path / "another" / "verify.py")
    )  # a package without these files
    notes = verify_checkpoint(checkpoint, trust_remote_code=False).notes
    assert {note.what for note in notes} == {"code"}
    assert {note.file for note in notes} == {path.name for path in checkpoint.glob("*.py")}


def test_the_command_says_so_in_a_table(checkpoint, capsys):
    assert command_line.run(main, [str(checkpoint)]) == 0
    assert capsys.readouterr().out.startswith(f"{checkpoint} is what was saved.\nLargest move of an output: ")
    change_weight(checkpoint, "text_projection.bias", 0)
    assert command_line.run(main, [str(checkpoint)]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith(f"{checkpoint} has DRIFTED from what was saved.\n  model.safetensors")
    assert "tensor text_projection.bias  other values" in shown
    with pytest.raises(SystemExit) as ended:
        command_line.run(main, ["--help"])
    assert ended.value.code == 0
    assert "Checkpoint folder, or Hub id." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["no/such/folder"], "No checkpoint at no/such/folder: neither a folder nor a Hub id."),
        (["nobody/nothing"], "No checkpoint at nobody/nothing: neither a folder nor a Hub id."),
        ([".", "--tolerance", "1"], "--tolerance must lie between 0 and 1"),
        ([str(PROJECT / "tests")], "tests has no golden_outputs.json"),
    ],
)
def test_what_cannot_be_verified(words, message, capsys):
    assert command_line.run(main, words) == 2
    assert message in capsys.readouterr().err


def test_the_folder_of_a_run_is_not_taken_for_its_checkpoint(checkpoint, capsys):
    assert command_line.run(main, [str(checkpoint.parent)]) == 2
    assert f"{checkpoint.parent} is not a checkpoint: it has no config.json. Did you mean {checkpoint}?" in (
        capsys.readouterr().err
    )


def test_a_difference_is_without_effect_only_where_outputs_were_computed():
    other = verification.Drift("package torch", "", "2.0 when recorded, 3.0 now")
    computed = describe("x", verification.Verification([], [other], {"image_embeds": 1e-7}))
    assert "\nDifferent, without effect on the outputs:\n" in computed
    assert "\nDifferent:\n" in describe("x", verification.Verification([], [other], {}))


def test_a_long_table_is_cut():
    drifts = [verification.Drift(f"tensor {number}", "model.safetensors", "other values") for number in range(150)]
    lines = describe("x", verification.Verification(drifts, [], {})).splitlines()
    assert len(lines) == 22 and lines[-1] == "  and 130 more"


def run(folder, *words, **environment):
    """In a fresh process, in an empty folder; our package is installed, which PYTHONPATH stands for."""
    (folder / "empty").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, str(PROJECT / "train" / "verify.py"), *words],
        cwd=folder / "empty",
        env={**os.environ, "PYTHONPATH": str(PROJECT), "HF_MODULES_CACHE": str(folder / "modules")} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_fresh_process_in_an_empty_folder_on_another_processor(checkpoint, tmp_path):
    # One without AVX2, which rounds resized pixels differently, and with another number of threads.
    other = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "2"}
    done = run(tmp_path, str(checkpoint), "--tolerance", "1e-5", **other)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert f"{checkpoint} is what was saved." in done.stdout
    # Code that answers in another way: found as a file, and as outputs where it is run.
    code = checkpoint / "modeling_lumbarclip.py"
    normalised = "F.normalize(self.image_projection(features), dim=-1)"
    assert normalised in code.read_text()
    code.write_text(code.read_text().replace(normalised, "self.image_projection(features)"))
    plain, trusting = run(tmp_path, str(checkpoint)), run(tmp_path, str(checkpoint), "--trust_remote_code")
    for done in (plain, trusting):
        assert done.returncode == 1 and "modeling_lumbarclip.py" in done.stdout
    assert "output image_embeds" not in plain.stdout and "output image_embeds" in trusting.stdout


UPLOAD = """
import sys
from huggingface_hub import create_repo, upload_folder
create_repo("tester/tiny", exist_ok=True)
upload_folder(repo_id="tester/tiny", folder_path=sys.argv[1])
"""


@pytest.mark.slow
def test_a_model_of_the_hub(checkpoint, tmp_path):
    with LoopbackHub() as hub:
        environment = hub.environment(tmp_path / "home")

        def upload():
            words = [sys.executable, "-c", UPLOAD, str(checkpoint)]
            subprocess.run(words, env={**os.environ, **environment}, check=True)

        upload()
        commit = hub.model("tester/tiny").commits[-1][0]
        trust = ["--trust_remote_code", "--revision", commit]
        done = run(tmp_path, "tester/tiny", *trust, "--tolerance", "1e-6", **environment)
        assert done.returncode == 0 and "tester/tiny is what was saved." in done.stdout, done.stdout + done.stderr
        change_weight(checkpoint, "text_projection.bias", 0)
        upload()
        done = run(tmp_path, "tester/tiny", **environment)
        assert done.returncode == 1 and "tensor text_projection.bias" in done.stdout, done.stdout + done.stderr
        first = hub.model("tester/tiny").commits[-2][0]
        done = run(tmp_path, "tester/tiny", "--revision", first, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        done = run(tmp_path, "tester/other", **environment)
        assert done.returncode == 2 and done.stderr.startswith("error: No checkpoint at tester/other")


def test_the_command_allows_what_verification_does():
    assert VerifyArguments("x").tolerance == TOLERANCE
