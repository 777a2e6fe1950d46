"""What a run writes its own readers accept, for any names and numbers: config, history, card, list of exclusions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from configs import CONFIG
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import file_names

from antbee.data.exclusions import exclusion_line, read_exclusions
from antbee.data.listing import SkippedFile
from antbee.hub.card import card_without_figures
from antbee.models.config import CONFIG_FILE, HISTORY_FILE, DataInfo, read_config, read_history
from antbee.training.history import Epoch, EpochMetrics, History

# Names as a file system may hold them: any bytes, and what would be markup, a comment or another line.
ODD = [
    "#",
    '"',
    "\n",
    "\r",
    "\u2028",
    "---",
    "| a |",
    "{{ a }}",
    "<b>",
    " ",
    "é",
    "e\u0301",
    "\udcff",
    ": ",
    "- ",
    "null",
]
NAMES = file_names(ODD)
CLASSES = st.lists(NAMES.filter(str.strip), min_size=2, max_size=4, unique=True)
FILES = st.builds(SkippedFile, NAMES.filter(str.strip), NAMES.filter(str.strip))
LOSSES = st.floats(min_value=0, max_value=3e38, allow_subnormal=True)
SHARES = st.floats(min_value=0, max_value=1)
METRICS = st.builds(EpochMetrics, LOSSES, SHARES, LOSSES)
EPOCHS = st.builds(Epoch, st.integers(1, 10**9), LOSSES, METRICS, METRICS)
any_input = settings(derandomize=True, deadline=None, max_examples=60, database=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@any_input
@given(CLASSES, st.lists(FILES, max_size=3), st.integers(0, 200), st.lists(NAMES.filter(str.strip), max_size=3))
def test_a_config_of_any_classes_and_any_left_out_files_is_read_back_equal(folder, classes, skipped, many, excluded):
    counts = dict.fromkeys(classes, 7)
    more = [SkippedFile(f"{number}.json", "a .json file, not a photo") for number in range(many)]
    data = DataInfo.listing(skipped + more, excluded, name="x", train=counts, val=counts, test=counts)
    config = replace(CONFIG, label_names=tuple(classes), data=data, metrics=None)
    (folder / CONFIG_FILE).write_text(json.dumps(config.to_json(), indent=1), "utf-8")
    assert read_config(folder) == config


@any_input
@given(CLASSES, st.lists(FILES, max_size=3))
def test_a_card_of_any_classes_and_any_left_out_files_is_one_that_the_hub_can_read(folder, classes, skipped):
    data = DataInfo.listing(
        skipped, [entry.file for entry in skipped], name=classes[0], train=dict.fromkeys(classes, 7)
    )
    config = replace(CONFIG, label_names=tuple(classes), data=data, metrics=None)
    (folder / "README.md").write_text(card_without_figures(config.to_json()), "utf-8")
    read = ModelCard.load(folder / "README.md")
    assert read.data.library_name == "timm"
    headings = [line for line in read.text.splitlines() if line.startswith("# ")]
    assert len(headings) == 1, "no name makes a heading of its own"


@any_input
@given(st.lists(EPOCHS, max_size=4))
def test_a_history_of_any_numbers_is_read_back_equal(folder, epochs):
    history = History(tuple(epochs))
    (folder / HISTORY_FILE).write_text(json.dumps(history.to_records()), "utf-8")
    assert History.from_records(read_history(folder)) == history


@any_input
@given(st.lists(NAMES, max_size=5))
def test_a_list_of_exclusions_of_any_files_is_read_back_equal(folder, names):
    lines = "".join(f"# a reason\n{exclusion_line(name)}\n" for name in names)
    (folder / "list.txt").write_text(lines, "utf-8", errors="surrogateescape")
    assert read_exclusions(folder / "list.txt") == names
