import json
import os
import shutil
import stat

import pytest

from data_scripts.system.whole_files import (
    follow_umask,
    read_json,
    unfinished_file,
    write_folder,
    write_json,
    write_private_json,
    write_text,
)
from tests.data_scripts.system.killed_processes import outcomes_of_kills


def test_a_name_that_is_not_text_is_written_and_read_again(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    write_json(tmp_path / "list.json", {name: "written"})
    assert json.loads((tmp_path / "list.json").read_text(encoding="utf-8")) == {name: "written"}
    write_text(tmp_path / "report.md", name)
    assert (tmp_path / "report.md").read_text() == r"caf\udce9.png"


def test_an_interrupted_file_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), unfinished_file(tmp_path / "file") as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "folder", interrupt_after_a_file)
    assert not list(tmp_path.iterdir())


def interrupt_after_a_file(folder):
    (folder / "file").write_text("half")
    raise KeyboardInterrupt


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b"\xff\xfe", b"[1]", b"null", b"{}", b"[" * 100_000])
def test_json_that_is_not_what_was_written(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json .*Start again\.") as raised:
        read_json(tmp_path / "run.json", "Start again.", ["a"])
    assert len(str(raised.value)) < 500


def test_a_folder_killed_at_any_step_is_whole_after_the_next_call(tmp_path):
    """Each file is of one version, and no call before it finds neither."""

    def fill(version):
        return lambda folder: [(folder / name).write_text(version) for name in ("a", "b")]

    def replace(folder):
        write_folder(folder / "figures", fill("new"))

    def prepare(folder):
        write_folder(folder / "figures", fill("old"))

    for folder in outcomes_of_kills(tmp_path, prepare, replace):
        with pytest.raises(ZeroDivisionError):
            write_folder(folder / "figures", lambda _: 1 / 0)
        assert {path.name: path.read_text() for path in (folder / "figures").iterdir()} in (
            {"a": "old", "b": "old"},
            {"a": "new", "b": "new"},
        )
        write_folder(folder / "figures", fill("newest"))
        assert [path.name for path in folder.iterdir()] == ["figures"]


@pytest.fixture(params=[0o022, 0o027, 0o002, 0o077], ids="{:03o}".format)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_written_folder_has_the_permissions_of_new_files(tmp_path, umask):
    """Also where a library or a copy gave others: safetensors 0600, a package that is installed read-only 0444."""

    def fill(folder):
        (folder / "part").mkdir()
        for name, mode in (("weights", 0o600), ("part/code.py", 0o444), ("tool.sh", 0o755), ("plain", 0o666 & ~umask)):
            (folder / name).write_text("content")
            (folder / name).chmod(mode)

    write_folder(tmp_path / "folder", fill)
    files = [path for path in (tmp_path / "folder").rglob("*") if path.is_file()]
    assert len(files) == 4 and {mode_of(path) for path in files} == {0o666 & ~umask}
    assert {mode_of(path) for path in (tmp_path / "folder", tmp_path / "folder" / "part")} == {0o777 & ~umask}


def test_permissions_of_what_a_link_points_to_stay(tmp_path, umask):
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "secret")
    shutil.copy(tmp_path / "secret", tmp_path / "folder" / "copy")
    follow_umask(tmp_path / "folder")
    follow_umask(tmp_path / "folder" / "copy")
    assert mode_of(tmp_path / "secret") == 0o600 and mode_of(tmp_path / "folder" / "copy") == 0o666 & ~umask
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["copy", "link"]


def test_a_private_file_is_its_owner_s_whatever_the_umask(tmp_path, umask):
    write_private_json(tmp_path / "names.json", {"a": 1})
    write_json(tmp_path / "report.json", {"a": 1})
    assert mode_of(tmp_path / "names.json") == 0o600 and mode_of(tmp_path / "report.json") == 0o666 & ~umask
