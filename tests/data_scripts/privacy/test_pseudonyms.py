import errno
import hashlib
import hmac
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from pydicom.uid import UID

from data_scripts.privacy.pseudonyms import Pseudonyms, holds_date

KEY = bytes(range(32))


def test_pseudonyms_are_keyed_and_stable_in_a_fresh_process():
    pseudonyms = Pseudonyms(KEY)
    expected = hmac.new(KEY, b"study:0001", hashlib.sha256).hexdigest()[:16]
    assert pseudonyms.of("0001", prefix="study") == f"study-{expected}"
    assert pseudonyms.of("0001") != Pseudonyms(bytes(32)).of("0001") != Pseudonyms.random().of("0001")
    code = f"from data_scripts.privacy.pseudonyms import Pseudonyms; print(Pseudonyms({KEY!r}).of('0001'))"
    fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == pseudonyms.of("0001")
    assert repr(KEY) not in repr(pseudonyms)


def test_many_ids_do_not_collide_and_uids_are_valid():
    pseudonyms = Pseudonyms(KEY)
    assert len({pseudonyms.of(str(number)) for number in range(50_000)}) == 50_000
    uids = {pseudonyms.of_uid(f"1.2.{number}") for number in range(2_000)}
    assert len(uids) == 2_000 and all(UID(uid).is_valid for uid in uids)


def test_the_key_file_is_made_private_and_read_again(tmp_path, monkeypatch):
    path = tmp_path / "study.key"
    first = Pseudonyms.from_file(path)
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o644)  # copied, perhaps
    with monkeypatch.context() as patched:
        patched.setattr(Path, "chmod", Mock(side_effect=OSError(errno.EROFS, "Read-only file system")))
        assert Pseudonyms.from_file(path) == first
    assert Pseudonyms.from_file(path) == first
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("no key\n")
    with pytest.raises(ValueError, match="contains no pseudonym key"):
        Pseudonyms.from_file(path)
    path.write_text("abcd\n")
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Pseudonyms.from_file(path)


def test_two_processes_that_make_the_key_at_once_get_one(tmp_path, monkeypatch):
    """The file is never seen without its key: whoever comes second, however late it looked, takes the first's."""
    path = tmp_path / "study.key"
    first = []
    link = os.link

    def after_another(source, target):
        if not first:
            first.append(None)  # the other process runs while this one is about to write
            first[0] = Pseudonyms.from_file(path)
        link(source, target)

    monkeypatch.setattr(os, "link", after_another)
    assert Pseudonyms.from_file(path) == first[0]
    assert path.stat().st_mode & 0o077 == 0 and [found.name for found in tmp_path.iterdir()] == ["study.key"]


@pytest.mark.parametrize("name", ["LSS_20160309_091629_240000", "a/2016-03-09/b.png", "20160309", "MR20160309.091629x"])
def test_dates_in_names_are_replaced_and_names_stay_apart(name):
    pseudonyms = Pseudonyms(KEY)
    assert holds_date(name)
    replaced = pseudonyms.of_dates_in(name)
    assert "0309" not in replaced and "091629" not in replaced and not holds_date(replaced)
    assert replaced == pseudonyms.of_dates_in(name) != pseudonyms.of_dates_in(name.replace("09", "08"))


@pytest.mark.parametrize(
    "name", ["9003175L.png", "T1_0001_D3.png", "2016.png", "20161399", "120160309", "384_0005_001.ima"]
)
def test_other_numbers_stay(name):
    assert not holds_date(name)
    assert Pseudonyms(KEY).of_dates_in(name) == name
