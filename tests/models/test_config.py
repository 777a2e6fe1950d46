"""config.json: whatever stands in it, it is read as typed values and written again, or refused by its key in a line."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from configs import CONFIG
from hypothesis import given, settings
from hypothesis import strategies as st

from antbee.data.folder import MOST_CLASSES
from antbee.data.listing import SkippedFile as LeftOut
from antbee.data.transforms import Preprocessing
from antbee.evaluation.metrics import share
from antbee.evaluation.report import comparison, conclusions, metric_rows
from antbee.hub.card import model_card
from antbee.models.config import (
    MAX_EXCLUDED,
    MAX_SKIPPED,
    MODES,
    ClassifierConfig,
    DataInfo,
    ModelFolderError,
    read_config,
    read_history,
)
from antbee.models.metrics import Found, Metrics
from antbee.models.tensors import WeightsError

OLD = {mode: Path(__file__).with_name(f"config_0_1_{mode}.json") for mode in MODES}


def copied(content):
    return json.loads(json.dumps(content))


def written(folder, config):
    """A folder with a config as `Classifier.save_pretrained` writes it."""
    (folder / "config.json").write_text(json.dumps(config.to_json(), indent=2) + "\n", "utf-8")
    return folder


def complaint(call, *arguments, kind=ModelFolderError):
    with pytest.raises(kind) as raised:
        call(*arguments)
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 600
    return str(raised.value)


# ---- reading and writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_config_of_version_0_1_is_read_and_written_unchanged(mode):
    content = json.loads(OLD[mode].read_text())
    config = ClassifierConfig.from_json(content)
    assert config.to_json() == content
    assert config.unknown == {}
    assert ClassifierConfig.from_json(copied(config.to_json())) == config


def test_the_values_of_a_config_of_version_0_1_are_typed():
    config = ClassifierConfig.from_json(json.loads(OLD["frozen"].read_text()))
    assert (config.architecture, config.label_names, config.mode) == ("resnet18", ("ants", "bees"), "frozen")
    assert (config.version, config.seed, config.preprocessing) == ("0.1.0", 0, Preprocessing())
    assert (config.data.name, config.data.train, config.data.skipped) == ("drawn", {"ants": 123, "bees": 121}, [])
    assert (config.data.holdout, config.weights.name, config.weights.digest) == (None, "random", None)
    assert config.recipe["learning_rate"] == 0.003
    metrics = config.metrics
    assert (metrics.kept.correct, metrics.kept.count, metrics.kept.epoch) == (73, 153, 1)
    assert metrics.kept.accuracy == 73 / 153
    assert metrics.kept.interval == [0.3995138068207055, 0.5558551367613745]
    assert (metrics.last.loss, metrics.cleaned, metrics.cross_validation) == (None, None, None)
    assert metrics.confusion == [[63, 7], [73, 10]]
    assert [one.recall for one in metrics.per_class] == [0.9, 0.12048192771084337]
    assert (metrics.parameters.total, metrics.parameters.trainable) == (11_177_538, 1026)
    assert (metrics.calibration.folds, metrics.neither.val) == (5, Found(found=7, count=153))
    assert metrics.neither.foreign["flat colours"] == Found(found=20, count=20)
    assert metrics.learning_curve[0].per_class == 5
    assert metrics.enough_data.startswith("A head on frozen features")
    assert set(config.files) == {"model.safetensors", "neighbours.safetensors"}


def test_a_written_config_has_the_keys_of_version_0_1_even_without_values():
    written, old = ClassifierConfig("resnet18", ("a", "b")).to_json(), json.loads(OLD["frozen"].read_text())
    assert list(written) == list(old)
    assert list(written["pretrained_cfg"]) == list(old["pretrained_cfg"])
    assert list(written["antbee"]) == list(old["antbee"])
    empty = ("recipe", "data", "weights", "metrics", "files")
    assert {key: written["antbee"][key] for key in empty} == {key: {} for key in empty}
    assert ClassifierConfig.from_json(copied(written)) == ClassifierConfig("resnet18", ("a", "b"))


def test_a_config_with_every_key_is_written_and_read_unchanged():
    assert ClassifierConfig.from_json(copied(CONFIG.to_json())) == CONFIG


def test_unknown_keys_are_kept_at_every_level():
    content = CONFIG.to_json() | {"model_type": "x", "later": {"deep": [1, None]}}
    content["pretrained_cfg"]["license"] = "mit"
    content["antbee"] |= {"later": 2, "labels": 3}
    for part in ("data", "weights"):
        content["antbee"][part]["later"] = [part]
    for part in ("kept", "neither", "calibration", "seeds"):
        content["antbee"]["metrics"][part]["later"] = None
    content["antbee"]["metrics"]["neither"]["foreign"]["noise"]["later"] = {}
    config = ClassifierConfig.from_json(copied(content))
    assert config.to_json() == content
    assert replace(config, seed=4).to_json()["later"] == {"deep": [1, None]}


def test_null_and_an_empty_object_count_as_missing():
    content = ClassifierConfig("resnet18", ("a", "b")).to_json()
    for nothing in (None, {}):
        content["antbee"] |= dict.fromkeys(("recipe", "data", "weights", "metrics", "files"), nothing)
        assert ClassifierConfig.from_json(copied(content)) == ClassifierConfig("resnet18", ("a", "b"))


@pytest.mark.parametrize(
    "names",
    [
        {"label_names": ["cat", "dog"]},
        {"labels": ["cat", "dog"]},
        {"id2label": {"0": "cat", "1": "dog"}},
        {"label_names": ["cat", "dog"], "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
    ],
)
def test_class_names_are_read_from_every_layout_and_written_once(names):
    config = ClassifierConfig.from_json({"architecture": "resnet18", **names})
    assert config == ClassifierConfig("resnet18", ("cat", "dog"))
    assert config.to_json()["label_names"] == ["cat", "dog"]
    assert config.to_json().keys().isdisjoint({"labels", "id2label", "label2id"})


def test_class_names_in_pretrained_cfg_are_read():
    content = ClassifierConfig("resnet18", ("a", "b")).to_json()
    content["pretrained_cfg"]["label_names"] = content.pop("label_names")
    assert ClassifierConfig.from_json(content) == ClassifierConfig("resnet18", ("a", "b"))


def test_timms_older_flat_layout_is_read_and_written_in_the_current_one():
    pretrained = {"input_size": [3, 160, 160], "interpolation": "bicubic", "crop_pct": 0.95}
    pretrained |= {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "crop_mode": "center"}
    flat = {"architecture": "resnet18", "labels": ["cat", "dog"], **pretrained}
    config = ClassifierConfig.from_json(flat)
    assert config.preprocessing == Preprocessing(160, 0.95, "bicubic", (0.5,) * 3, (0.25,) * 3)
    assert config.to_json().keys() == CONFIG.to_json().keys()
    assert "mean is missing" in complaint(ClassifierConfig.from_json, {k: v for k, v in flat.items() if k != "mean"})


@pytest.mark.parametrize(("fit", "crop_mode"), [("crop", "center"), ("squash", "squash"), ("pad", "border")])
def test_how_photos_are_made_square_is_written_and_read_by_timms_name(fit, crop_mode):
    config = ClassifierConfig("resnet18", ("cat", "dog"), Preprocessing(crop_pct=1.0, fit=fit))
    content = config.to_json()
    assert content["pretrained_cfg"]["crop_mode"] == crop_mode
    assert ClassifierConfig.from_json(content).preprocessing == config.preprocessing


def test_a_config_that_does_not_say_how_photos_are_made_square_reads_as_a_crop():
    content = ClassifierConfig("resnet18", ("cat", "dog")).to_json()
    del content["pretrained_cfg"]["crop_mode"]
    assert ClassifierConfig.from_json(content).preprocessing.fit == "crop"


def test_model_args_of_a_plain_resnet_are_accepted():
    arguments = {"num_classes": 2, "in_chans": 3, "global_pool": "avg", "zero_init_last": False}
    for some in (arguments, {}, None):
        content = {"architecture": "resnet18", "label_names": ["a", "b"], "model_args": some}
        assert ClassifierConfig.from_json(content) == ClassifierConfig("resnet18", ("a", "b"))


TEXT = st.text(max_size=60)
alike = settings(derandomize=True, deadline=None, max_examples=50, database=None)


@alike
@given(st.lists(TEXT.filter(str.strip), min_size=2, max_size=4, unique=True))
def test_any_class_names_are_written_and_read_unchanged(names):
    config = ClassifierConfig("resnet18", tuple(names))
    assert ClassifierConfig.from_json(copied(config.to_json())).label_names == tuple(names)


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, '{"a":' * 900, "[]", "null", '"text"', "\xff", "1" * 9999])
def test_a_config_that_is_not_a_json_object_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    assert "config.json" in complaint(read_config, tmp_path)


def in_antbee(**values):
    return lambda c: c["antbee"].update(values)


def in_metrics(**values):
    return lambda c: c["antbee"]["metrics"].update(values)


def in_pretrained(**values):
    return lambda c: c["pretrained_cfg"].update(values)


WRONG = [
    (lambda c: c.pop("label_names"), "label_names is missing"),
    (lambda c: c["pretrained_cfg"].pop("mean"), "pretrained_cfg.mean is missing"),
    (
        lambda c: c.pop("architecture"),
        "architecture is missing: expected a config by antbee, or of a classifier as timm",
    ),
    (lambda c: c.update(architecture=["resnet18"]), "architecture is ['resnet18'], expected a valid string"),
    (lambda c: c.update(architecture=" "), "architecture is ' ', expected text that is not blank"),
    (lambda c: c.update(label_names="ants"), "label_names is 'ants', expected a list"),
    (lambda c: c.update(label_names=["ants"]), f"expected 2 to {MOST_CLASSES} different names, not 1"),
    (lambda c: c.update(label_names=["ants", "ants"]), "different names"),
    (lambda c: c.update(label_names=["ants", " "]), "label_names[1] is ' ', expected text that is not blank"),
    (lambda c: c.update(label_names={"0": "ants", "2": "bees"}), "label_names[1] is None, expected a valid string"),
    (lambda c: c.update(label_names=None), "label_names is None, expected a list"),
    (lambda c: c.update(label_names=[str(n) for n in range(1001)]), "not 1001"),
    (lambda c: c.update(num_classes=3), "num_classes is 3, expected 2"),
    (lambda c: c.update(num_classes=2.0), "num_classes is 2.0, expected a valid integer"),
    (lambda c: c.update(num_features=0), "num_features is 0, expected 512"),
    (lambda c: c.update(num_features=-512), "num_features is -512, expected 512"),
    (lambda c: c.update(num_features=10**400), "expected 512"),
    (lambda c: c.update(global_pool="max"), "global_pool is 'max', expected avg"),
    (lambda c: c.update(model_args={"output_stride": 16}), "model_args.output_stride is 16, expected no such key"),
    (lambda c: c.update(model_args={"in_chans": 1}), "model_args.in_chans is 1, expected 3"),
    (lambda c: c.update(model_args={"num_classes": 7}), "model_args.num_classes is 7, expected 2"),
    (lambda c: c.update(model_args=[]), "model_args is [], expected an object"),
    (lambda c: c.update(pretrained_cfg=[]), "pretrained_cfg is [], expected an object"),
    (in_pretrained(interpolation="nearest"), "interpolation is 'nearest', expected 'bilinear' or 'bicubic'"),
    (in_pretrained(interpolation=["bilinear"]), "interpolation is ['bilinear']"),
    (in_pretrained(crop_mode="pad"), "crop_mode is 'pad', expected 'center', 'squash' or 'border'"),
    (in_pretrained(crop_mode=["squash"]), "pretrained_cfg.crop_mode is ['squash']"),
    (in_pretrained(input_size=[1, 224, 224]), "input_size is [1, 224, 224], expected [3, side, side] of 32 to 1024"),
    (in_pretrained(input_size=[3, 224, 192]), "input_size is [3, 224, 192]"),
    (in_pretrained(input_size=[3, 10**9, 10**9]), "32 to 1024 pixels"),
    (in_pretrained(input_size=[3, [], []]), "input_size[1] is [], expected a valid integer"),
    (in_pretrained(input_size=[]), "input_size is [], expected 3 entries"),
    (in_pretrained(crop_pct=0), "crop_pct is 0, expected 0.1 or more"),
    (in_pretrained(crop_pct="0.9"), "crop_pct is '0.9', expected a valid number"),
    (in_pretrained(input_size=[3, 1024, 1024], crop_pct=0.1), "expected no photos larger than 1280 pixels"),
    (in_pretrained(std=[0, 0.2, 0.2]), "std[0] is 0, expected 0.001 or more"),
    (in_pretrained(mean=[0.5, 0.5]), "mean is [0.5, 0.5], expected 3 entries"),
    (in_pretrained(mean=[0.5, 0.5, math.nan]), "mean[2] is nan, expected a finite number"),
    (lambda c: c.update(antbee=[]), "antbee is [], expected a"),
    (in_antbee(format=2), "antbee.format is 2, expected 1: install the antbee that wrote it, or train"),
    (in_antbee(format=True), "antbee.format is True, expected 1"),
    (lambda c: c["antbee"].pop("format"), "antbee.format is None, expected 1"),
    (lambda c: c.update(antbee={}), "antbee.format is None, expected 1"),
    (in_antbee(seed="0"), "antbee.seed is '0', expected a valid integer"),
    (in_antbee(seed=True), "antbee.seed is True, expected a valid integer"),
    (in_antbee(mode={}), "antbee.mode is {}, expected 'frozen' or 'finetune'"),
    (in_antbee(data="ants"), "antbee.data is 'ants', expected an object"),
    (in_antbee(recipe=[]), "antbee.recipe is [], expected an object"),
    (in_antbee(recipe={"steps": []}), "antbee.recipe.steps is [], expected text, a finite number, true, false or null"),
    (in_antbee(recipe={"steps": math.nan}), "antbee.recipe.steps is nan"),
    (in_antbee(recipe={"smallest_crop": math.nan}), "smallest_crop is nan"),
    (in_antbee(recipe={"smallest_crop": True}), "antbee.recipe.smallest_crop is True, expected 0.01 to 1"),
    (in_antbee(recipe={"mirror": "no"}), "antbee.recipe.mirror is 'no', expected true or false"),
    (in_antbee(recipe={"mirror": 0}), "antbee.recipe.mirror is 0, expected true or false"),
    (in_antbee(files={"model.safetensors": "abc"}), "antbee.files['model.safetensors'] is 'abc', expected a SHA-256"),
    (in_antbee(data={"skipped": [{}]}), "antbee.data.skipped[0].file is missing"),
    (in_antbee(data={"excluded": [1]}), "antbee.data.excluded[0] is 1, expected a valid string"),
    (in_antbee(data={"train": {"ants": -1}}), "antbee.data.train.ants is -1, expected 0 or more"),
    (in_antbee(data={"train": {" ": 1}}), "antbee.data.train[' '] is ' ', expected text that is not blank"),
    (in_antbee(data={"\ud800": 1}), "expected valid Unicode"),
    (lambda c: c["antbee"]["metrics"].pop("kept"), "antbee.metrics.kept is missing"),
    (lambda c: c["antbee"]["metrics"]["last"].pop("accuracy"), "antbee.metrics.last.accuracy is missing"),
    (in_metrics(seconds="12"), "antbee.metrics.seconds is '12', expected a valid number"),
    (in_metrics(seconds=10**400), "expected a valid number"),
    (in_metrics(auc=True), "antbee.metrics.auc is True, expected a valid number"),
    (in_metrics(epochs=10**13), "antbee.metrics.epochs is 10000000000000, expected 1000000000000 or less"),
    (in_metrics(confusion=[[1, 2]]), "antbee.metrics.confusion is [[1, 2]], expected 2 rows of 2 counts"),
    (in_metrics(confusion=[[1], [2]]), "antbee.metrics.confusion is [[1], [2]], expected 2 rows of 2 counts"),
    (in_metrics(confusion=[[1, 2], 3]), "antbee.metrics.confusion[1] is 3, expected a list"),
    (in_metrics(per_class=[]), "antbee.metrics.per_class is [], expected 2 entries"),
    (in_metrics(cross_validation=2.5), "antbee.metrics.cross_validation is 2.5, expected a valid integer"),
    (
        in_metrics(learning_curve=[{"per_class": 1, "photos": 2, "accuracies": []}]),
        "accuracies is [], expected 1 entries",
    ),
    (lambda c: c["antbee"]["metrics"]["kept"].update(interval=[0]), "interval is [0], expected 2 entries"),
    (lambda c: c["antbee"]["metrics"]["neither"].update(val=[]), "neither.val is [], expected an object"),
    (
        lambda c: c["antbee"]["metrics"]["neither"]["foreign"].update({"x\ny": 3}),
        "antbee.metrics.neither.foreign['x\\ny'] is 3, expected an object",
    ),
    (
        lambda c: c["antbee"]["metrics"]["calibration"].update(temperature=-1),
        "antbee.metrics.calibration.temperature is -1, expected 0.0 or more",
    ),
    (in_metrics(kept={"x" * 50_000: 1}), "is missing"),
    (in_metrics(neither={"foreign": {"x" * 50_000: {}}}), "is missing"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[words for _, words in WRONG])
def test_an_invalid_value_is_refused_by_file_and_key(tmp_path, change, words):
    content = copied(CONFIG.to_json())
    change(content)
    (tmp_path / "config.json").write_text(json.dumps(content))
    text = complaint(read_config, tmp_path)
    assert words in text
    assert text.startswith(f"{tmp_path / 'config.json'} can't be used: ")


def test_of_several_invalid_values_the_first_is_named_and_the_others_are_counted():
    content = CONFIG.to_json()
    content["antbee"] |= {"seed": -1, "version": 2, "run": 3}
    assert complaint(ClassifierConfig.from_json, content) == (
        "antbee.version is 2, expected a valid string (and 2 more)"
    )


def test_an_unknown_architecture_is_refused_by_file(tmp_path):
    written(tmp_path, CONFIG)
    content = CONFIG.to_json() | {"architecture": "resnet19", "num_features": 512}
    (tmp_path / "config.json").write_text(json.dumps(content))
    text = complaint(read_config, tmp_path, kind=WeightsError)
    assert text.startswith(f"{tmp_path / 'config.json'} can't be used: unknown backbone 'resnet19'")


JUNK = (None, True, -1, 5, 10**400, 1e400, math.nan, "", "x", "\ud800", [], {}, [[]], [{}], {"a": "b"}, [3, {}, {}])


def everywhere(content, path=()):
    """The path to every value of a JSON object."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from everywhere(value, (*path, key))


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"deeper": value}
    return value


def shown_everywhere(config):
    """Uses a config in every way that the project does."""
    model_card(config.to_json(), comparison([config]))
    conclusions([config])
    if config.metrics:
        metric_rows(config.metrics)
    json.dumps(config.to_json())


@pytest.mark.parametrize("of_its_own", [{}, {"cross_validation": 5}], ids=["validated", "cross-validated"])
def test_any_value_at_any_key_can_be_used_or_is_refused_in_one_line(of_its_own):
    whole = copied(CONFIG.to_json()) | {"model_args": {"num_classes": 2}, "later": {"a": 1}}
    whole["antbee"]["data"]["skipped"] = [{"file": "a", "reason": "b"}]
    whole["antbee"]["metrics"] |= of_its_own
    refusals = []
    for path in everywhere(whole):
        for junk in (*JUNK, nested(500)):
            content = copied(whole)
            place = content
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = junk
            try:
                shown_everywhere(ClassifierConfig.from_json(content))
            except (ModelFolderError, WeightsError) as error:
                refusals.append(str(error))
    assert len(refusals) > 300
    assert all(len(refusal.splitlines()) == 1 and len(refusal) < 500 for refusal in refusals)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
PLAIN = ClassifierConfig("resnet18", ("ants", "bees"), mode="frozen", seed=1).to_json()
KEYS = [*((key,) for key in PLAIN), *((outer, key) for outer in ("pretrained_cfg", "antbee") for key in PLAIN[outer])]


@alike
@given(st.lists(st.tuples(st.sampled_from(KEYS), JSON), min_size=1, max_size=3))
def test_any_config_can_be_used_or_is_refused_in_one_line(changes):
    content = copied(PLAIN)
    for (*outer, name), value in changes:
        holder = content[outer[0]] if outer else content
        if isinstance(holder, dict):
            holder[name] = value
    try:
        config = ClassifierConfig.from_json(content)
    except (ModelFolderError, WeightsError) as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - it may as well be read
        return
    shown_everywhere(config)


def test_the_last_value_of_a_duplicate_key_is_used(tmp_path):
    text = json.dumps(PLAIN).replace('"seed": 1', '"seed": 1, "seed": 2')
    (tmp_path / "config.json").write_text(text)
    assert read_config(tmp_path).seed == 2


def test_metrics_are_validated_when_they_are_created():
    for wrong in ({"seconds": math.inf}, {"epochs": True}, {"confusion": [["1"]]}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Metrics.model_validate(CONFIG.metrics.model_dump() | wrong)


# ---- size ------------------------------------------------------------------------------------------------------------


def test_a_config_that_is_larger_than_its_content_explains_is_refused(tmp_path):
    written(tmp_path, CONFIG)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG.to_json() | {"padding": "x" * 300_000}))
    assert "expected at most" in complaint(read_config, tmp_path)


def test_of_many_skipped_files_the_first_are_listed_and_all_are_counted_by_reason(tmp_path):
    skipped = [LeftOut(f"train/ants/{number}.jpg.json", "a .json file, not a photo (no)") for number in range(80_000)]
    skipped += [LeftOut("train/ants/a.jpg", "too large a photo (50000 x 50000 pixels): make it smaller")]
    skipped += [LeftOut("train/ants/b.jpg", "too large a photo (40000 x 40000 pixels): make it smaller")]
    data = DataInfo.listing(skipped, [], name="x", train={"ants": 1, "bees": 2})
    assert [one.file for one in data.skipped] == [*(one.file for one in [*skipped[: MAX_SKIPPED - 2], *skipped[-2:]])]
    assert data.skipped_count == 80_002
    assert data.skipped_reasons == {"a .json file, not a photo": 80_000, "too large a photo": 2}
    config = replace(CONFIG, data=data)
    assert read_config(written(tmp_path, config)) == config
    assert (tmp_path / "config.json").stat().st_size < 2**16


def test_of_many_excluded_files_the_first_are_listed_with_a_digest_of_all(tmp_path):
    excluded = [os.fsdecode(b"train/ants/\xff%d.jpg" % number) for number in range(5_000)]
    data, other = (DataInfo.listing([], names) for names in (excluded, [*excluded[:-1], "another"]))
    assert data.excluded == excluded[:MAX_EXCLUDED]
    assert data.excluded_count == 5_000
    assert len(data.excluded_digest) == 64
    assert other.excluded_digest != data.excluded_digest
    config = replace(CONFIG, data=data)
    assert read_config(written(tmp_path, config)) == config


def test_few_files_are_all_listed_as_by_version_0_1():
    data = DataInfo.listing([LeftOut("a", "b")], ["c"], name="x")
    assert data.model_dump(exclude_unset=True) == {
        "name": "x",
        "skipped": [{"file": "a", "reason": "b"}],
        "excluded": ["c"],
    }


@pytest.mark.parametrize("count", [2, 50, MOST_CLASSES])
def test_a_config_of_any_number_of_classes_with_the_longest_names_can_be_read(tmp_path, count):
    names = tuple(os.fsdecode(b"%04d" % number + b"\xff" * 230) for number in range(count))
    counts = dict.fromkeys(names, 10**6)
    one = {"precision": 1 / 3, "recall": 2 / 3, "f1": 1 / 7}
    spread = {"values": [1 / 3] * 20_000, "mean": 1 / 3, "deviation": 1 / 7, "interval": [1 / 3, 2 / 3]}
    many = {
        "confusion": [[9999] * count] * count,
        "per_class": [one] * count,
        "test": {**share(1, 2).model_dump(exclude={"loss"}), "loss": 1 / 3, "macro": one, "calibration_error": 1 / 3}
        | {"confusion": [[9999] * count] * count, "per_class": [one] * count},
        "seeds": {"kept": spread, "last": spread},
    }
    skipped = [
        LeftOut(f"train/{names[0]}/{number}", "a reason of some length (and its details): advice")
        for number in range(150)
    ]
    data = DataInfo.listing(
        skipped, [one.file for one in skipped], train=counts, val=counts, holdout=counts, test=counts
    )
    metrics = CONFIG.metrics.model_dump(exclude_unset=True) | many
    config = replace(CONFIG, label_names=names, data=data, metrics=metrics)
    assert read_config(written(tmp_path, config)).label_names == names


# ---- history ---------------------------------------------------------------------------------------------------------


def test_a_history_is_read_or_refused_by_its_file(tmp_path):
    assert read_history(tmp_path) == ()
    (tmp_path / "history.json").write_text('[{"epoch": 1, "val_loss": 0.5}]')
    assert read_history(tmp_path) == ({"epoch": 1, "val_loss": 0.5},)
    for broken in ("{", "{}", "[1]", '[{"val_loss": 1}]', '[{"epoch": "1"}]', '[{"epoch": true}]', '[{"epoch": NaN}]'):
        (tmp_path / "history.json").write_text(broken)
        assert "history.json" in complaint(read_history, tmp_path)


def test_no_more_images_are_found_than_there_are(tmp_path):
    content = CONFIG.to_json()
    content["antbee"]["metrics"]["neither"]["val"] = {"found": 9, "count": 5}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert "antbee.metrics.neither.val is" in (text := complaint(read_config, tmp_path))
    assert "expected at most 5 found" in text


def test_the_kept_epoch_is_one_of_the_epochs(tmp_path):
    content = CONFIG.to_json()
    content["antbee"]["metrics"]["kept"]["epoch"] = content["antbee"]["metrics"]["epochs"] + 1
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert "antbee.metrics.kept.epoch is 6, expected at most 5, the number of epochs" in complaint(
        read_config, tmp_path
    )
