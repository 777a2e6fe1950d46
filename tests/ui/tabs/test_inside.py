"""Inside: the steps show the model's own values, in both languages."""

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
from page_helpers import registry_of, write_model

from antbee import Classifier, ui
from antbee.data.drawn import draw
from antbee.data.transforms import Preprocessing, pixels_of
from antbee.models.backbone import count_parameters, head_of
from antbee.models.weights import StartingWeights, build_network
from antbee.ui.components import Choice
from antbee.ui.i18n import CHINESE
from antbee.ui.registry import LoadedModel
from antbee.ui.tabs.inside import CHANNELS, MOST_NAMES, Step, inside_tab, steps_of

PHOTO = draw("bees", 3, 200).resize((200, 150))
TIMES, MINUS = "\N{MULTIPLICATION SIGN}", "\N{MINUS SIGN}"
OWN = Preprocessing(crop=64, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.2))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, ...]:
    outputs = tmp_path_factory.mktemp("outputs")
    folders = [write_model(outputs / mode, mode, seed=seed) for seed, mode in enumerate(("frozen", "finetune"))]
    return ui.load_models(folders, device="cpu")


@pytest.fixture(scope="module")
def model(models: tuple[LoadedModel, ...]) -> LoadedModel:
    return models[0]


@pytest.fixture(scope="module")
def steps(model: LoadedModel) -> list[Step]:
    return steps_of(PHOTO, model)


def changed(model: LoadedModel, **config: Any) -> LoadedModel:
    """A model with the same weights and another config."""
    return replace(model, classifier=Classifier(model.classifier.network, replace(model.config, **config)))


def column(step: Step, place: int) -> list[str]:
    return step.table.iloc[:, place].tolist()


# ---- the steps -------------------------------------------------------------------------------------------------------


def test_there_are_six_steps_from_the_photo_to_the_prediction(steps: list[Step]) -> None:
    headings = [step.text.partition("\n")[0] for step in steps]
    assert headings == [
        "## A photo and its label",
        "## From the photo to a tensor",
        "## Normalisation",
        "## Stage by stage",
        "## 512 features",
        "## From the features to the prediction",
    ]


def test_the_chinese_texts_have_the_same_numbers(model: LoadedModel, steps: list[Step]) -> None:
    for english, chinese in zip(steps, steps_of(PHOTO, model, CHINESE), strict=True):
        assert re.search(r"[\u4e00-\u9fff]", chinese.text)
        assert sorted(re.findall(r"\d+\.\d+", chinese.text)) == sorted(re.findall(r"\d+\.\d+", english.text))
        assert [len(one.pictures) for one in chinese.galleries] == [len(one.pictures) for one in english.galleries]
        if english.table is not None:
            assert chinese.table.shape == english.table.shape
            assert not set(chinese.table.columns) & set(english.table.columns) - {"logit", "softmax"}


def test_every_picture_has_a_caption(steps: list[Step]) -> None:
    captions = [caption for step in steps for gallery in step.galleries for _, caption in gallery.pictures]
    assert len(captions) == 1 + 2 + 3 + 5 * CHANNELS
    assert all(captions)


def test_class_indices_are_those_of_the_models_logits(steps: list[Step]) -> None:
    assert "numbers ants = 0, bees = 1." in steps[0].text
    assert steps[0].galleries[0].pictures[0][1] == f"200 {TIMES} 150 pixels"


def test_only_the_first_of_many_classes_are_named(model: LoadedModel) -> None:
    network = build_network("resnet18", 30, StartingWeights("random"), seed=0)
    config = replace(model.config, label_names=tuple(f"kind {number}" for number in range(30)))
    text = steps_of(PHOTO, replace(model, classifier=Classifier(network, config)))[0].text
    assert f"kind {MOST_NAMES - 1} = {MOST_NAMES - 1}, …." in text
    assert f"kind {MOST_NAMES}" not in text


def test_the_permuted_tensor_equals_the_crop(model: LoadedModel, steps: list[Step]) -> None:
    picture, _ = steps[1].galleries[0].pictures[1]
    assert picture.tobytes() == model.classifier.crop(PHOTO).tobytes()
    assert column(steps[1], 1) == ["(96, 96, 3)", "(3, 96, 96)"]
    assert column(steps[1], 2) == ["uint8", "float32"]


def test_the_pixel_of_the_picture_and_of_the_tensor_are_equal(model: LoadedModel, steps: list[Step]) -> None:
    whole, fractions = ([float(value) for value in cell.split(", ")] for cell in column(steps[1], 4))
    assert tuple(whole) == model.classifier.crop(PHOTO).getpixel((48, 48))
    assert fractions == pytest.approx([value / 255 for value in whole], abs=0.0051)


def test_the_photo_is_darkened_outside_the_crop(model: LoadedModel, steps: list[Step]) -> None:
    cut, _ = steps[1].galleries[0].pictures[0]
    assert cut.size == PHOTO.size
    assert cut.getpixel((0, 0)) == tuple(value // 3 for value in PHOTO.getpixel((0, 0)))
    assert cut.getpixel((100, 75)) == PHOTO.getpixel((100, 75))


def test_a_large_photo_is_downsized(model: LoadedModel) -> None:
    large = PHOTO.resize((2000, 1500))
    first, second, *_ = steps_of(large, model)
    assert first.galleries[0].pictures[0][1] == f"2000 {TIMES} 1500 pixels"
    assert max(first.galleries[0].pictures[0][0].size) == max(second.galleries[0].pictures[0][0].size) == 640
    assert large.size == (2000, 1500)


def test_normalisation_uses_the_models_mean_and_std(model: LoadedModel) -> None:
    step = steps_of(PHOTO, changed(model, preprocessing=OWN))[2]
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


def test_the_stages_parameters_add_up_to_the_networks(model: LoadedModel, steps: list[Step]) -> None:
    network = model.classifier.network
    counts = [[int(cell.replace(",", "")) for cell in column(steps[3], place)] for place in (2, 3, 4)]
    assert [sum(column[:-1]) for column in counts] == [column[-1] for column in counts]
    assert counts[0][-1] == counts[2][-1] == count_parameters(network, trainable=False)
    assert counts[1][-1] == counts[1][-2] == count_parameters(head_of(network), trainable=False)


def test_every_stage_has_its_shape_and_a_description(steps: list[Step]) -> None:
    names = ["input", "act1", "layer1", "layer2", "layer3", "layer4", "pooling", "head", "all"]
    assert column(steps[3], 0) == names
    assert column(steps[3], 1)[1] == "(1, 64, 48, 48)"
    assert column(steps[3], 5)[1:3] == ["ReLU", "2 BasicBlock"]
    assert all(column(steps[3], 5)[:-1])


def test_tensors_are_counted_in_the_network_and_residual_blocks_named_where_there_are_some(
    model: LoadedModel, steps: list[Step]
) -> None:
    assert "backbone of resnet18" in steps[3].text
    assert "a **residual network** of 8 blocks" in steps[3].text
    assert f"{len(model.classifier.network.state_dict())} tensors" in steps[3].text
    assert "the weights here: random" in steps[3].text


def test_the_strongest_channels_of_every_stage_are_shown(steps: list[Step]) -> None:
    titles = [gallery.title for gallery in steps[3].galleries]
    assert titles == [
        f"act1: 8 of 64 channels, 48 {TIMES} 48",
        f"layer1: 8 of 64 channels, 24 {TIMES} 24",
        f"layer2: 8 of 128 channels, 12 {TIMES} 12",
        f"layer3: 8 of 256 channels, 6 {TIMES} 6",
        f"layer4: 8 of 512 channels, 3 {TIMES} 3",
    ]
    assert all(len(gallery.pictures) == CHANNELS for gallery in steps[3].galleries)


def test_the_bars_are_the_features_and_the_largest_is_the_first_channel_shown_of_layer4(
    model: LoadedModel, steps: list[Step]
) -> None:
    features = torch.tensor(steps[4].bars["value"].tolist())
    torch.testing.assert_close(features, model.classifier.features([PHOTO])[0], rtol=1e-4, atol=1e-5)
    assert steps[4].bars["number"].tolist() == list(range(512))
    strongest = int(features.argmax())
    assert f"number {strongest}, {float(features.max()):.2f}." in steps[4].text
    assert steps[3].galleries[-1].pictures[0][1].startswith(f"channel {strongest}, ")


def test_the_prediction_is_that_of_classifier_predict(model: LoadedModel, steps: list[Step]) -> None:
    prediction = model.classifier.predict([PHOTO])[0]
    answer = steps[5]
    assert f"The prediction is **{prediction.label}**" in answer.text
    assert column(answer, 1) == ["ants", "bees"]
    probabilities = [float(cell) for cell in column(answer, 3)]
    assert probabilities == pytest.approx(list(prediction.probabilities.values()), abs=1e-4)
    logits = np.array([float(cell) for cell in column(answer, 2)])
    assert probabilities == pytest.approx(list(np.exp(logits) / np.exp(logits).sum()), abs=1e-3)
    assert f"{logits.max():.3f} at class index {logits.argmax()}" in answer.text


def test_the_loss_is_shown_for_the_two_most_probable_classes(steps: list[Step]) -> None:
    losses, probabilities = ([float(cell) for cell in column(steps[5], place)] for place in (4, 3))
    assert losses == pytest.approx([-math.log(probability) for probability in probabilities], abs=1e-3)
    for loss, probability in zip(losses, probabilities, strict=True):
        assert f"{MINUS}log {probability:.4f} = {loss:.3f}" in steps[5].conclusion


def test_markup_in_names_is_escaped(model: LoadedModel) -> None:
    model = changed(model, label_names=("<b>ants", "[bees](x)"), weights={"name": "`a`.pth"})
    text = "\n".join(f"{step.text}\n{step.conclusion}" for step in steps_of(PHOTO, model))
    assert "<b>" not in text
    assert "](x)" not in text
    assert "`a`" not in text
    assert "&#60;b&#62;ants = 0" in text


def test_weights_without_a_name_are_unknown(model: LoadedModel) -> None:
    assert "the weights here: unknown" in steps_of(PHOTO, changed(model, weights={}))[3].text


# ---- the tab ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An uploaded photo as Gradio sends it to handlers."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    PHOTO.save(tmp_path / "photo.png")
    return {"path": str(tmp_path / "photo.png")}


def handlers(models: tuple[LoadedModel, ...]) -> dict[str, Callable[..., Any]]:
    """The handlers of the tab's events by name; calls check the number of outputs."""
    with gr.Blocks(analytics_enabled=False) as page:
        chosen, version, photo = gr.Dropdown([]), gr.State(0), gr.Image()
        choice = Choice(chosen, version, [page.load, chosen.change, version.change])
        with gr.Tab("inside") as tab:
            inside_tab(registry_of(models, None), choice, photo, tab)

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
    message, picked, column, *filled = tab["show"](upload, ["finetune", "frozen"], None)
    assert (message.visible, picked.value, column.visible) == (False, "frozen", True)
    assert [name for name, _ in picked.choices] == ["frozen", "finetune"]
    assert (filled[0], filled[-1]) == (steps[0].text, steps[5].conclusion)


def test_the_picked_model_is_shown(
    tab: dict[str, Callable[..., Any]], models: tuple[LoadedModel, ...], upload: dict[str, str]
) -> None:
    filled = tab["show"](upload, ["frozen", "finetune"], "finetune")
    assert filled[1].value == "finetune"
    assert filled[-1] == steps_of(PHOTO, models[1])[5].conclusion


def test_the_first_model_replaces_one_that_is_no_longer_loaded(
    tab: dict[str, Callable[..., Any]], upload: dict[str, str]
) -> None:
    assert tab["show"](upload, ["finetune"], "frozen")[1].value == "finetune"


def test_a_single_model_needs_no_choice(tab: dict[str, Callable[..., Any]], upload: dict[str, str]) -> None:
    assert not tab["show"](upload, ["frozen"], None)[1].visible


def test_without_a_photo_or_a_model_a_message_says_what_to_do(
    tab: dict[str, Callable[..., Any]], upload: dict[str, str]
) -> None:
    for show, given, expected in ((tab["show"], None, "No photo yet"), (handlers(())["show"], upload, "No model yet")):
        message, _, column, *_ = show(given, None, None)
        assert message.visible
        assert expected in message.value
        assert not column.visible


def test_nothing_is_computed_before_the_tab_is_opened(
    tab: dict[str, Callable[..., Any]], upload: dict[str, str]
) -> None:
    assert tab["update"](upload, ["frozen"], None) == gr.skip()
    assert isinstance(tab["update"](upload, ["frozen"], "frozen"), list)


def test_a_file_that_is_not_a_photo_is_an_error_with_a_message(
    tab: dict[str, Callable[..., Any]], upload: dict[str, str]
) -> None:
    Path(upload["path"]).write_text("no photo")
    with pytest.raises(gr.Error, match="can't be used"):
        tab["show"](upload, None, None)
