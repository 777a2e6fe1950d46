"""Inside: what the steps tell of a photo and a model are that model's own numbers, in both languages."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
import torch
from exhibits import exhibition_of, write_model

from antbee import Classifier, ui
from antbee.data.drawn import draw
from antbee.data.transforms import Preprocessing, pixels_of
from antbee.models.backbone import build_network, count_parameters
from antbee.models.weights import StartingWeights
from antbee.ui.components import Choice
from antbee.ui.i18n import CHINESE
from antbee.ui.registry import LoadedModel
from antbee.ui.tabs.inside import CHANNELS, MOST_NAMES, Step, inside_tab, way
from antbee.ui.texts.en import TEXTS

PHOTO = draw("bees", 3, 200).resize((200, 150))
TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
OWN = Preprocessing(crop=64, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, ...]:
    outputs = tmp_path_factory.mktemp("outputs")
    folders = [write_model(outputs / mode, mode, seed=seed) for seed, mode in enumerate(("frozen", "finetune"))]
    return ui.load_models(folders, device="cpu")


@pytest.fixture(scope="module")
def shown(models: tuple[LoadedModel, ...]) -> LoadedModel:
    return models[0]


@pytest.fixture(scope="module")
def steps(shown: LoadedModel) -> list[Step]:
    return way(PHOTO, shown)


def changed(shown: LoadedModel, **config: Any) -> LoadedModel:
    """A model with the same weights and another config."""
    return replace(shown, classifier=Classifier(shown.classifier.network, replace(shown.config, **config)))


def column(step: Step, place: int) -> list[str]:
    return step.table.iloc[:, place].tolist()


# ---- the steps -------------------------------------------------------------------------------------------------------


def test_a_photo_goes_from_its_label_to_the_answer_in_six_steps(steps: list[Step]) -> None:
    headings = [step.told.partition("\n")[0] for step in steps]
    assert headings == [
        "## A photo and its label",
        "## From the photo to a tensor",
        "## Normalisation",
        "## Stage by stage",
        "## 512 features",
        "## From the features to the answer",
    ]


def test_the_same_numbers_are_told_in_chinese(shown: LoadedModel, steps: list[Step]) -> None:
    for english, chinese in zip(steps, way(PHOTO, shown, CHINESE), strict=True):
        assert re.search(r"[\u4e00-\u9fff]", chinese.told)
        assert sorted(re.findall(r"\d+\.\d+", chinese.told)) == sorted(re.findall(r"\d+\.\d+", english.told))
        assert [len(one.pictures) for one in chinese.galleries] == [len(one.pictures) for one in english.galleries]
        if english.table is not None:
            assert chinese.table.shape == english.table.shape
            assert not set(chinese.table.columns) & set(english.table.columns) - {"logit", "softmax"}


def test_every_picture_says_what_it_is(steps: list[Step]) -> None:
    captions = [caption for step in steps for gallery in step.galleries for _, caption in gallery.pictures]
    assert len(captions) == 1 + 2 + 3 + 5 * CHANNELS
    assert all(captions)


def test_the_class_indices_are_those_of_the_models_outputs(steps: list[Step]) -> None:
    assert "numbers ants = 0, bees = 1." in steps[0].told
    assert steps[0].galleries[0].pictures[0][1] == f"200 {TIMES} 150 pixels"


def test_of_many_classes_the_first_few_are_named(shown: LoadedModel) -> None:
    network = build_network("resnet18", 30, StartingWeights("random"), seed=0)
    config = replace(shown.config, label_names=tuple(f"kind {number}" for number in range(30)))
    told = way(PHOTO, replace(shown, classifier=Classifier(network, config)))[0].told
    assert f"kind {MOST_NAMES - 1} = {MOST_NAMES - 1}, …." in told
    assert f"kind {MOST_NAMES}" not in told


def test_the_tensor_permuted_is_the_crop_to_the_pixel(shown: LoadedModel, steps: list[Step]) -> None:
    picture, _ = steps[1].galleries[0].pictures[1]
    assert picture.tobytes() == shown.classifier.crop(PHOTO).tobytes()
    assert column(steps[1], 1) == ["(96, 96, 3)", "(3, 96, 96)"]
    assert column(steps[1], 2) == ["uint8", "float32"]


def test_a_picture_and_its_tensor_hold_the_same_pixel(shown: LoadedModel, steps: list[Step]) -> None:
    whole, fractions = ([float(value) for value in cell.split(", ")] for cell in column(steps[1], 4))
    assert tuple(whole) == shown.classifier.crop(PHOTO).getpixel((48, 48))
    assert fractions == pytest.approx([value / 255 for value in whole], abs=0.0051)


def test_the_photo_is_dark_where_the_crop_is_not(shown: LoadedModel, steps: list[Step]) -> None:
    cut, _ = steps[1].galleries[0].pictures[0]
    assert cut.size == PHOTO.size
    assert cut.getpixel((0, 0)) == tuple(value // 3 for value in PHOTO.getpixel((0, 0)))
    assert cut.getpixel((100, 75)) == PHOTO.getpixel((100, 75))


def test_a_large_photo_is_shown_small(shown: LoadedModel) -> None:
    large = PHOTO.resize((2000, 1500))
    first, second, *_ = way(large, shown)
    assert first.galleries[0].pictures[0][1] == f"2000 {TIMES} 1500 pixels"
    assert max(first.galleries[0].pictures[0][0].size) == max(second.galleries[0].pictures[0][0].size) == 640
    assert large.size == (2000, 1500)


def test_normalisation_is_told_in_the_models_own_numbers(shown: LoadedModel) -> None:
    step = way(PHOTO, changed(shown, preprocessing=OWN))[2]
    assert column(step, 1) == ["0.1", "0.2", "0.3"]
    assert column(step, 2) == ["0.5", "0.25", "0.2"]
    tensor = pixels_of([OWN.cropped(PHOTO)])[0] / 255
    for channel, mean, std, before, after in zip(
        tensor, OWN.mean, OWN.std, column(step, 3), column(step, 4), strict=True
    ):
        low, high = float(channel.min()), float(channel.max())
        assert before == f"{low:.2f} to {high:.2f}"
        assert after == f"{(low - mean) / std:.2f} to {(high - mean) / std:.2f}"
    assert [caption for _, caption in step.galleries[0].pictures] == [
        f"{name}: {after}" for name, after in zip(("red", "green", "blue"), column(step, 4), strict=True)
    ]


def test_the_stages_parameters_sum_to_the_networks(shown: LoadedModel, steps: list[Step]) -> None:
    network = shown.classifier.network
    counts = [[int(cell.replace(",", "")) for cell in column(steps[3], place)] for place in (2, 3, 4)]
    assert [sum(column[:-1]) for column in counts] == [column[-1] for column in counts]
    assert counts[0][-1] == counts[2][-1] == count_parameters(network, trainable=False)
    assert counts[1][-1] == counts[1][-2] == count_parameters(network.fc, trainable=False)


def test_every_stage_is_told_with_its_shape_and_what_it_does(steps: list[Step]) -> None:
    assert column(steps[3], 0) == [*[key.rpartition(".")[2] for key in TEXTS if key.startswith("inside.does.")], "all"]
    assert column(steps[3], 1)[1] == "(1, 64, 48, 48)"
    assert all(column(steps[3], 5)[:-1])


def test_depth_blocks_and_tensors_are_counted_in_the_network_itself(shown: LoadedModel, steps: list[Step]) -> None:
    assert "resnet18 is a **residual network** of 18 layers" in steps[3].told
    assert f"{len(shown.classifier.network.state_dict())} tensors" in steps[3].told
    assert "the weights here: random" in steps[3].told


def test_the_strongest_channels_of_every_stage_are_shown(steps: list[Step]) -> None:
    titles = [gallery.title for gallery in steps[3].galleries]
    assert titles == [
        f"conv1: 8 of 64 channels, 48 {TIMES} 48",
        f"layer1: 8 of 64 channels, 24 {TIMES} 24",
        f"layer2: 8 of 128 channels, 12 {TIMES} 12",
        f"layer3: 8 of 256 channels, 6 {TIMES} 6",
        f"layer4: 8 of 512 channels, 3 {TIMES} 3",
    ]
    assert all(len(gallery.pictures) == CHANNELS for gallery in steps[3].galleries)


def test_the_bars_are_the_features_and_the_largest_is_the_first_channel_shown_of_layer4(
    shown: LoadedModel, steps: list[Step]
) -> None:
    features = torch.tensor(steps[4].bars["value"].tolist())
    torch.testing.assert_close(features, shown.classifier.features([PHOTO])[0], rtol=1e-4, atol=1e-5)
    assert steps[4].bars["number"].tolist() == list(range(512))
    strongest = int(features.argmax())
    assert f"number {strongest}, {float(features.max()):.2f}:" in steps[4].told
    assert steps[3].galleries[-1].pictures[0][1].startswith(f"channel {strongest}, ")


def test_the_answer_is_the_one_that_the_other_tab_gives(shown: LoadedModel, steps: list[Step]) -> None:
    prediction = shown.classifier.predict([PHOTO])[0]
    answer = steps[5]
    assert f"The answer is **{prediction.label}**" in answer.told
    assert column(answer, 1) == ["ants", "bees"]
    told = [float(cell) for cell in column(answer, 3)]
    assert told == pytest.approx(list(prediction.probabilities.values()), abs=1e-4)
    logits = np.array([float(cell) for cell in column(answer, 2)])
    assert told == pytest.approx(list(np.exp(logits) / np.exp(logits).sum()), abs=1e-3)
    assert f"{logits.max():.3f} at class index {logits.argmax()}" in answer.told


def test_the_loss_is_told_for_the_answer_and_for_the_next_class(steps: list[Step]) -> None:
    losses, probabilities = ([float(cell) for cell in column(steps[5], place)] for place in (4, 3))
    assert losses == pytest.approx([-math.log(probability) for probability in probabilities], abs=1e-3)
    for loss, probability in zip(losses, probabilities, strict=True):
        assert f"{MINUS}log {probability:.4f} = {loss:.3f}" in steps[5].concluded


def test_names_from_a_folder_are_no_markup(shown: LoadedModel) -> None:
    shown = changed(shown, label_names=("<b>ants", "[bees](x)"), weights={"name": "`a`.pth"})
    told = "\n".join(f"{step.told}\n{step.concluded}" for step in way(PHOTO, shown))
    assert "<b>" not in told
    assert "](x)" not in told
    assert "`a`" not in told
    assert "&#60;b&#62;ants = 0" in told


def test_a_models_weights_that_nobody_named_are_unknown(shown: LoadedModel) -> None:
    assert "the weights here: unknown" in way(PHOTO, changed(shown, weights={}))[3].told


# ---- the tab ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A photo as the page's handlers get it."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    PHOTO.save(tmp_path / "photo.png")
    return {"path": str(tmp_path / "photo.png")}


def handlers(models: tuple[LoadedModel, ...]) -> dict[str, Callable[..., Any]]:
    """What the tab's events call, by name, each with its number of outputs checked."""
    with gr.Blocks(analytics_enabled=False) as page:
        chosen, version, photo = gr.Dropdown([]), gr.State(0), gr.Image()
        choice = Choice(chosen, version, [page.load, chosen.change, version.change])
        with gr.Tab("inside") as tab:
            inside_tab(exhibition_of(models, None), choice, photo, tab)

    def checked(event: Any) -> Callable[..., Any]:
        def call(*values: Any) -> Any:
            filled = event.fn(*values, None)
            assert not isinstance(filled, list) or len(filled) == len(event.outputs)
            return filled

        return call

    return {event.name: checked(event) for event in page.fns.values()}


@pytest.fixture(scope="module")
def tab(models: tuple[LoadedModel, ...]) -> dict[str, Callable[..., Any]]:
    return handlers(models)


def test_opening_the_tab_shows_the_first_model_chosen(
    tab: dict[str, Callable[..., Any]], steps: list[Step], upload: dict[str, str]
) -> None:
    missing, picked, way_column, *filled = tab["walk"](upload, ["finetune", "frozen"], None)
    assert (missing.visible, picked.value, way_column.visible) == (False, "frozen", True)
    assert [name for name, _ in picked.choices] == ["frozen", "finetune"]
    assert (filled[0], filled[-1]) == (steps[0].told, steps[5].concluded)


def test_the_model_picked_is_the_one_that_is_shown(
    tab: dict[str, Callable[..., Any]], models: tuple[LoadedModel, ...], upload: dict[str, str]
) -> None:
    filled = tab["walk"](upload, ["frozen", "finetune"], "finetune")
    assert filled[1].value == "finetune"
    assert filled[-1] == way(PHOTO, models[1])[5].concluded


def test_a_model_that_is_gone_gives_way_to_the_first_one(
    tab: dict[str, Callable[..., Any]], upload: dict[str, str]
) -> None:
    assert tab["walk"](upload, ["finetune"], "frozen")[1].value == "finetune"


def test_one_model_is_not_chosen_among(tab: dict[str, Callable[..., Any]], upload: dict[str, str]) -> None:
    assert not tab["walk"](upload, ["frozen"], None)[1].visible


def test_without_a_photo_or_without_a_model_it_is_said_what_to_do(
    tab: dict[str, Callable[..., Any]], upload: dict[str, str]
) -> None:
    for walk, given, told in ((tab["walk"], None, "No photo yet"), (handlers(())["walk"], upload, "No model yet")):
        missing, _, way_column, *_ = walk(given, None, None)
        assert missing.visible
        assert told in missing.value
        assert not way_column.visible


def test_nothing_is_computed_before_the_tab_was_opened(
    tab: dict[str, Callable[..., Any]], upload: dict[str, str]
) -> None:
    assert tab["walk_again"](upload, ["frozen"], None) == gr.skip()
    assert isinstance(tab["walk_again"](upload, ["frozen"], "frozen"), list)


def test_a_file_that_is_no_photo_is_refused_with_a_sentence(
    tab: dict[str, Callable[..., Any]], upload: dict[str, str]
) -> None:
    Path(upload["path"]).write_text("no photo")
    with pytest.raises(gr.Error, match="can't be used"):
        tab["walk"](upload, None, None)
