"""Fonts for class and file names in any script: which of those on this computer have the letters."""

import functools
import unicodedata
import warnings
from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any

from matplotlib.font_manager import FontEntry, FontPath, findSystemFonts, fontManager, get_font
from matplotlib.ft2font import FaceFlags

# matplotlib's default font has no Chinese, Japanese or Korean letters; of the fonts that have, these look best.
PREFERRED = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "PingFang SC",
    "Arial Unicode MS",
)
NO_LETTER = 0xFFFF  # never one, by https://www.unicode.org/faq/private_use.html#noncharacters
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
NO_FONTS = (OSError, RuntimeError, ValueError, LookupError)  # of addfont and get_font, for damaged files


@dataclass(frozen=True)
class Lettering:
    """Fonts that together have the letters of some texts, apart from the missing ones."""

    families: tuple[str, ...]
    missing: frozenset[str]  # unprintable ones too

    def drawable(self, text: str, longest: int) -> str:
        """`text` with at most `longest` characters, and a replacement character for each that no font has."""
        text = text if len(text) <= longest else text[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
        return "".join(REPLACEMENT if letter in self.missing else letter for letter in text)

    @property
    def options(self) -> dict[str, Any]:
        """Options of a text with names; matplotlib would parse text between dollar signs as a formula."""
        return {"fontfamily": list(self.families), "parse_math": False}


def lettering_for(texts: Iterable[str]) -> Lettering:
    """The fonts for texts; warns where letters are in none, once for each script, with what to install.

    matplotlib lists the fonts of a computer when it first starts, and keeps the list for later starts too. So fonts
    that were installed since are looked for where letters are missing.
    """
    letters = {letter for text in texts for letter in text if letter != "\n"} | {"\N{HORIZONTAL ELLIPSIS}"}
    unprintable = {letter for letter in letters if not letter.isprintable()}
    families, missing = _families(letters - unprintable)
    if missing:
        _add_new_fonts()
        families, missing = _families(letters - unprintable)
    if missing:
        _warn(", ".join(sorted(set(map(_script, missing)))))
    return Lettering(families, missing | unprintable)


@functools.cache  # one figure says it for all
def _warn(scripts: str) -> None:
    warnings.warn(
        f"figures show {REPLACEMENT} in place of {scripts} letters, which no font on this computer has: install one, "
        "such as fonts-noto-cjk for Chinese, Japanese and Korean, and make the figures again",
        stacklevel=3,
    )


def _families(letters: Set[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The preferred font, those that have most of what the ones before lack, and the letters that none has."""
    first = next((entry for entry in fontManager.ttflist if entry.name == PREFERRED[0] and _is_regular(entry)), None)
    found, missing = [PREFERRED[0]], frozenset(letters) - (_letters_in(first, letters) if first else frozenset())
    having: dict[str, frozenset[str]] = {}
    for entry in fontManager.ttflist if missing else ():
        if entry.name not in having and _is_regular(entry):
            having[entry.name] = _letters_in(entry, missing)
    while missing and having:
        best = min(having, key=lambda name: (-len(having[name] & missing), _rank(name), name))
        if not (more := having.pop(best) & missing):
            break
        found.append(best)
        missing -= more
    return tuple(found), missing


def _is_regular(entry: FontEntry) -> bool:
    return (entry.weight, entry.style) == (400, "normal")


def _letters_in(entry: FontEntry, letters: Set[str]) -> frozenset[str]:
    try:
        font = get_font(FontPath(entry.fname, entry.index))
    except NO_FONTS:  # matplotlib's list of fonts has those too that were removed since
        return frozenset()
    # Pictures in place of letters are not drawn, and a font of last resort has a box for all, also for no letter.
    if font.face_flags & FaceFlags.COLOR or font.get_char_index(NO_LETTER):
        return frozenset()
    return frozenset(letter for letter in letters if font.get_char_index(ord(letter)))


def _rank(name: str) -> int:
    return PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)


def _add_new_fonts() -> None:
    """Adds the fonts that matplotlib does not know yet to those that it does, in this process."""
    known = {entry.fname for entry in fontManager.ttflist}
    for path in sorted(set(findSystemFonts()) - known):
        try:
            fontManager.addfont(path)
        except NO_FONTS:
            continue  # as matplotlib itself leaves it out


def _script(letter: str) -> str:
    """The script of a letter by the first word of its name in Unicode, as in Arabic; CJK are Chinese characters."""
    first = unicodedata.name(letter, "unknown").partition(" ")[0]
    return {"CJK": "Chinese"}.get(first, first.capitalize()) if letter.isalpha() else "special"
