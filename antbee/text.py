"""Makes untrusted text safe to show: on one line, in a terminal or in Markdown."""

import re

_HARMLESS = "|".join(
    [
        r"[,%]",
        r"(?<=[^\W_])(?:[-_/']|(?<![wW])\.)(?=[^\W_])",  # between letters or digits
        r"(?<=[^\W_]|[%)])(?:[:;/']|(?<![wW])\.)(?=\s|$)",  # at the end of a word
        r"(?<!\S)[(.](?=[^\W_])",  # at its start
        r"(?<=[^\W_%])\)",
        r"(?<=\s)-(?=\d)",
    ]
)


def as_text(value: object, longest: int = 100) -> str:
    """A value escaped for Markdown and HTML, on one line of at most `longest` characters before escaping.

    Punctuation becomes numeric character references, which are never parsed as markup
    (https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references). Left as it is, so that sentences can
    be read in the source too, is what stands as in a sentence (`_HARMLESS`), except after "www", which would be a link,
    and after a number at the start, which would be a list.
    """
    line = one_line(str(value), longest=longest)
    line = re.sub(rf"(?!{_HARMLESS})[!-/:-@\[-`{{-~]", lambda found: f"&#{ord(found[0])};", line)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", lambda found: f"{found[1]}&#{ord(found[2])};", line)


def counted(count: int, noun: str) -> str:
    """A number with its noun, as in "1 photo" and "2,000 photos"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def printable(name: object) -> str:
    """A file or class name of any length, on one line that any terminal can show."""
    return one_line(str(name), longest=4096)


def one_line(text: str, longest: int = 200) -> str:
    """Text on one line: white space collapsed, unprintable characters escaped, cut at `longest` characters.

    Unprintable are terminal control codes, characters that change the text direction, and the surrogates in file names
    that are not UTF-8.
    """
    line = " ".join(text.split())
    printable = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    return printable if len(printable) <= longest else f"{printable[: longest - 3]}..."
