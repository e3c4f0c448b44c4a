import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_scripts.system.staging import publish, staging_folder, staging_path
from data_scripts.system.worker_pool import Workers
from data_scripts.writing import dataset_build
from tests.data_scripts.built_folders import ROOT, bytes_of, leftovers


def test_an_interrupted_build_keeps_the_earlier_one(study, built, tmp_path, monkeypatch):
    raw = study()
    built(raw)
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset_build, "card_text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        built(raw, overwrite=True, seed=5)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    assert leftovers(tmp_path) == [".out.partial"]  # to go on from
    monkeypatch.undo()
    built(raw, overwrite=True, seed=5)
    assert leftovers(tmp_path) == []


def test_a_killed_build_leaves_no_half_dataset_and_is_resumed(study, built, tmp_path, monkeypatch):
    # The child stops just before the finished folder would be renamed, the latest moment to be killed at.
    code = (
        "import time; from data_scripts.build import main, run; from data_scripts.writing import dataset_build;"
        "dataset_build.publish = lambda *_: (print('staged', flush=True), time.sleep(600));"
        "run(main)"
    )
    raw = study()
    arguments = ["--source", "folder", "--raw", str(raw), "--out", str(tmp_path / "out"), "--keep_ids"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "study/.cache")}
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, env=environment, text=True
    ) as child:
        assert child.stdout.readline() == "staged\n"
        with pytest.raises(ValueError, match="another build of --out .* is running"):
            built(raw)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists() and leftovers(tmp_path) == [".out.partial"]

    built(raw, out=tmp_path / "uninterrupted")
    given = []
    run = Workers.run
    monkeypatch.setattr(
        Workers, "run", lambda self, write, parts, **kw: given.extend(parts) or run(self, write, parts, **kw)
    )
    built(raw)
    assert given == [] and leftovers(tmp_path) == ["uninterrupted"]
    assert bytes_of(tmp_path / "out/data") == bytes_of(tmp_path / "uninterrupted/data")


@pytest.mark.slow
@pytest.mark.parametrize("num_finished", [0, 2])
def test_killed_while_writing_images(tmp_path, num_finished):
    """Whenever it is killed, the same command ends with the same bytes, and goes on where it stopped."""

    def command(out):
        out = ["--out", str(tmp_path / out), "--num_proc", "2"]
        return [sys.executable, "-m", "data_scripts.build", "--source", "synthetic", "--num_patients", "24", *out]

    options = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "cwd": tmp_path, "text": True}
    subprocess.run(command("whole"), check=True, stderr=subprocess.DEVNULL, **options)
    parts = tmp_path / ".out.partial/parts"
    with subprocess.Popen(command("out"), stderr=subprocess.DEVNULL, **options) as child:
        while not parts.is_dir() or len(list(parts.glob("*.json"))) < num_finished:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    assert len(list(parts.glob("*.json"))) >= num_finished and not (tmp_path / "out").exists()
    done = subprocess.run(command("out"), check=True, stderr=subprocess.PIPE, **options)
    num_kept = int(re.search(r"(\d+)/144", done.stderr)[1])
    assert num_kept >= 21 * num_finished  # the parts hold 64 and 38 rows of train, 21 of validation, 21 of test
    assert bytes_of(tmp_path / "out/data") == bytes_of(tmp_path / "whole/data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_any_number_of_processes_gives_the_same_bytes(study, built, tmp_path):
    raw = study(num_patients=120)  # several parts
    (raw / "images/7_T1.png").write_bytes(b"broken")
    reports = [built(raw, out=tmp_path / f"by_{num_proc}", num_proc=num_proc) for num_proc in (1, 3)]
    assert bytes_of(tmp_path / "by_1/data") == bytes_of(tmp_path / "by_3/data")
    assert reports[0]["exclusions"] == reports[1]["exclusions"] and len(reports[0]["exclusions"]) == 1


def test_an_earlier_build_is_there_again_after_a_kill_between_the_renames(study, built, tmp_path):
    raw = study()
    built(raw)
    before = bytes_of(tmp_path / "out/data")
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / "out").rename(tmp_path / ".out.partial/earlier")
    with pytest.raises(ValueError, match="exists; choose another folder"):
        built(raw)
    assert bytes_of(tmp_path / "out/data") == before and leftovers(tmp_path) == []


def test_an_earlier_build_is_never_put_back_by_halves(study, built, tmp_path, monkeypatch):
    raw = study()
    built(raw)

    def killed_halfway(folder_path):
        next(path for path in sorted(folder_path.rglob("*")) if path.suffix == ".parquet").unlink()
        raise KeyboardInterrupt

    for patience in (1, 2):  # killed at the first removal of a folder, or at the one after it
        removals = []
        remove = shutil.rmtree

        def interrupted(path, *rest, patience=patience, removals=removals, remove=remove, **options):
            if Path(path).name in ("earlier", "replaced", ".out.partial"):
                removals.append(path)
                if len(removals) == patience:
                    killed_halfway(Path(path))
            remove(path, *rest, **options)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(shutil, "rmtree", interrupted)
            built(raw, overwrite=True, seed=5)
        assert built(raw, overwrite=True, seed=6)["rows_written"] == 24 and leftovers(tmp_path) == []

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", lambda path, **_: killed_halfway(Path(path)))
        publish(tmp_path / "study", tmp_path / "out", _staged(tmp_path))
    shutil.rmtree(tmp_path / "out")
    with staging_folder(tmp_path / "out"):
        assert not (tmp_path / "out").exists()  # half of it was deleted


def _staged(folder_path):
    staging_path(folder_path / "out").mkdir(exist_ok=True)
    return staging_path(folder_path / "out")
