"""One photo, one answer: training, scripts, page, API, timm and transformers give the same probabilities."""

import csv
import json
from importlib import import_module

import pytest
import timm
import torch
import transformers
from gradio_client import Client, handle_file
from page_helpers import serving
from PIL import Image
from quick_training import quickening
from safetensors.torch import save_file

import antbee
from antbee import Classifier, ui
from antbee.data.folder import read_folder
from antbee.data.images import open_photo
from antbee.models.weights import StartingWeights, build_network
from antbee.training import trainer
from antbee.ui.predictions import PredictionCache
from antbee.ui.tabs.classify import classify

evaluate_module = import_module("antbee.training.evaluate")  # antbee.evaluate is its function
TOLERANCE = 1e-6  # of a probability; float32 rounds differently alone and in a batch


@pytest.fixture(scope="module")
def trained(drawn_root, tmp_path_factory):
    """Both modes, calibrated: the output folder, and the validation probabilities of the loop and of the run."""
    output, in_the_loop = tmp_path_factory.mktemp("parity"), []
    weights = output / "untrained.safetensors"
    network = build_network("resnet18", 1000, StartingWeights("random"), seed=5)
    save_file(network.state_dict(), weights)
    compute_rows = trainer.compute_rows

    def note(*arguments, **more):
        in_the_loop.append(compute_rows(*arguments, **more))
        return in_the_loop[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compute_rows", note)
        for change in quickening():
            patch.setattr(*change)
        settings = {"weights": str(weights), "device": "cpu", "precision": "float32", "epochs": 1, "output": output}
        run = antbee.train(drawn_root, **settings, log=lambda line: None)
    loops = {
        model.mode: (logits / model.metrics.calibration.temperature).softmax(1)
        for model, logits in zip(run.models, in_the_loop, strict=True)
    }
    return output, loops, {model.mode: model.val_logits.softmax(1) for model in run.models}


@pytest.mark.usefixtures("gradio_folder")
@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_a_photo_has_the_same_probabilities_wherever_it_is_asked(trained, drawn_root, tmp_path, mode):
    output, in_the_loop, in_training = trained
    folder, photos = output / mode, read_folder(drawn_root)
    paths = photos.val.paths
    expected = in_training[mode]
    assert json.loads((folder / "config.json").read_text())["antbee"]["metrics"]["calibration"]["temperature"] != 1

    answers = {
        "the training loop's evaluation": in_the_loop[mode],
        "Classifier.predict": predicted(folder, paths),
        "predict_files": from_predict_files(folder, photos, tmp_path),
        "evaluate": from_evaluate(folder, photos),
        "the page and its API": from_the_page(folder, photos, tmp_path),
        "timm": from_timm(folder, paths),
        "transformers": from_transformers(folder, paths),
    }
    for where, probabilities in answers.items():
        difference = float((probabilities - expected[: len(probabilities)]).abs().max())
        assert difference <= TOLERANCE, f"{where}: {difference}"


def predicted(folder, paths):
    holder = Classifier.from_pretrained(folder, device="cpu")
    answers = holder.predict([open_photo(path) for path in paths])
    return torch.tensor([list(answer.probabilities.values()) for answer in answers])


def from_predict_files(folder, photos, tmp_path):
    table = tmp_path / "answers.csv"
    antbee.predict_files(folder, photos.val.paths, csv=table)
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == list(map(str, photos.val.paths))
    return torch.tensor([[float(row[name]) for name in photos.class_names] for row in rows])


def from_evaluate(folder, photos):
    seen, evaluation_of = [], evaluate_module.evaluation_of

    def noting_logits(head, computed, *rest):
        seen.append(evaluate_module.logits_of(head, computed))
        return evaluation_of(head, computed, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_module, "evaluation_of", noting_logits)
        antbee.evaluate(folder, photos.val)
    return seen[0].softmax(1)


def from_the_page(folder, photos, tmp_path):
    """The handlers behind the tabs, and the API over HTTP, which must agree: the first three photos."""
    registry = ui.ModelRegistry(lambda: [folder], lambda models: photos, device="cpu")
    models, rows = registry.snapshot.models, []
    (looked,) = PredictionCache().get(registry.snapshot, None, lambda share: None)
    with serving(ui.build_page(registry)) as address:
        client = Client(address, verbose=False, download_files=str(tmp_path / "downloads"), analytics_enabled=False)
        for path, logits in zip(photos.val.paths[:3], looked.logits, strict=False):
            (answer,) = client.predict(handle_file(path), api_name="/predict").values()
            (shown,) = classify(open_photo(path), models, photos)
            assert shown.probabilities == pytest.approx(answer["probabilities"], abs=TOLERANCE)
            reported = dict(zip(photos.class_names, logits.softmax(0).tolist(), strict=True))
            assert reported == pytest.approx(answer["probabilities"], abs=TOLERANCE)
            rows.append([answer["probabilities"][name] for name in photos.class_names])
    return torch.tensor(rows)


def from_timm(folder, paths):
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network), is_training=False)
    with torch.inference_mode():
        images = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
        return network(images).softmax(1)


def from_transformers(folder, paths):
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        inputs = processor([Image.open(path).convert("RGB") for path in paths], return_tensors="pt")
        return network(**inputs).logits.softmax(1)
