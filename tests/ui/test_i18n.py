"""What the page says: every text in both languages, none too many and none too few."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from types import SimpleNamespace
from typing import get_args

import pytest

from antbee.data.transforms import Fit
from antbee.models.config import MODES
from antbee.training.background import Status
from antbee.ui.i18n import CHINESE, ENGLISH, label, translations, translator_of
from antbee.ui.texts import en, zh

TEXTS = {key: (text, zh.TEXTS[key]) for key, text in en.TEXTS.items()}
ROOT = Path(__file__).resolve().parents[2] / "antbee"
FILES = [path for path in sorted((ROOT / "ui").rglob("*.py")) if path.stem != "i18n" and path.parent.name != "texts"]
TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}


def literals(tree: ast.AST) -> set[str]:
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


# Keys whose last part is a value of another module's, by what stands before it.
NAMED_ELSEWHERE = {
    "mode.": MODES,
    "train.": get_args(Status),
    "inside.tensor.": get_args(Fit),
    "report.": literals(ast.parse((ROOT / "evaluation" / "report.py").read_text("utf-8"))),
}


def beginnings(tree: ast.AST) -> set[str]:
    """What keys that are put together begin with: "report.photos." of f"report.photos.{name}"."""
    texts = [node.values[0] for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) and node.values]
    return {text.value for text in texts if isinstance(text, ast.Constant)}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """The calls that a text is asked for with, and how."""
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                asked = ast.unparse(node.func)
                if asked in ("translate", "label") or asked.startswith("translator_of("):
                    yield asked, node


def keys_of(call: ast.Call) -> set[str]:
    """The keys that a call names in full: both of one that chooses between two."""
    key = call.args[0]
    choices = [key.body, key.orelse] if isinstance(key, ast.IfExp) else [key]
    return {one.value for one in choices if isinstance(one, ast.Constant)}


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_a_text_has_both_languages_with_the_same_fields_and_no_space_around() -> None:
    for key, texts in TEXTS.items():
        assert len(texts) == 2, key
        assert all(text and text == text.strip() for text in texts), key
        english, chinese = map(fields, texts)
        assert english == chinese, key
        assert all(name.isidentifier() for name in english), f"{key}: values are given by name"


def test_a_text_is_english_in_its_first_language_and_chinese_in_its_second_but_for_terms_and_formulas() -> None:
    signs = {key: [re.search(r"[\u4e00-\u9fff]", text) is not None for text in texts] for key, texts in TEXTS.items()}
    assert [key for key, (english, _) in signs.items() if english] == []
    assert {key for key, (_, chinese) in signs.items() if not chinese} <= {
        "inside.logit",
        "inside.softmax",
        "report.of",
    }


def test_both_languages_have_the_same_keys() -> None:
    assert list(en.TEXTS) == list(zh.TEXTS)


def test_every_text_is_used_somewhere() -> None:
    said = {text for tree in TREES.values() for text in literals(tree)}
    for tree in TREES.values():
        for beginning in beginnings(tree):
            said |= {f"{beginning}{rest}" for rest in (*literals(tree), *NAMED_ELSEWHERE.get(beginning, ()))}
    assert sorted(set(TEXTS) - said) == []


def test_every_text_that_is_asked_for_is_there() -> None:
    named = {key for _, call in calls() for key in keys_of(call)}
    assert len(named) > 50
    assert sorted(named - set(TEXTS)) == []


def test_every_text_is_given_the_values_that_it_has_fields_for() -> None:
    for _, call in calls():
        if any(keyword.arg is None for keyword in call.keywords):
            continue  # of a dictionary's keys nothing is known here
        for key in keys_of(call):
            assert {keyword.arg for keyword in call.keywords} == fields(TEXTS[key][0]), f"{key}, line {call.lineno}"


def test_what_the_browser_translates_has_nothing_to_fill_in() -> None:
    labels = {key for asked, call in calls() if asked == "label" for key in keys_of(call)}
    assert len(labels) > 20
    assert [key for key in labels if fields(TEXTS[key][0])] == []


def test_a_translator_fills_in_values_and_refuses_unknown_keys_and_missing_values() -> None:
    assert ENGLISH("batches.draw", epoch=3) == "epoch 3"
    assert CHINESE("batches.draw", epoch=3) == "第 3 个 epoch"
    with pytest.raises(KeyError):
        ENGLISH("batches.draw")
    with pytest.raises(KeyError):
        ENGLISH("batches.nothing")
    with pytest.raises(KeyError):
        label("batches.nothing")


def test_a_value_in_braces_is_a_value_and_no_field() -> None:
    assert ENGLISH("batches.is", truth="{epoch}") == "is: {epoch}"


def test_the_browser_has_every_text_in_both_languages() -> None:
    tables = translations().translations
    assert tables["en"] == {key: english for key, (english, _) in TEXTS.items()}
    assert tables["zh-CN"] == tables["zh"] == {key: chinese for key, (_, chinese) in TEXTS.items()}


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("zh", CHINESE),
        ("zh-CN", CHINESE),
        ("ZH-cn,en;q=0.5", CHINESE),
        ("zh-TW;q=0.9,en;q=0.8", CHINESE),
        (" zh-Hans-SG, zh;q=0.9", CHINESE),
        ("en", ENGLISH),
        ("en-GB,zh;q=0.9", ENGLISH),
        ("de-DE,de;q=0.9", ENGLISH),
        ("*", ENGLISH),
        ("", ENGLISH),
    ],
)
def test_the_language_is_the_one_that_a_browser_asks_for_first(accepted: str, expected: object) -> None:
    assert translator_of(SimpleNamespace(headers={"accept-language": accepted})) is expected


def test_whoever_asks_for_no_language_is_spoken_to_in_english() -> None:
    assert translator_of(None) is ENGLISH
    assert translator_of(SimpleNamespace(headers={})) is ENGLISH
