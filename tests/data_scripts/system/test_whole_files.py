import json
import os

import pytest

from data_scripts.system.whole_files import read_json, unfinished_file, write_folder, write_json, write_text
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
