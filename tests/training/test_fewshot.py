"""Few-shot training: data sets, cross-validated metrics, the shared backbone, the detector, the downloaded model."""

import io
import zipfile
from dataclasses import replace

import pytest
import timm
import torch
import transformers
from PIL import Image

from antbee.data.archive import FewShotError
from antbee.data.drawn import draw
from antbee.data.transforms import Preprocessing
from antbee.evaluation import metrics as evaluation_metrics
from antbee.evaluation import ood
from antbee.evaluation.calibration import fit_temperature
from antbee.evaluation.report import comparison
from antbee.hub.card import model_card
from antbee.models.classifier import Classifier
from antbee.models.config import ClassifierConfig
from antbee.models.detector import kth_distance, threshold
from antbee.models.metrics import Found, Parameters
from antbee.models.weights import StartingWeights, build_network
from antbee.training import fewshot
from antbee.training.crossvalidation import choose_neighbours, head_out_of_fold, stratified_folds, trained_head
from antbee.training.fewshot import fit_few_shot, write_zip
from antbee.training.fewshot_data import Example, FewShotDataset, dataset_with_zip, embed
from antbee.training.recipe import FAST

BASE = ClassifierConfig(
    architecture="resnet18",
    label_names=("cats", "dogs", "hens"),
    preprocessing=Preprocessing(crop=96, mean=(0.4, 0.5, 0.6)),
    mode="frozen",
    recipe=FAST.flat("frozen"),
    data={"name": "pets"},
    weights={"name": "imagenet", "digest": "e" * 64, "base_model": "timm/resnet18.tv_in1k"},
)


def new_base(config=BASE, seed=0):
    weights = StartingWeights("random")
    return Classifier(build_network("resnet18", len(config.label_names), weights, seed=seed), config)


@pytest.fixture(scope="module")
def base():
    return new_base()


def photo(kind, number):
    return draw(kind, number, 96)


@pytest.fixture(scope="module")
def dataset(base):
    """Twelve drawn ants under a Chinese name, and twelve bees."""
    dataset = FewShotDataset()
    for name, kind in (("蚂蚁", "ants"), ("bees", "bees")):
        photos = ((f"{number}.jpg", photo(kind, number)) for number in range(12))
        dataset = dataset.with_class(name).with_examples(name, embed(base, photos))
    return dataset


@pytest.fixture(scope="module")
def result(base, dataset):
    return fit_few_shot(base, dataset)


def example(number, name=None):
    """An example with features that no network computed."""
    name = name or f"{number}.jpg"
    return Example(name, Image.new("RGB", (4, 3)), torch.tensor([1.0, 0.0]), f"photo {number}", "backbone")


def examples(*numbers):
    return [example(number) for number in numbers]


def dataset_of(base, rows):
    """A data set of given features by class."""
    dataset = FewShotDataset()
    for name, features in rows.items():
        added = [
            Example(f"{number}.jpg", Image.new("RGB", (2, 2)), row, f"{name} {number}", base.backbone_digest)
            for number, row in enumerate(features)
        ]
        dataset = dataset.with_class(name).with_examples(name, added)
    return dataset


def error_of(call, *arguments):
    with pytest.raises(FewShotError) as raised:
        call(*arguments)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


# ---- data sets -------------------------------------------------------------------------------------------------------


def test_a_data_set_is_immutable_and_its_methods_return_another():
    empty = FewShotDataset()
    two = empty.with_class("ants").with_class("bees")
    full = two.with_examples("bees", examples(1, 2)).with_examples("ants", examples(3))
    assert (empty.label_names, two.counts) == ((), {"ants": 0, "bees": 0})
    assert full.counts == {"ants": 1, "bees": 2}
    assert full.renamed("ants", "wasps").counts == {"wasps": 1, "bees": 2}
    assert full.without_class("ants").counts == {"bees": 2}
    assert full.without_example("bees", "1.jpg").counts == {"ants": 1, "bees": 1}
    assert full.counts == {"ants": 1, "bees": 2}
    assert list(full.thumbnails) == ["ants/3.jpg", "bees/1.jpg", "bees/2.jpg"]
    assert full.features(torch.device("cpu")).labels.tolist() == [0, 1, 1]


def test_data_sets_are_hashable_and_comparable():
    dataset = FewShotDataset().with_class("ants").with_examples("ants", examples(1))
    assert hash(dataset) == hash(FewShotDataset(dataset.classes))
    assert dataset == FewShotDataset(dataset.classes)
    assert dataset != dataset.with_examples("ants", examples(2))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("  ants ", "ants"),
        ("red\nants\t", "red ants"),
        ("蚂蚁\u3000", "蚂蚁"),
        ("Ka\u0308fer", "Käfer"),
        ("<b>", "<b>"),
        ("x" * 40, "x" * 40),
    ],
)
def test_class_names_are_one_line_without_surrounding_spaces(text, name):
    assert FewShotDataset().with_class(text).label_names == (name,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 characters: expected 1 to 40"),
        (" \n", "has 0 characters"),
        ("x" * 41, "has 41 characters"),
        ("ants\u202e", "the class name ants\\u202e has characters that can't be seen"),
        ("\ud800", "can't be seen"),
        ("..", "can't be that of a folder"),
        ("../ants", "can't be that of a folder"),
        ("a/b", "has no slash"),
        ("a\\b", "has no slash"),
        ("__MACOSX", "can't be that of a folder"),
        ("bees", "there is a class bees already"),
        (" bees", "there is a class bees already"),
    ],
)
def test_an_invalid_class_name_is_an_error_for_new_and_for_renamed_classes(text, message):
    dataset = FewShotDataset().with_class("bees").with_class("ants")
    assert message in error_of(dataset.with_class, text)
    assert message in error_of(dataset.renamed, "ants", text)


def test_a_class_can_be_renamed_to_its_own_name():
    assert FewShotDataset().with_class("bees").renamed("bees", " bees ").label_names == ("bees",)


def test_an_unknown_class_or_photo_is_an_error_that_lists_the_classes():
    dataset = FewShotDataset().with_class("bees")
    assert "no class ants, the classes are: bees" in error_of(dataset.without_class, "ants")
    assert "no class ants, the classes are: none" in error_of(FewShotDataset().with_examples, "ants", [])
    assert "bees has no photo 1.jpg" in error_of(dataset.without_example, "bees", "1.jpg")


def test_equal_file_names_are_numbered():
    dataset = FewShotDataset().with_class("ants")
    for number in range(3):
        dataset = dataset.with_examples("ants", [example(number, name="image.jpg")])
    assert [one.name for one in dataset.classes[0].examples] == ["image.jpg", "image (2).jpg", "image (3).jpg"]


def test_the_same_photo_is_added_once_and_to_one_class_only():
    dataset = FewShotDataset().with_class("ants").with_class("bees").with_examples("ants", examples(1, 1, 2))
    assert dataset.with_examples("ants", examples(2)) == dataset
    assert dataset.counts == {"ants": 2, "bees": 0}
    assert "1.jpg is the same picture as one of ants" in error_of(dataset.with_examples, "bees", examples(3, 1))


def test_a_data_set_limits_its_classes_and_photos_and_says_how_many_are_left():
    dataset = FewShotDataset()
    for number in range(10):
        dataset = dataset.with_class(f"class {number}")
    assert "there are 10 classes" in error_of(dataset.with_class, "one more")
    assert "choose 60" in error_of(dataset.with_examples, "class 0", examples(*range(61)))
    for number in range(6):
        dataset = dataset.with_examples(f"class {number}", examples(*range(60 * number, 60 * number + 60)))
    assert (dataset.room("class 0"), dataset.room("class 9")) == (0, 40)
    message = error_of(dataset.with_examples, "class 9", examples(*range(1000, 1041)))
    assert "class 9 has 0 of 360 photos, and 41 are to be added" in message
    assert "choose 40" in message
    assert len(dataset.with_examples("class 9", examples(*range(1000, 1040)))) == 400


def test_features_of_two_backbones_are_an_error(base, dataset):
    other = new_base(seed=1)
    one = next(embed(other, [("x.jpg", photo("ants", 99))]))
    assert "embedded by another model" in error_of(dataset.with_examples, "bees", [one])
    assert "embedded by another model" in error_of(fit_few_shot, other, dataset)
    assert "embedded by another model" in error_of(dataset_with_zip, other, dataset, io.BytesIO())


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (FewShotDataset(), "there are 0 classes, expected at least 2: add another"),
        (
            FewShotDataset().with_class("ants").with_examples("ants", examples(1)),
            "there are 1 classes, expected at least 2",
        ),
        (
            FewShotDataset().with_class("ants").with_class("bees").with_examples("ants", examples(1)),
            "bees has no photos",
        ),
    ],
)
def test_an_incomplete_data_set_is_an_error_before_training(base, dataset, message):
    assert message in error_of(dataset.check)
    assert message in error_of(fit_few_shot, base, dataset)


# ---- embedding -------------------------------------------------------------------------------------------------------


def test_only_features_thumbnail_and_file_name_of_a_photo_are_kept(base):
    one, _ = embed(base, [("ants/1.jpg", draw("ants", 0, 320)), ("2.jpg", photo("bees", 1))])
    assert (one.name, max(one.thumbnail.size), one.thumbnail.mode) == ("1.jpg", 128, "RGB")
    assert one.features.untyped_storage().nbytes() == 512 * 4  # not the whole batch's
    torch.testing.assert_close(one.features, base.features([draw("ants", 0, 320)])[0])


def test_small_photos_are_not_enlarged_and_photos_are_not_modified(base):
    picture = photo("ants", 0)
    pixels = picture.tobytes()
    (one,) = embed(base, [("1.jpg", picture)])
    assert one.thumbnail.size == picture.size
    assert picture.tobytes() == pixels


def test_photos_are_read_one_batch_at_a_time(base):
    read = []

    def photos():
        for number in range(40):
            read.append(number)
            yield f"{number}.jpg", Image.new("RGB", (32, 32))

    next(embed(base, photos()))
    assert len(read) == 16


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../etc/passwd.jpg", "passwd.jpg"),
        ("/root/a.jpg", "a.jpg"),
        ("C:\\photos\\a.jpg", "a.jpg"),
        ("..", "photo"),
        ("", "photo"),
        (".hidden.jpg", "hidden.jpg"),
        ("a\n\x1b[31m\u202e.jpg", "a__[31m_.jpg"),
        ("caf\udce9.jpg", "caf_.jpg"),
        ("蚂蚁.jpg", "蚂蚁.jpg"),
        ("x" * 5000 + ".jpg", "x" * 96 + ".jpg"),
    ],
)
def test_a_photos_name_is_a_printable_file_name(base, text, name):
    (one,) = embed(base, [(text, Image.new("RGB", (32, 32)))])
    assert one.name == name


def zip_of(colours):
    """A zip of images of one colour each, by path; None stands for a file that is no image."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, colour in colours.items():
            content = io.BytesIO()
            if colour is not None:
                Image.new("RGB", (40, 30), colour).save(content, "PNG")
            archive.writestr(path, content.getvalue())
    return buffer


def test_the_photos_of_a_zip_are_added_and_skipped_files_are_returned(base):
    zipped = zip_of({"ants/1.jpg": "red", "bees/1.jpg": "green", "bees/2.jpg": "blue", "bees/x.txt": None})
    shares = []
    unpacked = dataset_with_zip(
        base, FewShotDataset().with_class("bees"), zipped, lambda share, step: shares.append(share)
    )
    assert unpacked.dataset.counts == {"bees": 2, "ants": 1}
    assert [one.file for one in unpacked.skipped] == ["bees/x.txt"]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    again = dataset_with_zip(base, unpacked.dataset, zip_of({"ants/b.jpg": "blue"}))
    assert again.dataset == unpacked.dataset
    assert "same picture as one of bees" in again.skipped[0].reason


# ---- training --------------------------------------------------------------------------------------------------------


def test_training_does_not_change_the_base_model(dataset):
    base = new_base()
    before = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    logits, head, config = base.logits([photo("ants", 50)]), base.network.fc, base.config
    result = fit_few_shot(base, dataset)
    result.classifier.predict([photo("ants", 50)])
    assert base.network.fc is head
    assert (base.config, base.detector) == (config, None)
    assert base.network.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in base.network.state_dict().items())
    assert torch.equal(base.logits([photo("ants", 50)]), logits)


def test_a_few_shot_classifier_shares_the_memory_of_the_base_models_backbone(base, result):
    shared = base.network.state_dict()
    for name, tensor in result.classifier.network.state_dict().items():
        assert (tensor.data_ptr() == shared[name].data_ptr()) == (not name.startswith("fc.")), name


def test_equal_data_sets_and_seeds_give_equal_classifiers(base, dataset, result):
    again = fit_few_shot(base, dataset)
    other = fit_few_shot(base, dataset, seed=1)
    weights = [one.classifier.network.fc.weight for one in (result, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert result.report == again.report


def test_training_restores_thread_count_and_random_state(base, dataset):
    before = torch.random.get_rng_state(), torch.get_num_threads()
    fit_few_shot(base, dataset)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == torch.get_num_threads()


def test_progress_is_reported_before_each_step(base, dataset):
    reported = []
    fit_few_shot(base, dataset, progress=lambda fraction, step: reported.append((fraction, step)))
    assert [step for _, step in reported] == ["training on all photos", "cross-validating", "calibrating"]
    assert reported == sorted(reported)


def noise(count, seed, width=512):
    return torch.rand(count, width, generator=torch.Generator().manual_seed(seed))


def test_metrics_are_of_photos_left_out_of_training(base):
    dataset = dataset_of(base, {"heads": noise(30, 1), "tails": noise(30, 2)})  # can only be memorised
    result = fit_few_shot(base, dataset)
    features = dataset.features(torch.device("cpu"))
    on_train = evaluation_metrics.score(result.classifier.network.fc(features.features).detach(), features.labels)
    assert on_train.accuracy > 0.95
    assert result.report.accuracy < 0.7
    assert result.report.count == 60
    assert result.classifier.config.metrics.kept.interval == list(
        evaluation_metrics.wilson_interval(result.report.correct, 60)
    )


def test_the_predictions_for_a_fold_are_calibrated_on_the_other_folds(base):
    shifted = noise(20, 2) + 0.12 * (torch.arange(512) < 100)
    dataset = dataset_of(base, {"a": 4 * noise(20, 1), "b": 4 * shifted})
    result, features = fit_few_shot(base, dataset), dataset.features(torch.device("cpu"))
    folds = stratified_folds(features.labels, 5, 0)
    logits = head_out_of_fold(features, folds, FAST, seed=0, device=torch.device("cpu")).logits.clone()
    temperatures = [fit_temperature(logits[folds != fold], features.labels[folds != fold]) for fold in range(5)]
    assert len(set(temperatures)) > 1
    calibrated = logits / torch.tensor(temperatures)[folds][:, None]
    expected = evaluation_metrics.evaluate(calibrated, features.labels)
    assert result.report.confusion == expected.confusion
    assert result.report.loss == pytest.approx(expected.loss)
    assert result.report.calibration_error == pytest.approx(expected.calibration_error)


def test_the_temperature_is_part_of_the_heads_weights(base):
    dataset = dataset_of(base, {"a": noise(20, 1), "b": noise(20, 2)})
    result, features = fit_few_shot(base, dataset), dataset.features(torch.device("cpu"))
    head = trained_head(features, 2, FAST, seed=0, device=torch.device("cpu"))
    temperature = result.classifier.config.metrics.calibration.temperature
    assert temperature > 1.5  # the labels can only be memorised
    torch.testing.assert_close(result.classifier.network.fc.weight * temperature, head.weight)


def test_classes_of_two_photos_are_cross_validated_in_two_folds(base):
    result = fit_few_shot(base, dataset_of(base, {"a": noise(2, 1), "b": noise(9, 2)}))
    assert result.folds == 2
    assert result.classifier.config.data.split == "2-fold cross-validation"


def test_a_class_of_one_photo_gives_a_classifier_without_metrics(base, tmp_path):
    result = fit_few_shot(base, dataset_of(base, {"a": noise(1, 1), "b": noise(30, 2)}))
    assert (result.report, result.folds) == (None, None)
    assert result.classifier.config.metrics is None
    assert result.classifier.detector.limit is None
    prediction = result.classifier.predict([photo("bees", 0)])[0]
    assert not prediction.is_out_of_distribution
    loaded = Classifier.from_pretrained(unpacked(result.classifier, tmp_path), device="cpu")
    assert replace(loaded.config, files={}) == result.classifier.config
    card = model_card(loaded.config.to_json())
    assert "too few photos for a validation split" in card
    assert "## Results" not in card


def test_features_of_nan_are_an_error(base):
    dataset = dataset_of(base, {"a": torch.full((3, 512), float("nan")), "b": noise(3, 2)})
    assert "this model's features can't be trained on (training diverged: " in error_of(fit_few_shot, base, dataset)


def test_the_config_describes_the_training_images_and_the_starting_weights(result):
    config = result.classifier.config
    assert (config.architecture, config.preprocessing) == (BASE.architecture, BASE.preprocessing)
    assert (config.label_names, config.mode) == (("蚂蚁", "bees"), "frozen")
    assert config.data.train == {"蚂蚁": 12, "bees": 12}
    assert config.data.val is None
    assert config.weights == BASE.weights
    assert config.recipe == FAST.flat("frozen")
    assert config.metrics.parameters == Parameters(total=11_177_538, trainable=1026)
    assert ClassifierConfig.from_json(config.to_json()) == config
    _, (mode, trainable, accuracy, *_) = comparison([config])
    assert (mode, trainable) == ("frozen", "1,026")
    assert accuracy.endswith("(cross-validated)")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"mode": "finetune"}, "finetune of pets, from imagenet"),
        (
            {"recipe": {"batch_norm": "adapting"}},
            "frozen of pets, from imagenet",
        ),  # its BatchNorm statistics are the pets'
        ({"mode": None, "data": {}, "weights": {}}, "a model of 3 classes, from unknown weights"),
        ({"recipe": {"batch_norm": "fixed"}}, "imagenet"),
    ],
)
def test_the_starting_weights_mention_the_training_of_a_backbone_that_was_trained(dataset, changes, name):
    config = fit_few_shot(new_base(replace(BASE, **changes)), dataset).classifier.config
    assert config.weights.name == name
    assert config.weights.base_model == (BASE.weights.base_model if name == "imagenet" else None)


# ---- the detector ----------------------------------------------------------------------------------------------------


def test_neither_is_predicted_for_synthetic_images_and_neighbours_are_named_by_class_and_file(base, dataset, result):
    classifier = result.classifier
    trained_on, *_ = classifier.predict([photo("ants", 3)])
    assert not trained_on.is_out_of_distribution
    assert classifier.predict(ood.synthetic_images("flat colours", 1))[0].verdict == "neither"
    nearest = classifier.explain(photo("ants", 3), 2).neighbours[0]
    assert (nearest.name, nearest.label) == ("蚂蚁/3.jpg", "蚂蚁")
    assert nearest.distance < 1e-3
    assert dataset.thumbnails[nearest.name] is dataset.classes[0].examples[3].thumbnail


def test_the_threshold_is_fitted_to_photos_left_out(base, dataset, result):
    features = dataset.features(torch.device("cpu")).features
    detector = result.classifier.detector
    distances = kth_distance(features, features, count=detector.neighbours, same=True)
    assert detector.neighbours == choose_neighbours(dataset.features(torch.device("cpu")))
    assert detector.threshold == threshold(distances)
    assert result.classifier.config.metrics.neither.threshold == detector.threshold


def test_detection_of_a_left_out_class_is_measured_only_with_enough_photos_and_an_untrained_backbone(base):
    apart = torch.eye(512)[:3].repeat_interleave(20, 0) + 0.1 * noise(60, 0)
    rows = {name: apart[20 * number : 20 * number + 20] for number, name in enumerate("abc")}
    metrics = fit_few_shot(base, dataset_of(base, rows)).classifier.config.metrics.neither
    assert metrics.left_out == Found(found=60, count=60)
    few = {
        name: features[:10] for name, features in rows.items() if name != "c"
    }  # 10 photos are too few for a threshold
    assert fit_few_shot(base, dataset_of(base, few)).classifier.config.metrics.neither.left_out is None
    finetuned = new_base(replace(BASE, mode="finetune"))  # its backbone may have been trained on the classes
    assert fit_few_shot(finetuned, dataset_of(finetuned, rows)).classifier.config.metrics.neither.left_out is None


# ---- the downloaded model --------------------------------------------------------------------------------------------


def unpacked(classifier, folder):
    write_zip(classifier, folder / "model.zip")
    with zipfile.ZipFile(folder / "model.zip") as archive:
        archive.extractall(folder)
    return folder / fewshot.MODEL_FOLDER


@pytest.fixture(scope="module")
def model_folder(result, tmp_path_factory):
    return unpacked(result.classifier, tmp_path_factory.mktemp("zip"))


def test_the_zip_holds_one_model_folder_without_figures(model_folder):
    assert sorted(path.name for path in model_folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "neighbours.safetensors",
    ]
    assert [path.name for path in model_folder.parent.iterdir() if path.name != "model.zip"] == [fewshot.MODEL_FOLDER]


def test_the_card_in_the_zip_says_how_its_metrics_were_measured_and_links_to_no_figures(model_folder):
    card = (model_folder / "README.md").read_text("utf-8")
    assert "Cross-validated on the training photos; there were no validation photos" in card
    assert card.count("validation photos") == 1
    assert "figures/" not in card
    assert "蚂蚁 or bees" in card


def test_antbee_timm_and_transformers_give_the_logits_of_the_few_shot_classifier(result, model_folder):
    pictures = [photo("ants", 70), photo("bees", 71)]
    expected = result.classifier.logits(pictures)
    loaded = Classifier.from_pretrained(model_folder, device="cpu")
    torch.testing.assert_close(loaded.logits(pictures), expected, rtol=0, atol=1e-5)
    assert replace(loaded.config, files={}) == result.classifier.config
    assert loaded.predict(pictures)[0].distance == pytest.approx(result.classifier.predict(pictures)[0].distance)
    assert loaded.explain(pictures[0]).neighbours[0].name == result.classifier.explain(pictures[0]).neighbours[0].name

    by_timm = timm.create_model(f"local-dir:{model_folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=by_timm), is_training=False)
    with torch.inference_mode():
        logits = by_timm(torch.stack([transform(picture) for picture in pictures]))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert by_timm.pretrained_cfg["label_names"] == ["蚂蚁", "bees"]

    by_transformers = transformers.AutoModelForImageClassification.from_pretrained(model_folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(model_folder)
    with torch.inference_mode():
        logits = by_transformers(**processor(pictures, return_tensors="pt")).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    assert by_transformers.config.id2label == {0: "蚂蚁", 1: "bees"}


def test_a_zip_that_can_not_be_written_leaves_no_files(result, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(fewshot, "write_model_folder", fail)
    with pytest.raises(OSError, match="no space left"):
        write_zip(result.classifier, tmp_path / "model.zip")
    assert list(tmp_path.iterdir()) == []
