"""Makes untrusted text safe to show: on one line, in a terminal or in Markdown."""

import re


def as_text(value: object, longest: int = 100) -> str:
    """A value escaped for Markdown and HTML, on one line of at most `longest` characters before escaping.

    Punctuation becomes numeric character references, which are never parsed as markup
    (https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references). Left as they are: commas, percent
    signs, and hyphens, underscores, slashes and full stops between letters, except after "www", which would be a link.
    """
    harmless = r"[,%]|(?<=[^\W_])(?:[-_/]|(?<![wW])\.)(?=[^\W_])"
    punctuation = r"[!-/:-@\[-`{-~]"
    line = one_line(str(value), longest=longest)
    return re.sub(f"(?!{harmless}){punctuation}", lambda found: f"&#{ord(found[0])};", line)


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
