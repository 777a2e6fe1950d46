"""Text of others, made fit to be shown in one line or in Markdown."""

import re


def as_text(value: object, longest: int = 100) -> str:
    """A value as Markdown that shows it letter by letter, on one line of at most `longest` characters.

    Punctuation becomes character references, which neither Markdown nor HTML takes for markup
    (https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references). A comma or % means nothing to them,
    nor does a hyphen, underscore, slash or full stop between letters, but for the www. that becomes a link: those stay.
    """
    harmless = r"[,%]|(?<=[^\W_])(?:[-_/]|(?<![wW])\.)(?=[^\W_])"
    punctuation = r"[!-/:-@\[-`{-~]"
    line = one_line(str(value), longest=longest)
    return re.sub(f"(?!{harmless}){punctuation}", lambda found: f"&#{ord(found[0])};", line)


def printable(name: object) -> str:
    """A name from somebody's folder, on one line that any terminal can show."""
    return one_line(str(name), longest=4096)


def one_line(text: str, longest: int = 200) -> str:
    """Text with runs of white space as one space and unprintable characters as escapes, cut at `longest` characters.

    Unprintable are terminal codes, characters that change the reading direction, and the surrogates that stand for the
    bytes of file names that are not UTF-8.
    """
    line = " ".join(text.split())
    printable = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
    return printable if len(printable) <= longest else f"{printable[: longest - 3]}..."
