"""The documentation: links lead somewhere, commands exist, the two READMEs say the same, the first one stays short."""

import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md")]
    + [path for folder in ("antbee", "docs", "scripts", "tests", ".github") for path in (ROOT / folder).rglob("*.md")]
)
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
LONGEST_README = 200  # lines
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)  # for the Hub; as Markdown it would be a heading

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def tokens(text: str) -> list[Token]:
    """Block tokens in order, each followed by the inline tokens in it."""
    blocks = MarkdownIt("commonmark").enable("table").parse(FRONT_MATTER.sub("", text))
    return [token for block in blocks for token in (block, *(block.children or ()))]


def links(text: str) -> list[str]:
    """The addresses of links and pictures that lead to files of the repository or to a heading of the same page."""
    addresses = [str(token.attrs.get("href") or token.attrs.get("src") or "") for token in tokens(text)]
    return [address for address in addresses if address and not re.match(r"[a-z]+:", address)]


def headings(text: str) -> list[tuple[str, str]]:
    """(level such as "h2", text) of each heading."""
    blocks = tokens(text)
    return [
        (block.tag, "".join(token.content for token in inline.children or ()))
        for block, inline in pairwise(blocks)
        if block.type == "heading_open"
    ]


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings in addresses: small letters, hyphens for spaces, no punctuation."""
    names: list[str] = []
    for _, heading in headings(text):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        names.append(name if (count := names.count(name)) == 0 else f"{name}-{count}")
    return set(names)


def code_blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of each fenced block."""
    return [(token.info, token.content) for token in tokens(text) if token.type == "fence"]


def broken_links(page: Path) -> list[str]:
    """The links of a page that lead to no file, or to no heading of it."""
    broken = []
    for link in links(page.read_text("utf-8")):
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    return broken


def missing_programs(text: str) -> list[str]:
    """The programs that a command line in a text would run and that do not exist."""
    lines = text.replace("\\\n", " ")
    named = re.findall(r"\b(?:python3?|torchrun) [^`\n]*?((?:[\w.-]+/)*[\w-]+\.py)\b", lines)
    return [program for program in named if not (ROOT / program).is_file()]


def test_there_is_documentation_to_test():
    assert {*READMES, ROOT / "CONTRIBUTING.md", ROOT / "docs" / "architecture.md"} <= set(PAGES)
    assert sum(len(links(page.read_text("utf-8"))) for page in PAGES) > 50


@every_page
def test_every_relative_link_leads_to_a_file_and_a_heading(page):
    assert broken_links(page) == []


def test_a_link_to_no_file_or_no_heading_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# One `two`: three\n\n# Twice\n\n# Twice\n", "utf-8")
    good = "[a](there.md) [b](there.md#one-two-three) [c](there.md#twice-1) [d](#头) [e](https://example.org/gone)"
    bad = "[f](gone.md) [g](there.md#gone) [h](#gone) ![i](gone.png)"
    (tmp_path / "page.md").write_text(f"# 头\n\n{good}\n\n| {bad} |\n|---|\n", "utf-8")
    assert broken_links(tmp_path / "page.md") == ["gone.md", "there.md#gone", "#gone", "gone.png"]


@every_page
def test_every_command_line_names_a_program_that_is_there(page):
    assert missing_programs(page.read_text("utf-8")) == []


def test_a_command_line_of_no_program_is_found():
    inline, block = "`python scripts/train.py --lr 1` `python scripts/gone.py`", "torchrun --nnodes 2 \\\n    gone.py"
    assert missing_programs(f"{inline}\n```\n{block}\n```\n") == ["scripts/gone.py", "gone.py"]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_a_readme_stays_short(readme):
    assert len(readme.read_text("utf-8").splitlines()) <= LONGEST_README


def test_the_readmes_have_the_same_headings_and_the_same_code_in_the_same_order():
    english, chinese = (readme.read_text("utf-8") for readme in READMES)
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(chinese)]
    assert code_blocks(english) == code_blocks(chinese)
    assert len(code_blocks(english)) > 5


@pytest.mark.parametrize(("readme", "other"), [READMES, READMES[::-1]], ids=lambda path: path.name)
def test_each_readme_links_the_other_on_its_first_line_below_the_title(readme, other):
    text = FRONT_MATTER.sub("", readme.read_text("utf-8"))
    title, first, *_ = (line for line in text.splitlines() if line)
    assert title.startswith("# ")
    assert first.endswith(f"]({other.name})")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda path: path.name)
def test_the_readme_links_every_page_of_the_documentation(page):
    for readme in READMES:
        assert f"](docs/{page.name}" in readme.read_text("utf-8"), readme.name


def test_the_architecture_page_lists_every_module():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    listed = set(re.findall(r"^ {2,}([\w./]+\.py)", text, re.MULTILINE))
    modules = {path.name for path in (ROOT / "antbee").rglob("*.py") if path.parent.name not in ("tabs", "texts")}
    assert modules <= listed
