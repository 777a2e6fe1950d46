"""The README's Python runs as it stands there."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from quick_training import quickening

import antbee
from antbee.data.drawn import draw, write_drawn_set
from antbee.training import context

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_python_of_the_readme_runs_as_it_stands_there(tmp_path, monkeypatch, capsys):
    program = re.search(r"```python\n(import antbee\n.*?)```", README.read_text("utf-8"), re.DOTALL)[1]
    assert 10 <= len(program.splitlines()) <= 14
    write_drawn_set(tmp_path / "my_photos", train={"ants": 4, "bees": 4}, val={"ants": 2, "bees": 2}, longest_side=64)
    draw("ants", seed=1, longest_side=64).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    for change in quickening():
        monkeypatch.setattr(*change)
    recipe = context.RECIPES_FROM_RANDOM["fast"]
    short = replace(recipe, finetune=replace(recipe.finetune, epochs=1))
    monkeypatch.setattr(context, "RECIPES_FROM_RANDOM", {"fast": short})
    monkeypatch.setattr(context, "home", lambda: tmp_path)  # where outputs/ is
    choose = context.choose_network

    def without_a_network(backbone, weights):
        assert (backbone, weights) == (None, None)  # what is named is never replaced
        return choose(None, "random")

    monkeypatch.setattr(context, "choose_network", without_a_network)
    names: dict[str, object] = {}
    exec(compile(program, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "accuracy  " in printed
    assert (tmp_path / "why.png").exists()
    assert {path.name for path in (tmp_path / "outputs").iterdir()} >= {"frozen", "finetune"}
    assert names["answer"].label in ("ants", "bees")
    assert isinstance(names["model"], antbee.Classifier)


@pytest.mark.parametrize("name", antbee.__all__)
def test_every_name_of_the_package_can_be_used_and_is_documented(name):
    value = getattr(antbee, name)
    assert isinstance(value, str) or value.__doc__
    assert name in dir(antbee)


def test_a_name_that_the_package_lacks_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        antbee.nonsense  # noqa: B018
