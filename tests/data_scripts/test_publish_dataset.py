"""A dataset reaches the Hub as it was built, or not at all when it names someone, leaks or may not be passed on."""

import json
import os
import re
import shlex
import subprocess
import sys

import datasets
import huggingface_hub
import pytest
from huggingface_hub import HfApi
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from data_scripts import build, publish_dataset
from data_scripts.auditing.built_folder import shard_digests
from data_scripts.publish_dataset import PublishDatasetArguments
from data_scripts.system.command_line import parse_arguments
from data_scripts.writing.build_arguments import BuildArguments
from tests.loopback_hub import LoopbackHub

REPO = "lumbar-lab/study"
OPEN = {"license": "cc-by-4.0", "keep_ids": False}


@pytest.fixture
def hub(monkeypatch):
    with LoopbackHub() as hub:
        hub.connect(monkeypatch)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: HfApi(endpoint=hub.endpoint, token=hub.token))
        yield hub


def publish(folder, *words):
    """Publish; raise what the command would print."""
    publish_dataset.main(
        parse_arguments(PublishDatasetArguments, ["--dataset", str(folder), "--repo_id", REPO, *words])
    )


def assert_refused(folder, hub, said):
    with pytest.raises(ValueError, match=said):
        publish(folder)
    assert not hub.repositories


def change_report(folder, **fields):
    path = folder / "build_report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_shards_and_card_are_sent_but_not_the_account_of_the_build(study, built, tmp_path, hub, capsys):
    built(study(), **OPEN)
    out = tmp_path / "out"
    publish(out)
    sent = {name: content for name, content in hub.dataset(REPO).files.items() if name != ".gitattributes"}
    kept = [out / "README.md", *(out / "data").iterdir()]
    assert sent == {path.relative_to(out).as_posix(): path.read_bytes() for path in kept}
    assert hub.dataset(REPO).private and hub.dataset(REPO).messages == ["Publish v0.1"]
    assert "Published as v0.1" in capsys.readouterr().out
    publish(out, "--dry_run", "--tag", "v0.2")
    assert "It would get:\nREADME.md\ndata/test-" in capsys.readouterr().out
    assert set(hub.dataset(REPO).tags) == {"v0.1"}


PICTURES_IN_A_CARD = (
    "![rows](preview.png)\n\n<img alt='x' src='images/two%20rows.png' width=50>\n![far](https://example.org/far.png)\n"
)


def test_pictures_that_the_card_shows_are_sent(study, built, tmp_path, hub, capsys):
    built(study(), **OPEN)
    out = tmp_path / "out"
    card = out / "README.md"
    card.write_text(f"{card.read_text(encoding='utf-8')}\n{PICTURES_IN_A_CARD}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"README.md shows 'preview.png', which would be missing on the Hub"):
        publish(out)
    (out / "images").mkdir()
    for name in ("preview.png", "images/two rows.png", "unused.png"):
        Image.new("L", (8, 8)).save(out / name)
    publish(out, "--dry_run")
    assert "\npreview.png\nimages/two rows.png\ndata/" in capsys.readouterr().out
    publish(out)
    sent = hub.dataset(REPO).files
    assert {name for name in sent if name.endswith(".png")} == {"preview.png", "images/two rows.png"}
    assert sent["preview.png"] == (out / "preview.png").read_bytes()


@pytest.mark.parametrize("shown", ["../secret.png", "/etc/hostname", "notes.txt", "build_report.json"])
def test_a_card_shows_no_file_that_is_not_its_picture(study, built, tmp_path, hub, shown):
    built(study(), **OPEN)
    Image.new("L", (8, 8)).save(tmp_path / "secret.png")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    card = tmp_path / "out" / "README.md"
    card.write_text(f"{card.read_text(encoding='utf-8')}\n![]({shown})\n", encoding="utf-8")
    assert_refused(tmp_path / "out", hub, "would be missing on the Hub|paths of this machine")


@pytest.mark.parametrize("kind", ["exif", "text", "comment"])
def test_a_picture_with_metadata_is_not_sent(study, built, tmp_path, hub, kind):
    built(study(), **OPEN)
    out, image = tmp_path / "out", Image.new("L", (8, 8))
    exif, text = Image.Exif(), PngInfo()
    exif[0x010E] = "John Smith"
    text.add_text("Author", "John Smith")
    name = "preview.jpg" if kind == "comment" else "preview.png"
    image.save(out / name, **{"exif": {"exif": exif}, "text": {"pnginfo": text}, "comment": {"comment": "Smith"}}[kind])
    card = out / "README.md"
    card.write_text(f"{card.read_text(encoding='utf-8')}\n![]({name})\n", encoding="utf-8")
    assert_refused(out, hub, "has metadata, which may name someone")


@pytest.mark.parametrize("num_proc", ["0", "-1"])
def test_no_process_is_no_check(study, built, tmp_path, hub, num_proc):
    built(study(), **OPEN)
    with pytest.raises(ValueError, match=f"--num_proc must be at least 1, got {num_proc}"):
        publish(tmp_path / "out", "--dry_run", "--num_proc", num_proc)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"keep_ids": False}, "The data of the source folder have no stated licence.*--license"),
        (
            {"license": "cc-by-4.0", "keep_ids": True},
            r"did not pass the de-identification check: patient ids .*--keep_ids",
        ),
    ],
)
def test_what_the_build_knows_is_enough_to_refuse(study, built, tmp_path, hub, arguments, said):
    built(study(), **arguments)
    assert_refused(tmp_path / "out", hub, said)


def test_a_licence_that_forbids_it(study, built, tmp_path, hub):
    built(study(), **OPEN)
    change_report(
        tmp_path / "out",
        may_be_shared=False,
        source={"name": "rsna2024", "license": "other: non-commercial, no copies"},
    )
    assert_refused(
        tmp_path / "out", hub, r"licence of the source rsna2024 \(non-commercial, no copies\) forbids sharing"
    )


def name_someone_in(shard):
    named = datasets.Dataset.from_parquet(str(shard)).map(
        lambda row: {"report": "Patient name: Ahmad Salem. Disc bulge."}, load_from_cache_file=False
    )
    named.to_parquet(shard)


def test_rows_are_looked_at_again_as_they_lie_in_the_files(study, built, tmp_path, hub):
    """The report of the build says that it passed; the rules are better now, and a cache holds other rows."""
    rows = [
        {"file_name": f"images/{i}.png", "report": f"Bulge {i}.", "patient_id": f"p{i}", "labels": "LBP"}
        for i in range(12)
    ]
    built(study(rows), **OPEN)
    datasets.load_dataset(str(tmp_path / "out"))  # now in the cache, which would hide the change
    name_someone_in(next((tmp_path / "out" / "data").glob("train-*.parquet")))
    change_report(tmp_path / "out", shards=shard_digests(tmp_path / "out"))
    assert_refused(tmp_path / "out", hub, r"may name a person: \d+ passages \(train row 0, report: NAME;.*contain text")


def test_shards_that_were_not_built_are_named(study, built, tmp_path, hub):
    built(study(), **OPEN)
    data = tmp_path / "out" / "data"
    shard = next(data.glob("train-*.parquet"))
    whole = shard.read_bytes()
    name_someone_in(shard)
    assert_refused(tmp_path / "out", hub, rf"was changed after the build: data/{shard.name} was changed\. ")
    shard.rename(data / "extra.parquet")  # no split of the card: no check would read it, but it would be sent
    assert_refused(tmp_path / "out", hub, rf"data/extra\.parquet was added, data/{shard.name} was removed\. ")
    (data / "extra.parquet").unlink()
    shard.write_bytes(whole)
    publish(tmp_path / "out")


def test_a_leak_that_the_card_does_not_tell(study, built, tmp_path, hub):
    built(study(), **OPEN, split_by="record")
    card = tmp_path / "out" / "README.md"
    stamped = card.read_text()
    card.write_text(stamped.replace("**Leak.**", "Splits."))
    assert_refused(tmp_path / "out", hub, r"The splits of .* leak, and its card does not say so: \d+ patients")
    card.write_text(stamped)
    publish(tmp_path / "out")
    assert "**Leak.**" in hub.dataset(REPO).files["README.md"].decode()


def test_no_build_and_an_old_build(study, built, tmp_path, hub):
    assert_refused(tmp_path, hub, "is not a build: it has no build_report.json")
    built(study(), **OPEN)
    path = tmp_path / "out" / "build_report.json"
    report = json.loads(path.read_text())
    del report["deidentification"]
    path.write_text(json.dumps(report))
    assert_refused(tmp_path / "out", hub, "build_report.json lacks deidentification")


def build_and_push(raw, out, *words, source="folder"):
    words = ["--source", source, "--raw", str(raw), "--out", str(out), "--push_to_hub", REPO, *words]
    build.main(parse_arguments(BuildArguments, words))


def test_a_build_is_published_at_its_end_and_a_wrong_token_told_at_its_start(study, tmp_path, hub, monkeypatch):
    build_and_push(study(), tmp_path / "out", "--license", "cc-by-4.0")
    assert hub.dataset(REPO).messages == ["Publish v0.1"]
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: HfApi(endpoint=hub.endpoint, token="hf_wrong"))
    with pytest.raises(ValueError, match="The Hub refuses the token"):
        build_and_push(study(), tmp_path / "other", "--license", "cc-by-4.0")
    assert not (tmp_path / "other").exists()


def test_the_next_build_is_published_under_a_tag_of_its_own(study, tmp_path, hub, capsys):
    build_and_push(study(), tmp_path / "out", "--license", "cc-by-4.0")
    seen = len(hub.requests)
    for tag, said in (
        ("v0.1", r"study already has a version v0\.1, .*: give another --tag\."),
        ("v 2", "--tag 'v 2' is not a tag"),
    ):
        with pytest.raises(ValueError, match=said):
            build_and_push(study(), tmp_path / "next", "--license", "cc-by-4.0", "--tag", tag)
    assert all(line.startswith("GET") for line in hub.requests[seen:]) and not (tmp_path / "next").exists()
    build_and_push(study(num_patients=15), tmp_path / "next", "--license", "cc-by-4.0", "--tag", "v0.2")
    assert hub.dataset(REPO).messages == ["Publish v0.1", "Publish v0.2"]
    assert set(hub.dataset(REPO).tags) == {"v0.1", "v0.2"} and "Published as v0.2" in capsys.readouterr().out


def test_a_tag_is_of_no_use_to_a_build_that_stays_here(study, built):
    with pytest.raises(ValueError, match="--tag v0.2 names the version that --push_to_hub publishes; give that, too"):
        built(study(), tag="v0.2")


@pytest.mark.parametrize(
    "source, words, said",
    [
        ("folder", [], "The data of the source folder have no stated licence.*--license"),
        ("rsna2024", [], r"licence of the source rsna2024 \(non-commercial use, .*\) forbids sharing"),
        (
            "folder",
            ["--license", "cc-by-4.0", "--keep_ids"],
            r"not pass the de-identification check: patient ids were kept \(--keep_ids\)",
        ),
    ],
)
def test_what_no_row_can_change_is_refused_before_the_build(tmp_path, hub, source, words, said):
    with pytest.raises(ValueError, match=said):
        build_and_push(tmp_path / "never_looked_at", tmp_path / "out", *words, source=source)
    assert not hub.requests and not list(tmp_path.iterdir())


def test_rows_that_may_name_someone_are_built_and_stay_here(study, tmp_path, hub):
    raw = study()
    image = Image.new("L", (200, 100))
    ImageDraw.Draw(image).text((4, 4), "SALEM 12.3.61", fill=255, font_size=16)
    for patient in (4, 7):
        image.save(raw / f"images/{patient}_T2.png")
    with pytest.raises(ValueError, match="did not pass the de-identification check: images that may contain text: 2"):
        build_and_push(raw, tmp_path / "out", "--license", "cc-by-4.0")
    assert not hub.repositories and all(line.startswith("GET") for line in hub.requests)
    assert datasets.load_dataset(str(tmp_path / "out"))["train"].num_rows


def test_a_build_that_the_hub_did_not_take_names_the_command_that_sends_it(study, tmp_path, hub):
    hub.misbehave("/commit/", status=403)
    with pytest.raises(ValueError, match="is built, but was not published: This token may not write") as left:
        build_and_push(study(), tmp_path / "out", "--license", "cc-by-4.0", "--tag", "v0.2")
    command = re.search(r"`python -m data_scripts\.publish_dataset (.*?)`", str(left.value))
    publish_dataset.main(parse_arguments(PublishDatasetArguments, shlex.split(command[1])))
    assert set(hub.dataset(REPO).tags) == {"v0.2"}


LOAD = """
from datasets import load_dataset
whole, streamed = load_dataset("lumbar-lab/study"), load_dataset("lumbar-lab/study", streaming=True)
def plain(row):
    return {**row, "image": (row["image"].mode, row["image"].size, row["image"].tobytes()), "mask": None}
assert set(whole) == set(streamed) == {"train", "validation", "test"}
for split in whole:
    rows = [plain(row) for row in whole[split]]
    assert rows and rows == [plain(row) for row in streamed[split]], split
print([whole[split]["report"][:] for split in whole])
"""


@pytest.mark.slow
def test_a_stranger_loads_and_streams_the_rows_that_were_built(study, built, tmp_path, hub):
    built(study(), **OPEN)
    publish(tmp_path / "out")
    (tmp_path / "cwd").mkdir()
    environment = {**os.environ, **hub.environment(tmp_path / "home")}
    environment["HF_DATASETS_CACHE"] = str(tmp_path / "cache")
    done = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=tmp_path / "cwd", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    local = datasets.load_dataset(str(tmp_path / "out"))
    assert done.stdout.splitlines()[-1] == str([local[split]["report"][:] for split in local])
