"""scripts/export.py: a file that answers as torch does, says how to feed it, and is never half written."""

import json
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from antbee import Classifier, __version__
from antbee.data.folder import Split, read_folder
from antbee.data.loading import ImageLoader
from antbee.data.transforms import Preprocessing
from antbee.models.backbone import build_network, feature_map, pooled
from antbee.models.config import ClassifierConfig
from antbee.models.weights import StartingWeights

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "export.py"
SMALL = Preprocessing(crop=64, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))  # one value for each channel


def run(*words):
    """The script in this process, from the root folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("/")
        patch.setattr(sys, "argv", ["export.py", *map(str, words)])
        patch.setattr(sys, "path", list(sys.path))
        runpy.run_path(str(SCRIPT), run_name="__main__")


def untrained(architecture, label_names, images, preprocessing=SMALL):
    """A classifier with random weights; its logits are of sane size, since BatchNorm knows how `images` are spread."""
    network = build_network(architecture, len(label_names), StartingWeights("random"), seed=0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean over all images seen
    with torch.no_grad():
        network.train()(images)
    return Classifier(network, ClassifierConfig(architecture, label_names, preprocessing))


@pytest.fixture(scope="module")
def photos(drawn_root):
    return read_folder(drawn_root)


@pytest.fixture(scope="module")
def examples(photos):
    """The validation photos as images, and their labels."""
    val = ImageLoader(photos.val, SMALL)
    ((images, labels),) = val.batches([torch.arange(len(val))])
    return images, labels


@pytest.fixture(scope="module")
def classifier(examples):
    """Says ants and bees of the validation photos by heart, three of them wrongly."""
    images, labels = examples
    classifier = untrained("resnet18", ("ants", "bees"), images)
    network = classifier.network
    with torch.no_grad():
        features = pooled(network, feature_map(network, images))
        centre = features.mean(0)
        learnt = torch.cat([1 - labels[:3], labels[3:]])
        directions = torch.linalg.lstsq(features - centre, 4.0 * torch.eye(2)[learnt] - 2).solution.T
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
    """A float32 and an int8 file, and what the script printed."""
    folder = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr("builtins.print", lambda *words: printed.append(" ".join(map(str, words))))
        run(model_folder, "--onnx", folder / "float32.onnx", "--int8", folder / "int8.onnx", "--data", drawn_root)
    return folder / "float32.onnx", folder / "int8.onnx", printed


@pytest.fixture(scope="module")
def exported(both):
    return both[0]


def logits_of(file, images):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.get_inputs()
    assert (found.name, found.type, found.shape[1:]) == ("images", "tensor(float)", [3, 64, 64])
    (logits,) = session.run(None, {"images": np.asarray(images)})
    assert [output.name for output in session.get_outputs()] == ["logits"]
    return torch.from_numpy(logits)


def notes_of(file):
    return {entry.key: entry.value for entry in onnx.load(file).metadata_props}


def same_as_torch(classifier, file, images):
    for count in (1, 3):
        with torch.inference_mode():
            expected = classifier.network(images[:count])
        assert 0.1 < expected.abs().max() < 100, "a difference of 1e-4 would mean nothing"
        found = logits_of(file, images[:count])
        assert found.shape == (count, len(classifier.config.label_names))
        assert torch.allclose(found, expected, rtol=0, atol=1e-4)


def test_the_file_answers_as_torch_does_one_photo_or_several(classifier, exported, examples):
    same_as_torch(classifier, exported, examples[0])


@pytest.mark.parametrize(("architecture", "class_count"), [("resnet34", 7)])
def test_so_do_others_of_which_the_terminal_shows_one_line_alone(architecture, class_count, examples, tmp_path, capfd):
    classifier = untrained(architecture, tuple(f"class {index}" for index in range(class_count)), examples[0])
    classifier.save_pretrained(tmp_path / "model")
    file = tmp_path / "new" / "folder" / "model.onnx"
    run(tmp_path / "model", "--onnx", file)
    out, err = capfd.readouterr()
    assert err == ""
    assert len(out.splitlines()) == 1
    assert str(file) in out
    assert list(file.parent.iterdir()) == [file]
    assert notes_of(file)["architecture"] == architecture
    same_as_torch(classifier, file, examples[0])


@pytest.mark.parametrize("size", [(150, 101), (90, 160), (40, 50)])
def test_its_metadata_is_enough_to_answer_as_antbee_without_antbee(classifier, exported, size):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 50, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    notes = notes_of(exported)

    shorter, crop = int(notes["resize_shorter_side"]), int(notes["centre_crop"])
    width, height = (int(shorter * side / min(photo.size)) for side in photo.size)
    assert notes["resize_antialias"] == "true", "which Pillow does"
    resized = photo.resize((width, height), Image.Resampling[notes["resize_interpolation"].upper()])
    left, top = round((width - crop) / 2), round((height - crop) / 2)
    assert (notes["channel_order"], notes["value_range"]) == ("RGB", "[0, 1]")
    values = np.asarray(resized.crop((left, top, left + crop, top + crop)), np.float32) / 255
    values = (values - np.float32(json.loads(notes["mean"]))) / np.float32(json.loads(notes["std"]))
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": values.transpose(2, 0, 1)[None]})[0]
    shares = np.exp(logits)
    shares /= shares.sum()

    (prediction,) = classifier.predict([photo])
    assert dict(zip(json.loads(notes["labels"]), shares, strict=True)) == pytest.approx(
        prediction.probabilities, abs=1e-5
    )


def test_it_says_in_words_what_it_is_and_which_antbee_wrote_it(exported):
    text = onnx.load(exported).doc_string
    for part in ("antbee", "RGB", "73 pixels", "bilinear", "64 x 64", "[0.4, 0.5, 0.6]", "[0.2, 0.25, 0.3]", "softmax"):
        assert part in text
    assert notes_of(exported)["antbee_version"] == __version__


def test_metadata_follows_the_models_own_preprocessing_and_any_label_names(script_module):
    look = replace(SMALL, interpolation="bicubic", crop=48)
    config = ClassifierConfig("resnet18", ("Ämse", 'bee "x"', "caf\udce9"), look)  # a folder's name may be no Unicode
    program = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    script_module(SCRIPT).describe(program, config)
    read = onnx.ModelProto.FromString(program.SerializeToString())
    notes = {entry.key: entry.value for entry in read.metadata_props}
    assert (notes["resize_interpolation"], notes["centre_crop"], notes["resize_shorter_side"]) == (
        "bicubic",
        "48",
        "54",
    )
    assert tuple(json.loads(notes["labels"])) == config.label_names
    assert "bicubic" in read.doc_string


def test_the_file_needs_no_other_and_tells_nothing_of_the_machine(exported, classifier, examples, tmp_path):
    program = onnx.load(exported, load_external_data=False)
    assert not any(tensor.external_data for tensor in program.graph.initializer)
    same_as_torch(classifier, shutil.copy(exported, tmp_path / "alone.onnx"), examples[0])
    content = exported.read_bytes()
    for folder in (SCRIPT.parents[2], sys.prefix, Path(torch.__file__).parents[1], Path.home()):
        assert f"{folder}/".encode() not in content


def test_int8_is_a_quarter_in_size_and_takes_any_number_of_photos(classifier, both, examples):
    (float32, int8, _), (images, _) = both, examples
    assert int8.stat().st_size < float32.stat().st_size / 3
    with torch.inference_mode():
        expected = classifier.network(images)
    for count in (1, 5):
        assert torch.allclose(logits_of(int8, images[:count]), expected[:count], rtol=0, atol=0.3)
    program = onnx.load(int8, load_external_data=False)
    assert {opset.domain for opset in program.opset_import} == {""}, "other runtimes know no dialects"
    weights = [t for t in program.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 4]
    assert len(weights) == 20, "every convolution"
    assert [node.op_type for node in program.graph.node if "logits" in node.output] == ["Gemm"], "in float32"
    assert all(np.abs(onnx.numpy_helper.to_array(tensor)).max() <= 64 for tensor in weights), "seven bits"


def test_int8_is_described_as_float32_is_and_says_how_it_was_made(both):
    float32, int8 = map(notes_of, both[:2])
    assert int8 == float32 | {"quantisation": "int8, calibrated with 24 training photos of drawn"}
    assert onnx.load(both[0]).doc_string == onnx.load(both[1]).doc_string


def test_both_accuracies_are_printed_side_by_side(classifier, both, examples):
    *_, head, first, second = both[2]
    assert head.split()[:2] == ["file", "MB"]
    images, labels = examples
    with torch.inference_mode():
        expected = classifier.network(images).argmax(1)
    assert (expected == labels).sum() == 13
    for file, row in zip(both[:2], (first, second), strict=True):
        found = logits_of(file, images).argmax(1)
        right, same = int((found == labels).sum()), int((found == expected).sum())
        assert row.startswith(str(file))
        assert f"{file.stat().st_size / 1e6:.1f} " in row
        assert f"{right / 16:.1%} ({right} of 16)" in row
        assert f"{same} of 16 " in row
        assert float(row.split()[-1]) > 0
    assert "16 of 16" in first


def test_calibration_sees_training_photos_of_every_class_alike(script_module, photos):
    spread = script_module(SCRIPT).spread
    for count in (4, 10, 24, 128):
        chosen = spread(photos.train, count)
        assert set(zip(chosen.paths, chosen.labels, strict=True)) <= set(
            zip(photos.train.paths, photos.train.labels, strict=True)
        )
        assert len(set(chosen.paths)) == len(chosen) == min(count, 24)
        assert chosen.labels.count(0) == chosen.labels.count(1)
    uneven = Split(tuple(map(Path, "abcdefg")), (0, 0, 1, 1, 1, 1, 1))
    assert sorted(spread(uneven, 5).labels) == [0, 0, 1, 1, 1]
    assert spread(uneven, 5) == spread(uneven, 5)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_line_that_says_what_to_install(
    package, model_folder, tmp_path, monkeypatch, error_of
):
    monkeypatch.setitem(sys.modules, package, None)
    _, error = error_of(run, model_folder, "--onnx", tmp_path / "model.onnx")
    assert f"{package} can't be imported" in error
    assert error.endswith("pip install onnx onnxscript onnxruntime")
    assert list(tmp_path.iterdir()) == []


def failing(exported):
    def export(network, *args, **options):
        raise torch.onnx.OnnxExporterError("no such operator\nmany\nlines")

    return export


def mistaken(exported):
    """Gives a program whose logits are another network's: they differ by one."""
    program = onnx.load(exported)
    (bias,) = [tensor for tensor in program.graph.initializer if tensor.name == "fc.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
    return lambda network, *args, **options: SimpleNamespace(model_proto=program)


@pytest.mark.parametrize(
    ("exporter", "expected"), [(failing, "no such operator"), (mistaken, "differ from torch's by 1:")]
)
def test_an_older_file_survives_an_export_that_fails_or_answers_otherwise(
    exporter, expected, model_folder, exported, tmp_path, monkeypatch, error_of
):
    file = tmp_path / "model.onnx"
    file.write_text("older")
    monkeypatch.setattr(torch.onnx, "export", exporter(exported))
    assert expected in error_of(run, model_folder, "--onnx", file)[1]
    assert file.read_text() == "older"
    assert list(tmp_path.iterdir()) == [file]


def test_logits_that_are_no_numbers_are_an_error(model_folder, classifier, exported, script_module, monkeypatch):
    script = script_module(SCRIPT)
    monkeypatch.setattr(script, "answers", lambda session, images: np.full((len(images), 2), np.nan, np.float32))
    with pytest.raises(script.ExportError, match="differ from torch's by nan"):
        script.largest_difference(classifier, exported)


def test_a_place_that_cant_be_written_is_one_line_before_any_work(model_folder, tmp_path, monkeypatch, error_of):
    monkeypatch.setattr(torch.onnx, "export", None)
    (tmp_path / "file").write_text("no folder")
    assert "model.onnx can't be written" in error_of(run, model_folder, "--onnx", tmp_path / "file" / "model.onnx")[1]
    assert f"{tmp_path} is a folder" in error_of(run, model_folder, "--onnx", tmp_path)[1]


def test_int8_without_photos_of_the_models_classes_is_one_line_before_any_work(model_folder, tmp_path, error_of):
    files = ["--onnx", tmp_path / "model.onnx", "--int8", tmp_path / "int8.onnx"]
    assert "name a data folder with --data" in error_of(run, model_folder, *files)[1]
    for split in ("train", "val"):
        for name in ("cats", "dogs"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "pets" / split / name / "a.png")
    assert "cats, dogs, the model ants, bees" in error_of(run, model_folder, *files, "--data", tmp_path / "pets")[1]
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]


def test_photos_are_labelled_in_the_order_of_the_models_outputs(script_module, classifier, photos, drawn_root):
    other = Classifier(classifier.network, replace(classifier.config, label_names=("bees", "ants")))
    found = script_module(SCRIPT).photos_of(other, drawn_root)
    for split, expected in ((found.train, photos.train), (found.val, photos.val)):
        assert split.paths == expected.paths
        assert split.labels == tuple(1 - label for label in expected.labels)


def test_a_model_that_is_not_there_is_one_clear_line(tmp_path, error_of):
    assert "expected a model folder, or a Hub id" in error_of(run, "/nowhere", "--onnx", tmp_path / "model.onnx")[1]


@pytest.mark.parametrize(
    "words", [[], ["--onnx", "a.onnx", "--data", "photos"], ["--onnx", "a.onnx", "--int8", "./a.onnx"]]
)
def test_flags_that_make_no_sense_end_with_status_2(words, model_folder, capsys):
    with pytest.raises(SystemExit) as ended:
        run(model_folder, *words)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err
