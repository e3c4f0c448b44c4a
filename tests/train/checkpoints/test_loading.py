"""Anyone's checkpoint loads with the installed classes; errors name the damaged or hostile file."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig

from modeling_lumbarclip import LumbarCLIPForImageClassification, LumbarCLIPImageProcessor, LumbarCLIPModel
from tests.conftest import PROJECT, Marks
from tests.loopback_hub import LoopbackHub
from train.checkpoints import loading
from train.checkpoints.checkpoint import load_checkpoint
from train.checkpoints.golden_outputs import load_for_golden_outputs
from train.checkpoints.loading import MAX_LAYERS, find_checkpoint, load_parts
from train.checkpoints.verification import verify_checkpoint


def edit(folder, name, change):
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def text_config(**fields):
    return lambda folder: edit(folder, "config.json", lambda content: content["text_config"].update(fields))


def vision_args(**arguments):
    return lambda folder: edit(
        folder, "config.json", lambda content: content["vision_config"]["model_args"].update(arguments)
    )


def config(**fields):
    return lambda folder: edit(folder, "config.json", lambda content: content.update(fields))


def processor(**fields):
    return lambda folder: edit(folder, "processor_config.json", lambda content: content.update(fields))


def tokenizer(**fields):
    return lambda folder: edit(folder, "tokenizer_config.json", lambda content: content.update(fields))


def image_processor(**fields):
    return lambda folder: edit(
        folder, "processor_config.json", lambda content: content["image_processor"].update(fields)
    )


OWN = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
WAYS_TO_RUN_CODE = {
    "own code": config(),  # that of `poison`
    "another type": config(model_type="evil", auto_map=OWN),
    "a type of transformers": config(model_type="bert", auto_map=OWN),
    "text tower": text_config(auto_map=OWN),
    "unknown text tower": text_config(model_type="evil", auto_map=OWN),
    "tokenizer": tokenizer(tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]}),
    "processor": processor(processor_class="Evil", auto_map={"AutoProcessor": "evil.Evil"}),
    "image processor": image_processor(image_processor_type="Evil", auto_map={"AutoImageProcessor": "evil.Evil"}),
}
LOAD = """
import sys
from pathlib import Path
from train.checkpoints.checkpoint import load_checkpoint
from train.checkpoints.golden_outputs import load_for_golden_outputs

for folder in map(Path, sys.argv[1:]):
    for load in (load_checkpoint, lambda folder: load_for_golden_outputs(folder, trust_remote_code=False)):
        try:
            load(folder)
            print(folder.name, "loaded")
        except ValueError as error:
            print(folder.name, error)
"""


def poison(folder, marker):
    """Let all code of a checkpoint write a marker file when it runs."""
    code = f"open({str(marker)!r}, 'w').close()\n"
    for path in folder.glob("*.py"):
        path.write_text(f"{path.read_text()}\n{code}")
    (folder / "evil.py").write_text(f"{code}class Evil: pass\n")


@pytest.mark.timeout(900)
def test_no_code_of_a_checkpoint_runs_in_a_fresh_process(checkpoint, tmp_path):
    poison(checkpoint, tmp_path / "ran")
    for name, change in WAYS_TO_RUN_CODE.items():  # the first is loaded before the package has registered its classes
        change(shutil.copytree(checkpoint, tmp_path / "ways" / name))
    folders = [str(tmp_path / "ways" / name) for name in WAYS_TO_RUN_CODE]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run([sys.executable, "-c", LOAD, *folders], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not (tmp_path / "ran").exists(), done.stdout + done.stderr
    assert done.stdout.count("own code loaded") == 2


ELSEWHERE = {"AutoModel": "evil/code--modeling.Model"}


@pytest.mark.parametrize("trust_remote_code", [False, True])
@pytest.mark.parametrize(
    ("change", "file"),
    [
        (config(auto_map=ELSEWHERE), "config.json"),
        (config(custom_pipelines={"feature-extraction": {"impl": "evil/code--pipeline.P", "pt": []}}), "config.json"),
        (text_config(auto_map=ELSEWHERE), "config.json"),
        (tokenizer(auto_map={"AutoTokenizer": [None, "evil/code--t.T"]}), "tokenizer_config.json"),
        (processor(auto_map=ELSEWHERE), "processor_config.json"),
        (image_processor(auto_map=ELSEWHERE), "processor_config.json"),
    ],
)
def test_code_in_another_repository_is_refused_by_name(checkpoint, change, file, trust_remote_code):
    change(checkpoint)
    with pytest.raises(ValueError, match=rf"{file}: .*'evil/code--.*in another repository"):
        load_for_golden_outputs(checkpoint, trust_remote_code=trust_remote_code)


def test_code_of_a_hub_id_is_run_only_at_a_commit(monkeypatch):
    for revision in (None, "main", "v1.0", "0123abc"):
        with pytest.raises(ValueError, match="--trust_remote_code runs the code of me/model.*--revision with 40"):
            verify_checkpoint("me/model", revision=revision, trust_remote_code=True)


LIMIT = f"{MAX_LAYERS:,} is possible"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (text_config(num_hidden_layers=10**7), rf"text_config.num_hidden_layers to 10000000; at most {LIMIT}"),
        (text_config(num_hidden_layers=1500), "describes a larger model than the weights hold"),
        (text_config(hidden_size=10**9), "text_config.hidden_size to 1000000000; at most 1,048,576"),
        (text_config(hidden_size=2**20), "describes a larger model than the weights hold"),
        (text_config(vocab_size=10**6, hidden_size=8192), "describes a larger model than the weights hold"),
        (vision_args(img_size=10**6), "vision_config.model_args.img_size to 1000000; at most"),
        (vision_args(embed_dim=2**20, num_heads=1), "describes a larger model than the weights hold"),
        (vision_args(depth=[10**7]), r"vision_config.model_args.depth\[0\] to 10000000; at most"),
        (config(vision_config={"model_type": "vit", "image_size": 4096, "patch_size": 1}), "describes a larger model"),
        (config(num_labels=10**9), "num_labels to 1000000000; at most"),
        (text_config(num_hidden_layers=-5), "text_config.num_hidden_layers to -5, which counts something"),
        (text_config(vocab_size=12), "does not fit config.json"),
        (image_processor(size={"height": 10**6, "width": 32}), "size.height to 1000000; at most"),
        (vision_args(checkpoint_path="/etc/passwd"), "vision_config sets model_args.checkpoint_path"),
        (vision_args(pretrained_cfg_overlay={"file": "x.pth"}), "sets model_args.pretrained_cfg_overlay"),
        (text_config(auto_map=OWN), "text_config sets auto_map"),
        (text_config(attn_implementation="evil/kernel"), "sets attn_implementation"),
        (config(quantization_config={"quant_method": "hqq"}), "sets quantization_config"),
        (config(configuration_files=["config.4.0.0.json"]), "sets configuration_files"),
        (config(transformers_weights="../other.safetensors"), "sets transformers_weights"),
        (text_config(intermediate_size=64), r"does not fit config.json: .*intermediate.* has the shape \(32,"),
        (
            tokenizer(tokenizer_class="E", auto_map={"AutoTokenizer": ["e.E", None]}),
            "code of the checkpoint, which never",
        ),
    ],
)
def test_what_no_checkpoint_needs_is_refused_before_anything_is_built(checkpoint, change, said):
    change(checkpoint)
    with pytest.raises(ValueError, match=said) as raised:
        load_checkpoint(checkpoint)
    assert "\n" not in str(raised.value) and str(checkpoint) in str(raised.value)


DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "random": lambda content: bytes(range(255, 100, -1)),
    "list": lambda content: b"[]",
    "null": lambda content: b"null",
    "text": lambda content: b'"text"',
    "number": lambda content: b"5",
    "deep": lambda content: b"[" * 100_000 + b"]" * 100_000,
    "nested": lambda content: b'{"a":' * 200 + b"1" + b"}" * 200,
    "latin-1": lambda content: content.replace(b"{", b'{"caf\xe9": 1,', 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json"],
)
def test_a_damaged_file_is_named_in_a_line(checkpoint, name, damage):
    path = checkpoint / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for load in (load_checkpoint, lambda folder: load_for_golden_outputs(folder, trust_remote_code=False)):
        with pytest.raises(ValueError, match=f"{name}") as raised:
            load(checkpoint)
        assert "\n" not in str(raised.value)
    assert any(drift.file == name for drift in verify_checkpoint(checkpoint).drifts)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_golden_outputs_are_named(checkpoint, damage):
    path = checkpoint / "golden_outputs.json"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(ValueError, match=r"golden_outputs.json"):
        verify_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("files", value) for value in ([], None, 5, {"config.json": None}, {"config.json": {"bytes": "1"}})),
        ("files", {"../outside.json": {"bytes": 1, "sha256": ""}}),
        *(("texts", value) for value in (None, 5, [5])),
        ("packages", []),
    ],
)
def test_a_record_of_another_form_is_refused(checkpoint, field, value):
    edit(checkpoint, "golden_outputs.json", lambda content: content.update({field: value}))
    with pytest.raises(ValueError, match=r"golden_outputs.json cannot be read"):
        verify_checkpoint(checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        config(projection_dim="x"),
        config(text_config=5),
        config(vision_config=[]),
        config(auto_map=5),
        config(calibration=[]),
        text_config(hidden_size=0),
        processor(max_length="x"),
        processor(class_prompts={"LBP": 5}),
        image_processor(image_mean="x"),
        image_processor(size="x"),
        tokenizer(tokenizer_class=5),
    ],
)
def test_a_value_of_a_wrong_type_is_an_error_that_names_the_file(checkpoint, change):
    change(checkpoint)
    with pytest.raises(ValueError, match=r"(config|processor_config|tokenizer_config)\.json"):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_pickled_weights_are_refused_unread(checkpoint, name, tmp_path):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).write_bytes(pickle.dumps(Marks(tmp_path / "ran")))
    with pytest.raises(ValueError, match=rf"no model.safetensors. Not read, .*: {name}. If you trust"):
        load_checkpoint(checkpoint)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "shard", ["pytorch_model.bin", "../model.safetensors", "/model.safetensors", "missing.safetensors", 5]
)
def test_shards_are_safetensors_of_the_same_folder(checkpoint, shard):
    (checkpoint / "model.safetensors").rename(checkpoint / "other.safetensors")
    names = load_file(checkpoint / "other.safetensors")
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, shard)}))
    with pytest.raises(ValueError, match="weights are read from safetensors files in|is missing"):
        load_checkpoint(checkpoint)


def test_weights_in_shards_load(checkpoint, tiny_model, tiny_inputs):
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    places = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(weights)}
    for part in set(places.values()):
        save_file(
            {name: weights[name] for name in weights if places[name] == part}, checkpoint / part, {"format": "pt"}
        )
    index = {"metadata": {}, "weight_map": places}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    model, _ = load_checkpoint(checkpoint)
    torch.testing.assert_close(model(**tiny_inputs).image_embeds, tiny_model(**tiny_inputs).image_embeds)


def test_adapters_are_not_added_unasked(checkpoint):
    (checkpoint / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="has adapters .*Merge them"):
        load_checkpoint(checkpoint)
    (checkpoint / "config.json").unlink()
    with pytest.raises(ValueError, match="No checkpoint .*has adapters"):
        load_checkpoint(checkpoint)


def test_a_tokenizer_that_gives_more_than_the_tower_embeds_is_named(checkpoint):
    file = checkpoint / "tokenizer.json"
    saved = json.loads(file.read_text())
    saved["model"]["vocab"]["disc"] = 400_000
    file.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=r"tokenizer\.json has a token 400000, but the text tower embeds only"):
        load_checkpoint(checkpoint)


def test_a_processor_with_longer_texts_than_the_tower_is_named(checkpoint):
    file = checkpoint / "processor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "max_length": 600}))
    with pytest.raises(ValueError, match=r"processor_config\.json sets max_length to 600; the text tower has"):
        load_checkpoint(checkpoint)


NOBODY = 65534


@pytest.fixture
def as_another_user(tmp_path):
    """Be a user who owns nothing, if root runs the tests; else permissions are taken from the owner."""
    if os.geteuid() != 0:
        yield
        return
    on_the_way = {folder: folder.stat().st_mode for folder in (tmp_path, *tmp_path.parents)}
    for folder, mode in on_the_way.items():
        if not mode & 0o001:
            folder.chmod(mode | 0o011)
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)
    for folder, mode in on_the_way.items():
        if not mode & 0o001:
            folder.chmod(mode)


@pytest.mark.parametrize(
    ("closed", "mode"),
    [
        ("model.safetensors", 0o200),
        ("config.json", 0o000),
        ("tokenizer.json", 0o000),
        ("tokenizer_config.json", 0o200),
        ("processor_config.json", 0o000),
        (".", 0o000),  # not even its parent knows what is in it
        (".", 0o444),  # its files have names, and nothing else
        (".", 0o111),
    ],
)
def test_what_this_user_may_not_read_is_named(checkpoint, as_another_user, closed, mode):
    path = checkpoint / closed
    with as_owner():
        checkpoint.chmod(0o755)
        path.chmod(mode)
    try:
        with pytest.raises(
            ValueError, match=r"cannot be read \(Permission denied\): .* is closed to this user"
        ) as raised:
            load_checkpoint(checkpoint)
    finally:
        with as_owner():
            path.chmod(0o755)
    assert f"chmod a+rX {path}" in str(raised.value) and "Hub id" not in str(raised.value)


@pytest.mark.parametrize("closed", ["golden_outputs.safetensors", "losses_lumbarclip.py", "notes.txt"])
def test_what_is_not_read_may_be_closed(checkpoint, as_another_user, closed):
    with as_owner():
        checkpoint.chmod(0o755)
        (checkpoint / closed).touch()
        (checkpoint / closed).chmod(0o000)
    load_checkpoint(checkpoint)
    with as_owner():
        (checkpoint / closed).chmod(0o644)


@contextmanager
def as_owner():
    user = os.geteuid()
    os.seteuid(os.getuid())
    yield
    os.seteuid(user)


def test_a_cache_of_another_user_is_named(monkeypatch, tmp_path):
    def closed(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "hub"))

    monkeypatch.setattr(loading, "snapshot_download", closed)
    with pytest.raises(ValueError, match=rf"{tmp_path}/hub cannot be read \(Permission denied\)"):
        find_checkpoint("me/model")


def test_what_others_add_to_a_checkpoint_does_not_stop_it(checkpoint):
    (checkpoint / "._config.json").write_bytes(b"\0\5\x16\7 macOS")
    (checkpoint / "other_config.json").symlink_to("nowhere")
    config(seed=20_240_101, num_train_rows=5_000_000)(checkpoint)
    load_checkpoint(checkpoint)


def test_a_new_head_may_be_missing(checkpoint):
    args = (checkpoint, LumbarCLIPForImageClassification, LumbarCLIPImageProcessor)
    assert load_parts(*args, new="classifier.", num_labels=5)[0].classifier.out_features == 5
    with pytest.raises(ValueError, match="lack 2 parameters of the model, such as classifier.bias"):
        load_parts(*args)


def test_a_pretrained_tower_keeps_no_reference_to_code(tiny_config):
    tower = BertConfig(vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, auto_map=ELSEWHERE)
    fields = {"vision_config": tiny_config.vision_config, "text_config": tower, "projection_dim": 8}
    assert "auto_map" not in LumbarCLIPModel(type(tiny_config)(**fields)).config.text_config.to_dict()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_of_a_hub_model_runs_and_no_pickle_is_fetched(checkpoint, tmp_path):
    poison(checkpoint, tmp_path / "ran")
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Marks(tmp_path / "ran")))
    upload = "create_repo('tester/a')\nupload_folder(repo_id='tester/a', folder_path=sys.argv[1])"
    upload = f"import sys\nfrom huggingface_hub import create_repo, upload_folder\n{upload}"
    with LoopbackHub() as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home"), "PYTHONPATH": str(PROJECT)}
        subprocess.run([sys.executable, "-c", upload, str(checkpoint)], env=environment, check=True)
        load = "from train.checkpoints.checkpoint import load_checkpoint as l\nprint(l('tester/a')[0].name_or_path)"
        done = subprocess.run([sys.executable, "-c", load], env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and "tester/a" in done.stdout, done.stderr
        _, _, files = hub.model("tester/a").commits[-1]
        hub.model("tester/a").commit(
            "pickles only", {name: files[name] for name in files if name != "model.safetensors"}
        )
        done = subprocess.run([sys.executable, "-c", load], env=environment, capture_output=True, text=True)
        assert "Not read, since reading may run code: pytorch_model.bin." in done.stderr, done.stderr
        assert not (tmp_path / "ran").exists()
        assert not any("GET" in line and "pytorch_model.bin" in line for line in hub.requests)


def test_a_folder_wins_over_a_hub_id(checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    assert find_checkpoint("checkpoint") == Path("checkpoint")
