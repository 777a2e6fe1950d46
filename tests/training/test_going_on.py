"""A training that goes on from an earlier model: what is kept of it, and what is said of it."""

import json
import shutil
import unicodedata

import pytest
import torch
from quick_training import quickening
from safetensors.torch import load_file, save_file

import antbee
from antbee import hub
from antbee.data.drawn import write_drawn_set
from antbee.data.transforms import Preprocessing
from antbee.errors import InputError
from antbee.models.backbone import head_of, new_head
from antbee.models.classifier import Classifier
from antbee.models.config import ClassifierConfig, read_config
from antbee.models.earlier import EarlierModel
from antbee.models.provenance import MOST_EARLIER, EarlierWeights, WeightsInfo
from antbee.models.weights import StartingWeights, WeightsError, build_network, choose_network
from antbee.training import pipeline
from antbee.training.checkpoint import DeferredSignals
from antbee.training.context import Settings, prepare
from antbee.training.distributed import DistributedContext
from antbee.training.steps import starting_features
from antbee.training.summary import start_lines

SIDE = 64  # pixels
QUICK = {"device": "cpu", "batch_size": 4, "epochs": 1, "backbone": "test_resnet"}


def photos_in(root, *names, seed=0):
    """A data folder with classes of these names, of drawn ants and bees in turn."""
    for number in range(0, len(names), 2):
        part = root.parent / f"{root.name}-{number}"
        counts = dict.fromkeys(("ants", "bees"), 4)
        write_drawn_set(part, train=counts, val=counts, longest_side=SIDE)
        for split in ("train", "val"):
            (root / split).mkdir(parents=True, exist_ok=True)
            for kind, name in zip(("ants", "bees"), names[number : number + 2], strict=False):
                (part / split / kind).rename(root / split / name)
        shutil.rmtree(part)
    return root


def train_quickly(data, output, **settings):
    """Trains with small crops and without figures; returns the run and its log."""
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        for change in quickening():
            patch.setattr(*change)
        run = antbee.train(data, output=output, log=lines.append, **{**QUICK, **settings})
    return run, "\n".join(lines)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """The output folder of a run of both modes with ants and bees, from random weights; its photos are beside it."""
    root = tmp_path_factory.mktemp("earlier")
    train_quickly(photos_in(root / "photos", "ants", "bees"), root / "outputs", weights="random", epochs=2)
    return root / "outputs"


@pytest.fixture
def three(tmp_path):
    """Photos of one of its classes, and of two new ones."""
    return photos_in(tmp_path / "three", "crickets", "bees", "wasps")


def context_of(data, weights, output, **settings):
    values = {"device": "cpu", "weights": str(weights), "output": output, **settings}
    return prepare(data, Settings.checked(**values), DistributedContext(), DeferredSignals(), lambda line: None)


def head_in(folder):
    state = load_file(folder / "model.safetensors")
    return state["fc.weight"], state["fc.bias"]


# ---- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_the_network_and_the_preprocessing_are_the_models_own(earlier, three, tmp_path, mode):
    context = context_of(three, earlier / mode, tmp_path)
    config = read_config(earlier / mode)
    assert context.backbone == config.architecture == "test_resnet"
    assert context.recipe.preprocessing == config.preprocessing
    state, network = load_file(earlier / mode / "model.safetensors"), context.starting_network(0).state_dict()
    assert all(torch.equal(network[name], state[name]) for name in state if not name.startswith("fc."))


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_how_photos_become_squares_and_whether_they_are_mirrored_are_the_models_own_unless_said(three, tmp_path, mode):
    settings = {"mode": mode, "fit": "squash", "mirror": False}
    train_quickly(three, tmp_path / "outputs", weights="random", **settings)
    kept = context_of(three, tmp_path / "outputs" / mode, tmp_path).recipe
    assert (kept.preprocessing.fit, kept.mirror) == ("squash", False)
    said = context_of(three, tmp_path / "outputs" / mode, tmp_path, fit="crop", mirror=True).recipe
    assert (said.preprocessing.fit, said.mirror) == ("crop", True)


def test_rows_of_common_classes_are_kept_and_new_classes_get_zeros(earlier, three, tmp_path):
    weight, bias = head_in(earlier / "frozen")
    context = context_of(three, earlier / "frozen", tmp_path)
    assert context.dataset.class_names == ("bees", "crickets", "wasps")
    for seed in range(2):
        head = head_of(context.starting_network(seed))
        assert torch.equal(head.weight[0], weight[1])
        assert torch.equal(head.bias[0], bias[1])
        assert not head.weight[1:].any()
        assert not head.bias[1:].any()
        assert head.weight.requires_grad


def test_a_recipe_that_draws_heads_draws_the_rows_of_new_classes_alone(tmp_path, three):
    model = Classifier(
        build_network("resnet18", 2, StartingWeights("random"), seed=0),
        ClassifierConfig("resnet18", ("ants", "bees"), Preprocessing(crop=SIDE)),
    )
    model.save_pretrained(tmp_path / "model")
    context = context_of(three, tmp_path / "model", tmp_path, recipe="tutorial", image_size=SIDE)
    one, other = (head_of(context.starting_network(seed)).weight for seed in range(2))
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[0], head_of(model.network).weight[1])
    assert not torch.equal(one[1:], other[1:])
    assert torch.equal(one[1:], new_head(512, 3, seed=0).weight[1:])


def test_names_are_compared_in_normalisation_form_c():
    name = "b\N{LATIN SMALL LETTER A WITH DIAERESIS}ren"
    decomposed = unicodedata.normalize("NFD", name)
    rows = new_head(4, 2, seed=0)
    model = EarlierModel((decomposed, "ants"), rows, frozenset(), backbone_is_trained=False)
    head = model.head_for(["wasps", name], new_head(4, 2, seed=1))
    assert torch.equal(head.weight[1], rows.weight[0])
    assert model.kept(["wasps", name]) == [name]
    assert model.dropped(["wasps", name]) == ["ants"]


def test_a_backbone_that_contradicts_the_model_is_an_error_in_a_sentence(earlier):
    with pytest.raises(
        WeightsError, match=r"outputs/frozen is a 'test_resnet': give --backbone 'test_resnet' or leave"
    ):
        choose_network("resnet18", str(earlier / "frozen"))
    assert choose_network("test_resnet", str(earlier / "frozen"))[0] == "test_resnet"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "is a folder of models, expected one of them"),
        ("empty", "is no model of antbee or timm"),
        ("cut", "is damaged"),
    ],
)
def test_a_folder_that_is_no_whole_model_is_an_error_in_a_sentence(earlier, tmp_path, name, words):
    (tmp_path / "empty").mkdir()
    shutil.copytree(earlier / "frozen", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(InputError, match=words) as raised:
        choose_network(None, str(tmp_path / name if name else earlier))
    assert len(str(raised.value).splitlines()) == 1


def test_a_model_that_timm_saved_gives_its_network_and_backbone_with_a_new_head(tmp_path):
    state = build_network("test_resnet", 7, StartingWeights("random"), seed=0).state_dict()
    save_file(dict(state), tmp_path / "model.safetensors")
    cfg = {"input_size": [3, 96, 96], "mean": [0.1, 0.2, 0.3]}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": cfg}))
    backbone, weights, notice = choose_network(None, str(tmp_path))
    assert (backbone, notice, weights.model) == ("test_resnet", None, None)
    assert (weights.preprocessing.crop, weights.preprocessing.mean) == (96, (0.1, 0.2, 0.3))


# ---- figures that depend on what the model has seen ------------------------------------------------------------------


def test_before_training_the_models_own_head_is_scored_where_it_has_every_class(earlier, three, tmp_path):
    photos = earlier.parent / "photos"
    context = context_of(photos, earlier / "frozen", tmp_path)
    score = starting_features(context).data_metrics["zero_shot"]
    kept = read_config(earlier / "frozen").metrics.kept
    assert (score.correct, score.count) == (kept.correct, kept.count)
    assert score.loss == pytest.approx(kept.loss, rel=1e-3)  # its head is used as it was calibrated
    assert context_of(three, earlier / "frozen", tmp_path).own_head is None


def test_a_thousand_classes_of_an_earlier_model_are_not_taken_for_imagenets(tmp_path):
    names = tuple(f"class {number}" for number in range(1000))
    network = build_network("test_resnet", 1000, StartingWeights("random"), seed=0)
    Classifier(network, ClassifierConfig("test_resnet", names, Preprocessing(crop=SIDE))).save_pretrained(
        tmp_path / "model"
    )
    context = context_of(photos_in(tmp_path / "photos", "ants", "bees"), tmp_path / "model", tmp_path)
    assert context.own_head is None
    assert not context.first_head(0).weight.any()


def test_photos_count_as_seen_by_their_names(earlier, three, tmp_path):
    others = context_of(three, earlier / "frozen", tmp_path)
    assert others.seen_before(others.train) == 4  # train/bees
    same = context_of(earlier.parent / "photos", earlier / "frozen", tmp_path)
    assert [same.seen_before(split) for split in (same.train, same.dataset.val)] == [8, 0]


def test_left_out_classes_are_counted_only_where_no_earlier_training_changed_the_backbone(earlier, tmp_path):
    counts = dict.fromkeys(("ants", "bees"), 12)  # enough for a threshold
    photos = write_drawn_set(tmp_path / "photos", train=counts, val=counts, longest_side=SIDE)
    for mode, is_untrained in (("frozen", True), ("finetune", False)):
        run, _ = train_quickly(photos, tmp_path / mode, weights=str(earlier / mode), mode="frozen")
        assert (run.frozen.metrics.neither.left_out is not None) == is_untrained
    run, _ = train_quickly(photos, tmp_path / "none", weights=str(earlier / "finetune"), mode="frozen", folds=0)
    assert run.frozen.metrics.neither is None  # no threshold either


def test_what_the_model_has_seen_is_warned_of(earlier, tmp_path):
    photos = shutil.copytree(earlier.parent / "photos", tmp_path / "photos")
    for name in ("ants", "bees"):  # one of each changes sides
        first = next((photos / "train" / name).iterdir())
        shutil.move(first, photos / "val" / name / first.name)
    from_frozen, from_finetune = (
        "\n".join(start_lines(context_of(photos, earlier / mode, tmp_path))) for mode in ("frozen", "finetune")
    )
    assert "outputs/finetune was trained on 6 photos of these" in from_finetune
    assert "outputs/frozen was trained on 6 photos of these" in from_frozen
    assert "head: 2 of 2 classes from outputs/frozen" in from_frozen


def test_validation_photos_that_the_model_was_trained_on_are_warned_of(tmp_path):
    counts = {"ants": 10, "bees": 10}
    whole = write_drawn_set(tmp_path / "whole", train=counts, val=dict.fromkeys(counts, 1), longest_side=SIDE) / "train"
    train_quickly(whole, tmp_path / "outputs", weights="random", mode="frozen")
    lines = [
        "\n".join(start_lines(context_of(whole, tmp_path / "outputs" / "frozen", tmp_path, seed=seed)))
        for seed in range(2)
    ]
    assert "have the names of photos" not in lines[0]
    assert "validation photos have the names of photos that outputs/frozen was trained on" in lines[1]


# ---- whole runs ------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_into_the_folder_its_weights_come_from_and_tells_the_chain(earlier, three, tmp_path):
    output = shutil.copytree(earlier, tmp_path / "outputs")
    before = read_config(output / "frozen")
    settings = {"weights": str(output / "frozen"), "backbone": None}
    _, printed = train_quickly(three, output, **settings)
    assert "head: 1 of 3 classes from outputs/frozen; new: crickets, wasps; left out: ants" in printed
    for mode in ("frozen", "finetune"):
        weights = read_config(output / mode).weights
        assert (weights.name, weights.digest) == ("outputs/frozen", before.files["model.safetensors"])
        assert [one.name for one in weights.earlier] == ["random"]
        assert weights.origin == "random"
        card = (output / mode / "README.md").read_text()
        assert "They are those of an earlier model, which was trained from random." in card
        assert "Started from random weights" in card
        assert "license: mit" in card
    (version,) = (output / "versions").iterdir()
    assert read_config(version / "frozen").files == before.files

    _, printed = train_quickly(photos_in(tmp_path / "two", "bees", "wasps"), output, mode="frozen", **settings)
    assert "head: 2 of 2 classes from outputs/frozen; left out: crickets" in printed
    weights = read_config(output / "frozen").weights
    assert [one.name for one in weights.earlier] == ["outputs/frozen", "random"]
    assert weights.earlier[0].digest == before.files["model.safetensors"]


def test_an_interrupted_run_that_goes_on_from_a_model_in_its_own_folder_is_resumed(
    earlier, three, tmp_path, monkeypatch
):
    output = shutil.copytree(earlier, tmp_path / "outputs")
    settings = {"weights": str(output / "frozen"), "backbone": None, "mode": "frozen"}
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "finish", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_quickly(three, output, **settings)
    _, printed = train_quickly(three, output, resume=True, **settings)
    assert "frozen: finished before" in printed
    assert read_config(output / "frozen").label_names == ("bees", "crickets", "wasps")


def test_a_model_of_the_hub_is_gone_on_from_by_its_id_and_is_the_cards_base_model(
    earlier, three, tmp_path, monkeypatch
):
    monkeypatch.setattr(hub, "pull", lambda repository: earlier / "finetune")
    _, printed = train_quickly(three, tmp_path / "outputs", weights="me/mine", backbone=None, mode="frozen")
    assert "head: 1 of 3 classes from me/mine" in printed
    card = (tmp_path / "outputs" / "frozen" / "README.md").read_text()
    assert "base_model: me/mine" in card
    assert "license:" not in card
    assert read_config(tmp_path / "outputs" / "frozen").weights.base_model == "me/mine"
    # A model that goes on from this one still names it, and still has no license of its beginnings.
    train_quickly(three, tmp_path / "more", weights=str(tmp_path / "outputs" / "frozen"), mode="frozen")
    card = (tmp_path / "more" / "frozen" / "README.md").read_text()
    assert "base_model: me/mine" in card
    assert "license:" not in card


def test_a_name_that_is_neither_a_folder_nor_on_the_hub_is_an_error_that_says_both(monkeypatch):
    def refuse(repository):
        raise hub.HubError("The Hub has no such repository.")

    monkeypatch.setattr(hub, "pull", refuse)
    with pytest.raises(WeightsError, match=r"no folder of this name, and outputs/frozen: The Hub has no such"):
        choose_network(None, "outputs/frozen")


@pytest.mark.parametrize("side", [96, 160, 64])
def test_a_model_of_a_network_for_one_size_goes_on_in_its_own_size_or_in_another(tmp_path, three, side):
    network = build_network("test_vit", 2, StartingWeights("random"), seed=0, image_size=96)
    config = ClassifierConfig("test_vit", ("ants", "bees"), Preprocessing(crop=96))
    Classifier(network, config).save_pretrained(tmp_path / "model")
    context = context_of(three, tmp_path / "model", tmp_path, **({} if side == 96 else {"image_size": side}))
    new = context.starting_network(0)
    assert new(torch.zeros(1, 3, side, side)).shape == (1, 3)
    assert torch.equal(new.state_dict()["blocks.0.attn.qkv.weight"], network.state_dict()["blocks.0.attn.qkv.weight"])
    assert torch.equal(head_of(new).weight[0], head_of(network).weight[1])


def test_a_long_chain_keeps_its_end_and_its_beginning():
    weights = WeightsInfo(name="imagenet", digest="d" * 64)
    for number in range(2 * MOST_EARLIER):
        weights = WeightsInfo(name=f"model {number}", earlier=weights.as_earlier())
    assert len(weights.earlier) == MOST_EARLIER
    assert weights.earlier[0].name == f"model {2 * MOST_EARLIER - 2}"
    assert weights.earlier[-1] == EarlierWeights(name="imagenet", digest="d" * 64)
    assert weights.origin == "imagenet"
