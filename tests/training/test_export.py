"""antbee.export: a file with the logits of torch, metadata to feed it, and never written in part."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from antbee import Classifier, __version__, export
from antbee.data.folder import Split
from antbee.data.images import DataError
from antbee.data.loading import ImageLoader
from antbee.data.transforms import Preprocessing
from antbee.errors import InputError
from antbee.models import export as onnx_export
from antbee.models.backbone import feature_map, pooled
from antbee.models.config import ClassifierConfig
from antbee.models.export import ExportError, describe, largest_difference
from antbee.models.weights import StartingWeights, build_network
from antbee.training import evaluate
from antbee.training.export import balanced_subset

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).resolve().parents[2]
SMALL = Preprocessing(crop=64, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))  # one value for each channel


def untrained(architecture, label_names, images, preprocessing=SMALL):
    """A classifier with random weights; its logits are of usual size by the BatchNorm statistics of `images`."""
    network = build_network(architecture, len(label_names), StartingWeights("random"), seed=0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean over all images seen
    with torch.no_grad():
        network.train()(images)
    return Classifier(network, ClassifierConfig(architecture, label_names, preprocessing))


@pytest.fixture(scope="module")
def examples(photos):
    """The validation photos as images, and their labels."""
    val = ImageLoader(photos.val, SMALL)
    ((images, labels),) = val.batches([torch.arange(len(val))])
    return images, labels


@pytest.fixture(scope="module")
def classifier(examples):
    """A classifier fitted to the validation photos, three of them with the wrong label."""
    images, labels = examples
    classifier = untrained("resnet18", ("ants", "bees"), images)
    network = classifier.network
    with torch.no_grad():
        features = pooled(network, feature_map(network, images))
        centre = features.mean(0)
        fitted = torch.cat([1 - labels[:3], labels[3:]])
        directions = torch.linalg.lstsq(features - centre, 4.0 * torch.eye(2)[fitted] - 2).solution.T
        network.fc.weight.copy_(directions)
        network.fc.bias.copy_(-directions @ centre)
    return classifier


@pytest.fixture(scope="module")
def model_folder(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "finetune"
    classifier.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def both(model_folder, drawn_root, tmp_path_factory):
    """The result of an export to a float32 and an int8 file."""
    folder = tmp_path_factory.mktemp("both")
    return export(model_folder, onnx=folder / "float32.onnx", int8=folder / "int8.onnx", data=drawn_root)


@pytest.fixture(scope="module")
def exported(both):
    return both.onnx


def logits_of(file, images):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.get_inputs()
    assert (found.name, found.type, found.shape[1:]) == ("images", "tensor(float)", [3, 64, 64])
    (logits,) = session.run(None, {"images": np.asarray(images)})
    assert [output.name for output in session.get_outputs()] == ["logits"]
    return torch.from_numpy(logits)


def metadata_of(file):
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


def same_as_torch(classifier, file, images):
    for count in (1, 3):
        with torch.inference_mode():
            expected = classifier.network(images[:count])
        assert 0.1 < expected.abs().max() < 100, "a difference of 1e-4 would mean nothing"
        found = logits_of(file, images[:count])
        assert found.shape == (count, len(classifier.config.label_names))
        assert torch.allclose(found, expected, rtol=0, atol=1e-4)


def test_the_file_gives_the_logits_of_torch_for_one_photo_or_several(classifier, exported, examples):
    same_as_torch(classifier, exported, examples[0])


def test_so_does_another_network_of_other_classes_and_nothing_else_is_written_or_printed(examples, tmp_path, capfd):
    classifier = untrained("resnet34", tuple(f"class {index}" for index in range(7)), examples[0])
    file = tmp_path / "new" / "folder" / "model.onnx"
    result = export(classifier, onnx=file)
    assert capfd.readouterr() == ("", "")
    assert str(result) == f"written to {file}: its logits differ from torch's by {result.difference:.1e} at most"
    assert result.difference < 1e-3
    assert list(file.parent.iterdir()) == [file]
    assert metadata_of(file)["architecture"] == "resnet34"
    same_as_torch(classifier, file, examples[0])


@pytest.mark.parametrize("size", [(150, 101), (90, 160), (40, 50)])
def test_its_metadata_is_enough_to_predict_without_antbee(classifier, exported, size):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    metadata = metadata_of(exported)

    shorter, crop = int(metadata["resize_shorter_side"]), int(metadata["centre_crop"])
    width, height = (int(shorter * side / min(photo.size)) for side in photo.size)
    assert metadata["resize_antialias"] == "true", "which Pillow does"
    resized = photo.resize((width, height), Image.Resampling[metadata["resize_interpolation"].upper()])
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    assert (metadata["channel_order"], metadata["value_range"]) == ("RGB", "[0, 1]")
    values = np.asarray(resized.crop((left, top, left + crop, top + crop)), np.float32) / 255
    values = (values - np.float32(json.loads(metadata["mean"]))) / np.float32(json.loads(metadata["std"]))
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": values.transpose(2, 0, 1)[None]})[0]
    shares = np.exp(logits)
    shares /= shares.sum()

    (prediction,) = classifier.predict([photo])
    assert dict(zip(json.loads(metadata["labels"]), shares, strict=True)) == pytest.approx(
        prediction.probabilities, abs=1e-5
    )


def test_its_text_describes_the_preprocessing_and_its_metadata_the_version(exported):
    text = onnx.load(exported).doc_string
    for part in ("antbee", "RGB", "73 pixels", "bilinear", "64 x 64", "[0.4, 0.5, 0.6]", "[0.2, 0.25, 0.3]", "softmax"):
        assert part in text
    assert metadata_of(exported)["antbee_version"] == __version__


def test_metadata_follows_the_models_own_preprocessing_and_any_label_names():
    preprocessing = replace(SMALL, interpolation="bicubic", crop=48)
    config = ClassifierConfig(
        "resnet18", ("Ämse", 'bee "x"', "caf\udce9"), preprocessing
    )  # names of folders need not be Unicode
    program = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    describe(program, config)
    read = onnx.ModelProto.FromString(program.SerializeToString())
    metadata = {entry.key: entry.value for entry in read.metadata_props}
    assert (metadata["resize_interpolation"], metadata["centre_crop"], metadata["resize_shorter_side"]) == (
        "bicubic",
        "48",
        "54",
    )
    assert tuple(json.loads(metadata["labels"])) == config.label_names
    assert "bicubic" in read.doc_string


@pytest.mark.parametrize(
    ("fit", "entries", "words"),
    [
        ("squash", {"fit": "squash", "resize_both_sides": "64"}, "both sides resized to 64 pixels"),
        ("pad", {"fit": "pad", "resize_longer_side": "64", "padding": "[124, 116, 104]"}, "(124, 116, 104)"),
    ],
)
def test_metadata_and_text_say_how_photos_are_made_square(fit, entries, words):
    config = ClassifierConfig("resnet18", ("ants", "bees"), Preprocessing(crop=64, crop_pct=1.0, fit=fit))
    program = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    describe(program, config)
    metadata = {entry.key: entry.value for entry in program.metadata_props}
    assert metadata.items() >= entries.items()
    assert "resize_shorter_side" not in metadata
    assert words in program.doc_string


def test_the_file_needs_no_other_file_and_has_no_paths_of_this_machine(exported, classifier, examples, tmp_path):
    program = onnx.load(exported, load_external_data=False)
    assert not any(tensor.external_data for tensor in program.graph.initializer)
    same_as_torch(classifier, shutil.copy(exported, tmp_path / "alone.onnx"), examples[0])
    content = exported.read_bytes()
    for folder in (ROOT, sys.prefix, Path(torch.__file__).parents[1], Path.home()):
        assert f"{folder}/".encode() not in content


def test_int8_is_a_quarter_in_size_and_takes_any_number_of_photos(classifier, both, examples):
    (float32, int8), (images, _) = (both.onnx, both.int8), examples
    assert int8.stat().st_size < float32.stat().st_size / 3
    with torch.inference_mode():
        expected = classifier.network(images)
    for count in (1, 5):
        assert torch.allclose(logits_of(int8, images[:count]), expected[:count], rtol=0, atol=0.3)
    program = onnx.load(int8, load_external_data=False)
    assert {opset.domain for opset in program.opset_import} == {""}, "standard operators only"
    weights = [t for t in program.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    assert len(weights) == 20, "every convolution"
    assert [node.op_type for node in program.graph.node if "logits" in node.output] == ["Gemm"], "in float32"
    assert all(np.abs(onnx.numpy_helper.to_array(tensor)).max() <= 64 for tensor in weights), "seven bits"


def test_the_metadata_of_int8_adds_its_quantisation(both):
    float32, int8 = metadata_of(both.onnx), metadata_of(both.int8)
    assert int8 == float32 | {"quantisation": "int8, calibrated with 24 training photos of drawn"}
    assert onnx.load(both.onnx).doc_string == onnx.load(both.int8).doc_string


def test_accuracy_and_agreement_of_both_files_are_given_and_printed(classifier, both, examples):
    *_, head, first, second = str(both).splitlines()
    assert head.split()[:2] == ["file", "MB"]
    images, labels = examples
    with torch.inference_mode():
        expected = classifier.network(images).argmax(1)
    assert (expected == labels).sum() == 13
    for file, row, found in zip((both.onnx, both.int8), (first, second), both.metrics, strict=True):
        answers = logits_of(file, images).argmax(1)
        right, same = int((answers == labels).sum()), int((answers == expected).sum())
        assert (found.file, found.score.correct, found.agreement) == (file, right, same)
        assert row.startswith(str(file))
        assert f"{file.stat().st_size / 1e6:.1f} " in row
        assert f"{right / 16:.1%} ({right} of 16)" in row
        assert f"{same} of 16 " in row
        assert float(row.split()[-1]) > 0
    assert "16 of 16" in first


def test_calibration_images_are_balanced_training_images(photos):
    for count in (4, 10, 24, 128):
        chosen = balanced_subset(photos.train, count)
        assert set(zip(chosen.paths, chosen.labels, strict=True)) <= set(
            zip(photos.train.paths, photos.train.labels, strict=True)
        )
        assert len(set(chosen.paths)) == len(chosen) == min(count, 24)
        assert chosen.labels.count(0) == chosen.labels.count(1)
    uneven = Split(tuple(map(Path, "abcdefg")), (0, 0, 1, 1, 1, 1, 1))
    assert sorted(balanced_subset(uneven, 5).labels) == [0, 0, 1, 1, 1]
    assert balanced_subset(uneven, 5) == balanced_subset(uneven, 5)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_an_error_that_says_what_to_install(package, model_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"{package} can't be imported.*: pip install onnx onnxscript onnxruntime$"):
        export(model_folder, onnx=tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def failing(exported):
    def export(network, *args, **options):
        raise torch.onnx.OnnxExporterError("no such operator\nmany\nlines")

    return export


def mistaken(exported):
    """Exports another network's program: its logits differ by one."""
    program = onnx.load(exported)
    (bias,) = [tensor for tensor in program.graph.initializer if tensor.name == "fc.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
    return lambda network, *args, **options: SimpleNamespace(model_proto=program)


@pytest.mark.parametrize(
    ("exporter", "expected"), [(failing, "no such operator"), (mistaken, "differ from torch's by 1:")]
)
def test_an_older_file_survives_an_export_that_fails_or_has_other_logits(
    exporter, expected, model_folder, exported, tmp_path, monkeypatch
):
    file = tmp_path / "model.onnx"
    file.write_text("older")
    monkeypatch.setattr(torch.onnx, "export", exporter(exported))
    with pytest.raises(ExportError, match=expected):
        export(model_folder, onnx=file)
    assert file.read_text() == "older"
    assert list(tmp_path.iterdir()) == [file]


def test_logits_that_are_nan_are_an_error(classifier, exported, monkeypatch):
    monkeypatch.setattr(onnx_export, "onnx_logits", lambda session, images: torch.full((len(images), 2), torch.nan))
    with pytest.raises(ExportError, match="differ from torch's by nan"):
        largest_difference(classifier.network, exported, SMALL.crop)


def test_a_path_that_can_not_be_written_is_an_error_before_any_work(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", None)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ExportError, match=r"model\.onnx can't be written"):
        export(model_folder, onnx=tmp_path / "file" / "model.onnx")
    with pytest.raises(ExportError, match="is a folder"):
        export(model_folder, onnx=tmp_path)


def test_int8_without_images_of_the_models_classes_is_an_error_before_any_work(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "home", lambda: tmp_path)
    files = {"onnx": tmp_path / "model.onnx", "int8": tmp_path / "int8.onnx"}
    with pytest.raises(DataError, match="name a data folder with --data"):
        export(model_folder, **files)
    for split in ("train", "val"):
        for name in ("cats", "dogs"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "pets" / split / name / "a.png")
    with pytest.raises(DataError, match="cats, dogs, the model ants, bees"):
        export(model_folder, **files, data=tmp_path / "pets")
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


@pytest.mark.parametrize("options", [{"data": "photos"}, {"int8": "./a.onnx"}])
def test_arguments_that_do_not_fit_together_are_an_error(options):
    with pytest.raises(InputError, match="int8"):
        export("model", onnx="a.onnx", **options)
