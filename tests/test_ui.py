"""The page: its handlers as plain functions, its API over a real client, and all of it in a real browser."""

import json
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
import torch
from gradio_client import Client, handle_file
from huggingface_hub import constants
from PIL import Image, ImageChops
from safetensors.torch import save_file

from antbee import Classifier, model, ui
from antbee.classifier import ClassifierConfig, Neighbour
from antbee.data import open_photo, read_folder
from antbee.drawn import draw
from antbee.neighbours import build_bank

HISTORY = [
    {"epoch": epoch, "learning_rate": 0.1}
    | {f"{split}_{name}": epoch / 10 for split in ("train", "val") for name in ("loss", "accuracy", "seconds")}
    for epoch in (1, 2, 3)
]
RESULT = {"epoch": 2, "accuracy": 0.75, "loss": 0.5, "correct": 12, "count": 16, "interval": [0.51, 0.9]}
METRICS = {
    "kept": RESULT,
    "last": RESULT,
    "selected_on": "val",
    "confusion": [[6, 2], [2, 6]],
    "epochs": 3,
    "seconds": 1.5,
    "parameters": {"total": 11_177_538, "trainable": 1_026},
}


def write_model(folder, mode, seed, label_names=("ants", "bees"), bank=None, digest=None):
    network = model.build_network("resnet18", len(label_names), model.StartingWeights("random"), seed=seed)
    config = ClassifierConfig(
        "resnet18",
        label_names,
        mode=mode,
        data={
            "name": "drawn",
            "train": {"ants": 12, "bees": 12},
            "val": {"ants": 8, "bees": 8},
            "skipped": [],
            "digest": digest,
        },
        weights={"name": "random", "digest": None, "base_model": None},
        metrics=METRICS,
    )
    Classifier(network, config, bank).save_pretrained(folder)
    (folder / "history.json").write_text(json.dumps(HISTORY))
    return folder


@pytest.fixture(scope="module")
def photos(drawn_root):
    return read_folder(drawn_root)


@pytest.fixture(scope="module")
def models(photos, tmp_path_factory):
    """Both modes, untrained, as the page holds them; one of them takes everything for "neither"."""
    outputs = tmp_path_factory.mktemp("outputs")
    features = torch.rand(len(photos.train), 512, generator=torch.Generator().manual_seed(0))
    names, labels = photos.train.names(photos.root), torch.tensor(photos.train.labels)
    folders = [
        write_model(
            outputs / mode, mode, seed, bank=build_bank(features, labels, names, threshold), digest=photos.digest
        )
        for seed, (mode, threshold) in enumerate((("frozen", 1.9), ("finetune", 0.0)))
    ]
    return ui.load_models(folders, device="cpu")


# ---- what is loaded --------------------------------------------------------------------------------------------------


def test_models_are_called_by_their_modes_and_by_their_sources_where_modes_repeat(models, tmp_path):
    assert [shown.name for shown in models] == ["frozen", "finetune"]
    folders = [write_model(tmp_path / name / "frozen", "frozen", 0) for name in ("a", "b")]
    assert [shown.name for shown in ui.load_models(folders, device="cpu")] == ["a/frozen", "b/frozen"]
    twice = ui.load_models([folders[0], folders[0] / ".." / "frozen"], device="cpu")
    assert [shown.name for shown in twice] == ["a/frozen 1", "a/frozen 2"]


def test_a_model_of_somebody_elses_making_is_shown_beside_antbees_own(models, photos, tmp_path):
    network = model.build_network("resnet18", 2, model.StartingWeights("random"), seed=0)
    save_file(network.state_dict(), write_config(tmp_path / "pets", ["cat", "dog"]) / "model.safetensors")
    (tmp_path / "pets" / "history.json").write_text('{"loss": [1, 2]}')  # of a form of its own
    (foreign,) = ui.load_models([tmp_path / "pets"], device="cpu")
    assert foreign.name.endswith("/pets")
    assert foreign.history == ()
    assert "learned by transfer learning" not in foreign.card
    both = (foreign, models[0])
    ui.build_page(both, photos)
    assert ui.predict_handler(both)(draw("bees", 0, 100)).keys() == {foreign.name, "frozen"}
    drawn = ui.batch_handler(both, photos)("val", 4, 0)
    assert [title for title, grid in drawn if grid] == ["frozen: val batch 0"], "the other knows no ants and bees"


def write_config(folder, label_names):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet18", "label_names": label_names}))
    return folder


def test_class_names_that_are_no_valid_unicode_reach_a_browser_as_text(tmp_path):
    write_model(tmp_path / "m", "frozen", 0, ("ants", "b\udcff"))
    models = ui.load_models([tmp_path / "m"], device="cpu")
    answer = ui.predict_handler(models)(draw("bees", 0, 100))["frozen"]
    assert answer["probabilities"].keys() == {"ants", "b\\udcff"}
    assert json.dumps(answer, ensure_ascii=False).encode()


def test_a_card_is_written_from_the_config_without_front_matter_and_pictures_the_page_does_not_have(models):
    assert "library_name" not in models[0].card
    assert "![" not in models[0].card
    assert "## Results" in models[0].card


def test_a_folder_of_weights_and_config_alone_is_shown(tmp_path):
    write_model(tmp_path, "frozen", 0)
    (tmp_path / "history.json").unlink()
    (shown,) = ui.load_models([tmp_path], device="cpu")
    assert shown.history == ()
    assert "It predicts: ants, bees." in shown.card


def test_drawn_pictures_and_random_weights_are_announced(models):
    drawn, random = ui.notices(models)
    assert "frozen and finetune learned from pictures that a program drew" in drawn
    assert "Random weights" in random


# ---- handlers --------------------------------------------------------------------------------------------------------


def test_classify_gives_the_crop_and_every_models_verdict_probabilities_map_and_neighbours(models, photos):
    photo = draw("ants", 1, 320)
    crop, *answers = ui.classify_handler(models, photos)(photo)
    assert crop.size == (224, 224)
    assert len(answers) == 8
    assert "like those learned from" in answers[0]
    assert answers[4].startswith("**Neither.**")
    for shown, probabilities, heat, neighbours in zip(models, answers[1::4], answers[2::4], answers[3::4], strict=True):
        nearest = shown.classifier.explain(photo).neighbours
        assert [caption for _, caption in neighbours] == [f"{one.label} {one.distance:.2f}" for one in nearest]
        assert probabilities == pytest.approx(shown.classifier.predict([photo])[0].probabilities, abs=1e-5)
        assert heat.size == photo.size
        assert ImageChops.difference(heat, photo).getbbox() is not None


def test_without_a_photo_every_place_is_empty(models):
    assert ui.classify_handler(models, None)(None) == [None] * 9


def test_a_neighbour_is_never_a_file_from_outside_the_folder_that_is_shown(photos, tmp_path):
    draw("ants", 0, 64).save(tmp_path / "private.png")
    named = [*photos.train.names(photos.root)[:1], "../private.png", str(tmp_path / "private.png"), "val/../x.png"]
    neighbours = [Neighbour(name, "ants", 0.5) for name in named]
    assert len(ui.neighbour_pictures(neighbours, photos)) == 1
    assert ui.neighbour_pictures(neighbours, None) == []


def test_photos_of_the_same_names_in_another_folder_are_not_those_learned_from(models, photos):
    others = replace(photos, digest="f" * 64)
    *_, neighbours = ui.classify_handler(models[:1], others)(draw("ants", 1, 320))
    assert neighbours == []


def test_a_training_photo_that_is_gone_costs_no_answer(models, photos, drawn_root):
    gone = replace(photos, train=replace(photos.train, paths=tuple(p / "gone" for p in photos.train.paths)))
    names = photos.train.names(photos.root)
    assert ui.neighbour_pictures([Neighbour(f"{names[0]}/gone", "ants", 0.1)], gone) == []


def test_without_a_limit_no_verdict_is_claimed(models):
    prediction = replace(models[0].classifier.predict([draw("ants", 0, 100)])[0], threshold=None)
    assert "too little is known" in ui.verdict_sentence(prediction)


def test_a_model_without_features_gives_no_verdict_but_its_answer(models, photos):
    alone = Classifier(models[0].classifier.network, models[0].config)
    _, verdict, probabilities, _, neighbours = ui.classify_handler([replace(models[0], classifier=alone)], photos)(
        draw("ants", 1, 320)
    )
    assert (verdict, neighbours) == ("", [])
    assert probabilities.keys() == {"ants", "bees"}


def test_predict_names_every_models_answer(models):
    photo = draw("bees", 2, 200)
    answers = ui.predict_handler(models)(photo)
    assert list(answers) == ["frozen", "finetune"]
    for shown in models:
        (prediction,) = shown.classifier.predict([photo])
        assert answers[shown.name] == {
            "label": prediction.label,
            "probabilities": prediction.probabilities,
            "verdict": prediction.verdict,
            "distance": prediction.distance,
            "threshold": prediction.threshold,
        }
    assert answers["frozen"]["verdict"] == answers["frozen"]["label"]
    assert answers["finetune"]["verdict"] == "neither"
    with pytest.raises(gr.Error, match="No photo came"):
        ui.predict_handler(models)(None)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_batch_hangs_on_its_seed(models, photos, split):
    draw_batch = ui.batch_handler(models, photos)
    grids = [[grid.tobytes() for _, grid in draw_batch(split, 4, seed) if grid] for seed in (0, 0, 1)]
    assert grids[0] == grids[1]
    assert grids[0] != grids[2]


def test_training_batches_fill_one_place_and_validation_batches_one_for_each_model(models, photos):
    draw_batch = ui.batch_handler(models, photos)
    assert [(title, grid is None) for title, grid in draw_batch("train", 4, 7)] == [
        ("train batch 7", False),
        ("", True),
    ]
    titles = [title for title, _ in draw_batch("val", 4, 7)]
    assert titles == ["frozen: val batch 7", "finetune: val batch 7"]


def test_validation_tiles_tell_the_answer_and_whether_it_is_right(models, photos, monkeypatch):
    drawn = []
    monkeypatch.setattr(ui.figures, "grid", lambda tiles: drawn.extend(tiles) or Image.new("RGB", (8, 8)))
    positions = torch.arange(len(photos.val))
    ui.answer_grid(models[0], photos, positions)
    predictions = models[0].classifier.predict([open_photo(path) for path in photos.val.paths])
    for tile, prediction, label in zip(drawn, predictions, photos.val.labels, strict=True):
        truth = photos.class_names[label]
        assert tile.right == (prediction.label == truth)
        assert tile.title.startswith(prediction.label)
        assert (f"is: {truth}" in tile.title) != tile.right


def test_batches_are_shown_before_any_model_is_trained(photos):
    for split in ("train", "val"):
        ((title, grid),) = ui.batch_handler((), photos)(split, 4, 0)
        assert title == f"{split} batch 0"
        assert grid is not None


def test_examples_take_the_classes_in_turn(photos):
    classes = [path.parent.name for path in ui.example_paths(photos)]
    assert classes == ["ants", "bees"] * 4


def test_every_curve_is_in_the_table_and_has_a_colour(models):
    table = ui.curve_table(models)
    assert len(table) == 2 * 3 * 2 * 2
    assert set(table["curve"]) == set(ui.curve_colours(models))
    assert set(table["quantity"]) == {"accuracy", "loss"}


# ---- the page over HTTP ----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def own_gradio(tmp_path, monkeypatch):
    """Gradio with a folder of this test's own for uploads, which it looks up when a page is built."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    # The client, not the page, would ask the Hub who is calling and tell Gradio that somebody does.
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@contextmanager
def serving(page):
    """The address of a page, on a free loopback port while the block lasts."""
    (address,) = ui.launch(page, host="127.0.0.1", port=free_port(), share=False)
    yield address
    page.close(verbose=False)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture
def served(models, photos):
    """The address of the page with both models."""
    with serving(ui.build_page(models, photos)) as url:
        yield url


@pytest.fixture
def client(served, tmp_path):
    return Client(served, verbose=False, download_files=str(tmp_path / "downloads"), analytics_enabled=False)


@pytest.mark.parametrize("language", ["python", "sh"])
def test_the_readmes_ways_to_ask_the_page_answer_as_the_classifier_does(served, models, tmp_path, language):
    if language == "sh" and (shutil.which("bash") is None or shutil.which("curl") is None):
        pytest.skip("needs bash and curl")
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
    (code,) = (code for code in re.findall(rf"```{language}\n(.*?)```", readme, re.DOTALL) if "7860" in code)
    photo = draw("bees", 0, 200)
    photo.save(tmp_path / "photo.jpg", quality=95)
    command = {"python": [sys.executable, "-c"], "sh": ["bash", "-c"]}[language]
    asked = code.replace("http://127.0.0.1:7860", served.rstrip("/"))
    ended = subprocess.run([*command, asked], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    for shown in models:
        (prediction,) = shown.classifier.predict([open_photo(tmp_path / "photo.jpg")])
        for name, probability in prediction.probabilities.items():
            assert re.search(rf"['\"]{name}['\"]: {re.escape(f'{probability:.6f}'[:6])}", ended.stdout), ended.stdout


def test_the_api_has_one_endpoint_that_says_what_it_is_for(client):
    (endpoint,) = client.view_api(return_format="dict")["named_endpoints"].items()
    name, told = endpoint
    assert name == "/predict"
    assert [parameter["parameter_name"] for parameter in told["parameters"]] == ["photo"]
    assert "Says what is in a photo" in str(client.config["dependencies"])


def test_the_api_answers_as_the_classifier_does(client, models, tmp_path):
    path = tmp_path / "photo.png"
    draw("ants", 5, 300).save(path)
    answers = client.predict(handle_file(path), api_name="/predict")
    for shown in models:
        (prediction,) = shown.classifier.predict([open_photo(path)])
        assert answers[shown.name]["label"] == prediction.label
        assert answers[shown.name]["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-6)


def test_predict_is_the_only_public_endpoint(client):
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/predict"]


@pytest.mark.parametrize("content", [b"", b"no photo at all", b"\x89PNG\r\n\x1a\n cut", b"<svg/>"])
def test_what_is_no_photo_gets_a_sentence_with_a_remedy(client, tmp_path, content):
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(Exception, match=r"This file can't be used: .*Try a JPEG or PNG photo") as raised:
        client.predict(handle_file(tmp_path / "photo.jpg"), api_name="/predict")
    assert str(tmp_path) not in str(raised.value)


def test_the_page_opens_without_a_model_and_says_how_to_train_one(photos):
    with serving(ui.build_page((), photos)) as url:
        client = Client(url, verbose=False, analytics_enabled=False)
        texts = [part["props"].get("value") for part in client.config["components"]]
    assert any("python scripts/train.py" in str(text) for text in texts)


def test_the_page_opens_without_photos_and_says_how_to_name_them(models):
    page = ui.build_page(models, None)
    texts = [str(part["props"].get("value")) for part in page.get_config_file()["components"]]
    assert any("python app.py --data DIR" in text for text in texts)


def test_class_names_that_are_markup_are_no_markup(tmp_path, photos):
    names = ("<img src=x onerror=alert(1)>", "**bees**")
    write_model(tmp_path, "frozen", 0, names)
    shown = ui.load_models([tmp_path], device="cpu")
    _, _, probabilities, *_ = ui.classify_handler(shown, None)(draw("ants", 0, 100))
    assert set(probabilities) == set(names)  # gr.Label shows its labels as text
    assert "<img src=x" not in shown[0].card


# ---- the page in a real browser --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium or Chrome that is installed here."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((path for name in names if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip("no Chromium or Chrome here: install one to have the page tried in a browser")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=executable, args=arguments)
        yield running
        running.close()


def test_a_visitor_classifies_a_photo_draws_batches_and_reads_the_report(served, browser, models, photos, tmp_path):
    page = browser.new_page()
    requests, problems = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(served)

    # A first example is answered without a click; then the visitor's own photo is.
    answers = page.locator("[data-testid='label-output-value']")
    answers.nth(1).wait_for()
    photo = tmp_path / "bee.jpg"
    draw("bees", 9, 400).save(photo)
    for shown in models:
        assert page.get_by_text(f"{shown.name}: probabilities").count() == 1
    page.get_by_label("Remove Image").first.click()
    answers.first.wait_for(state="detached")
    page.locator("input[type=file]").first.set_input_files(str(photo))
    answers.nth(1).wait_for()
    expected = [shown.classifier.predict([open_photo(photo)])[0].label for shown in models]
    assert [text.strip() for text in answers.all_inner_texts()] == expected
    page.get_by_text("This photo is like none that was learned from").wait_for()
    nearest = models[0].classifier.explain(open_photo(photo)).neighbours[0]
    page.get_by_text(f"{nearest.label} {nearest.distance:.2f}").first.wait_for()

    page.get_by_role("tab", name="Batches").click()
    page.get_by_alt_text("train batch 0").wait_for()
    page.get_by_role("button", name="New batch").click()
    page.get_by_alt_text("train batch 1").wait_for()
    page.get_by_label("val", exact=True).click()
    page.get_by_alt_text("finetune: val batch 1").wait_for()

    page.get_by_role("tab", name="Report").click()
    page.get_by_text("51.0% to 90.0%").locator("visible=true").first.wait_for()
    assert page.get_by_text("Learning curves: accuracy").count() == 1
    page.get_by_alt_text("Validation photos by true class and answer of frozen").wait_for()

    assert problems == []
    assert [url for url in requests if not url.startswith((served, "data:", "blob:"))] == []
    page.close()


def test_a_visitor_who_drops_a_text_file_reads_what_to_do(served, browser, tmp_path):
    (tmp_path / "notes.png").write_text("These are notes.")
    page = browser.new_page()
    page.goto(served)
    page.locator("[data-testid='label-output-value']").nth(1).wait_for()
    page.get_by_label("Remove Image").first.click()
    page.locator("input[type=file]").first.set_input_files(str(tmp_path / "notes.png"))
    page.get_by_text("Try a JPEG or PNG photo").first.wait_for()
    page.close()
