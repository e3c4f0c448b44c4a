import unicodedata

import pytest

from data_scripts.imaging.images import UnusableImageError
from data_scripts.sources.folder.names import find_file


@pytest.fixture
def raw(tmp_path):
    def make(*names):
        for name in names:
            path = tmp_path / "raw" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return tmp_path / "raw"

    return make


def nfd(text):
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize(
    ("on_disk", "in_table"),
    [
        ("img0.PNG", "img0.png"),
        ("img0.png", "IMG0.Png"),
        ("Images/A.png", "images/a.png"),
        (nfd("Müller 0.png"), "Müller 0.png"),
        ("Müller 0.png", nfd("Müller 0.png")),
        (nfd("Ärzte/é.png"), "Ärzte/é.png"),
        (nfd("MÜLLER.png"), "müller.PNG"),
        ("straße.png", "STRASSE.png"),
        ("images/a.png", "./images/a.png"),
        ("images/a.png", "images\\a.png"),
        ("images/A.png", ".\\Images\\\\a.png"),
        ("a.png", " a.png "),
        ("a .png ", "a .png"),
        ("a 1.png", "a\u00a01.png"),
        ("a  1.png", "a 1.png"),
    ],
)
def test_a_name_spelt_as_on_another_system(raw, on_disk, in_table):
    folder = raw(on_disk, "other.png")
    assert find_file(folder, in_table, "image").name == on_disk.rpartition("/")[2]


def test_the_exact_name_comes_first(raw):
    folder = raw("a.png", "A.png", "Ä.png", nfd("ä.png"))
    assert [find_file(folder, name, "image").name for name in ("a.png", "A.png")] == ["a.png", "A.png"]
    assert find_file(folder, nfd("Ä.png"), "image").name == "Ä.png"  # not the one in small letters
    assert find_file(folder, "ä.png", "image").name == nfd("ä.png")


@pytest.mark.parametrize(
    ("on_disk", "in_table"),
    [
        (("a.PNG", "A.png"), "a.png"),
        (("X/a.png", "x/A.png"), "X/A.PNG"),
        (("Ä.png", nfd("Ä.png")), "ä.png"),
    ],
)
def test_several_files_may_be_meant(raw, on_disk, in_table):
    with pytest.raises(UnusableImageError, match="may be .* or .*; write one of them into the table") as error:
        find_file(raw(*on_disk), in_table, "image")
    assert all(repr(name) in str(error.value) for name in on_disk)


def test_a_file_in_one_of_two_folders(raw):
    assert find_file(raw("X/a.png", "x/b.png"), "x/A.png", "image").name == "a.png"


@pytest.mark.parametrize("name", ["none.png", "a.jpg", "b/a.png", "a.png/x", "", ".", "..", "é" * 300, "a\0.png"])
def test_no_file_is_meant(raw, name):
    with pytest.raises(UnusableImageError, match="missing mask|lies outside"):
        find_file(raw("a.png"), name, "mask")


def test_nothing_outside_is_found(raw, tmp_path):
    folder = raw("a.png")
    (tmp_path / "Secret.png").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/Secret.png").write_bytes(b"")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("../secret.png", "../Secret.png", "link/secret.png", "LINK/Secret.png", "link", str(tmp_path)):
        with pytest.raises(UnusableImageError, match="missing image|lies outside"):
            find_file(folder, name, "image")


def test_a_folder_is_found_too(raw):
    folder = raw("Series 1/IM0")
    assert find_file(folder, "series 1", "image") == (folder / "Series 1").resolve()


def test_a_file_that_comes_later_is_found(raw):
    folder = raw("a.png")
    with pytest.raises(UnusableImageError):
        find_file(folder, "B.png", "image")
    raw("b.png")
    assert find_file(folder, "B.png", "image").name == "b.png"
