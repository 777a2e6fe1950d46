"""Letters that matplotlib's own font lacks are looked for in all fonts, also in those that were installed later."""

import dataclasses
from pathlib import Path

import pytest
from matplotlib.font_manager import FontPath, fontManager, get_font

from antbee.evaluation import fonts
from antbee.evaluation.fonts import REPLACEMENT, Lettering, lettering_for
from antbee.evaluation.plots import confusion_matrix

# In DejaVu Serif, which comes with matplotlib, and not in the font that these tests take for matplotlib's default.
OWN, OTHER = "cmr10", "DejaVu Serif"
LETTER = "\N{GREEK SMALL LETTER ALPHA}"
UNKNOWN = "\N{CJK UNIFIED IDEOGRAPH-8682}"


@pytest.fixture(autouse=True)
def _nothing_was_said_yet():
    fonts._warn.cache_clear()
    yield
    fonts._warn.cache_clear()


@pytest.fixture
def known(monkeypatch):
    """The fonts that matplotlib knows, which are two of its own, without a search of this computer."""
    entries = [entry for entry in fontManager.ttflist if entry.name in (OWN, OTHER)]
    monkeypatch.setattr(fontManager, "ttflist", entries)
    monkeypatch.setattr(fonts, "PREFERRED", (OWN,))
    monkeypatch.setattr(fonts, "findSystemFonts", list)
    return entries


def file_of(entries, name):
    return next(entry for entry in entries if entry.name == name and (entry.weight, entry.style) == (400, "normal"))


def test_the_fonts_of_these_tests_differ_in_the_letter(known):
    own, other = (get_font(FontPath(file_of(known, name).fname, 0)) for name in (OWN, OTHER))
    assert not own.get_char_index(ord(LETTER))
    assert other.get_char_index(ord(LETTER))


def test_a_letter_that_the_first_font_lacks_is_taken_from_another(known):
    assert lettering_for(["ants", LETTER]) == Lettering((OWN, OTHER), frozenset())
    assert lettering_for([LETTER]).drawable(LETTER, 10) == LETTER


def test_a_font_that_was_installed_since_matplotlibs_first_start_is_found(known, monkeypatch, tmp_path):
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    path = file_of(known, OTHER).fname
    monkeypatch.setattr(fontManager, "ttflist", [entry for entry in known if entry.name == OWN])
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: [str(tmp_path / "damaged.ttf"), path])
    assert lettering_for([LETTER]) == Lettering((OWN, OTHER), frozenset())


def test_a_font_that_was_removed_since_is_passed_over(known, tmp_path):
    removed = dataclasses.replace(file_of(known, OWN), fname=str(tmp_path / "removed.ttf"), name="Removed")
    fontManager.ttflist.insert(0, removed)
    assert lettering_for([LETTER]) == Lettering((OWN, OTHER), frozenset())


def test_nothing_is_searched_for_where_no_letter_is_missing(known, monkeypatch):
    monkeypatch.setattr(fonts, "findSystemFonts", lambda: pytest.fail("searched"))
    assert lettering_for(["ants", LETTER, "tab\there"]).families == (OWN, OTHER)


def test_letters_that_no_font_has_are_said_once_with_what_to_install(known):
    with pytest.warns(UserWarning, match="figures show") as warned:
        found = lettering_for(["ants", UNKNOWN])
    (warning,) = warned
    assert str(warning.message) == (
        f"figures show {REPLACEMENT} in place of Chinese letters, which no font on this computer has: install one, "
        "such as fonts-noto-cjk for Chinese, Japanese and Korean, and make the figures again"
    )
    assert found.drawable(f"a{UNKNOWN}", 10) == f"a{REPLACEMENT}"
    assert lettering_for([UNKNOWN]).missing == {UNKNOWN}  # said already, and a warning would be an error here


@pytest.mark.parametrize("text", ["tab\there", "bad\udce4byte", "\u202eants"])
def test_what_is_no_letter_is_replaced_without_a_word(known, text):
    assert REPLACEMENT in lettering_for([text]).drawable(text, 20)


def test_the_figures_with_class_names_say_it_too(monkeypatch):
    entries = [entry for entry in fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(fontManager, "ttflist", entries)
    monkeypatch.setattr(fonts, "findSystemFonts", list)
    with pytest.warns(UserWarning, match="in place of Chinese letters"):
        confusion_matrix([[1, 0], [0, 1]], [UNKNOWN, "ants"])


def test_a_font_of_last_resort_which_has_a_box_for_every_letter_is_not_taken(known, monkeypatch):
    last = "Last Resort High-Efficiency"
    path = Path(file_of(known, OTHER).fname).with_name("LastResortHE-Regular.ttf")
    assert get_font(path).get_char_index(ord(UNKNOWN))
    entry = dataclasses.replace(file_of(known, OTHER), fname=str(path), name=last)
    monkeypatch.setattr(fontManager, "ttflist", [*known, entry])
    with pytest.warns(UserWarning, match="figures show"):
        assert lettering_for([UNKNOWN]).missing == {UNKNOWN}


def test_of_two_fonts_the_one_with_more_of_the_letters_goes_first(known, monkeypatch):
    few = dataclasses.replace(file_of(known, OWN), name="a font with nothing")
    monkeypatch.setattr(fontManager, "ttflist", [few, *known])
    assert lettering_for([LETTER]).families == (OWN, OTHER)
