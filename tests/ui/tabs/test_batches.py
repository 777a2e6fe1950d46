"""Batches: the network's input, augmentation and predictions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from page_helpers import SMALL
from PIL import ImageColor

from antbee import Classifier, ui
from antbee.data.images import open_photo
from antbee.evaluation import plots
from antbee.training.recipe import FAST
from antbee.ui.i18n import CHINESE
from antbee.ui.tabs.batches import AUGMENTED, FRAME, augmented, batch, positions_of, predicted


def pixels(pictures):
    return [picture.tobytes() for picture, _ in pictures]


@pytest.mark.parametrize("which", ["train", "val"])
def test_a_batch_is_reproducible_by_its_seed(snapshot, which):
    first, again, other = (
        [pixels(grid.pictures) for grid in batch(snapshot, None, which, 4, seed)] for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_a_batch_has_no_photo_twice(photos):
    positions = positions_of(photos.val, "val", len(photos.val), 3)
    assert positions.dtype == torch.int64
    assert sorted(positions.tolist()) == list(range(len(photos.val)))
    assert len(positions_of(photos.val, "val", 4, 3)) == 4
    assert len(positions_of(photos.val, "val", 1000, 3)) == len(photos.val)


def test_a_larger_batch_of_the_same_seed_starts_with_the_smaller_one(photos):
    small, large = (positions_of(photos.train, "train", size, 7).tolist() for size in (4, 12))
    assert large[:4] == small


def test_training_photos_have_one_grid_and_validation_photos_one_for_each_model(snapshot):
    (grid,) = batch(snapshot, None, "train", 4, 7)
    assert (grid.title, len(grid.pictures)) == ("drawn: train batch 7", 4)
    both = batch(snapshot, None, "val", 4, 7)
    assert [grid.title for grid in both] == ["frozen: val batch 7", "finetune: val batch 7"]
    (one,) = batch(snapshot, ["finetune"], "val", 4, 7)
    assert one.title == "finetune: val batch 7"
    assert pixels(one.pictures) == pixels(both[1].pictures)
    (chinese,) = batch(snapshot, ["finetune"], "val", 4, 7, CHINESE)
    assert chinese.title == "finetune：val 批次 7"  # noqa: RUF001


def test_training_photos_have_their_class_as_caption_and_the_size_of_the_networks_input(snapshot, photos):
    (grid,) = batch(snapshot, None, "train", 8, 0)
    positions = positions_of(photos.train, "train", 8, 0).tolist()
    assert [caption for _, caption in grid.pictures] == [photos.train.paths[at].parent.name for at in positions]
    assert {picture.size for picture, _ in grid.pictures} == {(SMALL.crop, SMALL.crop)}


def test_validation_photos_show_the_prediction_whether_it_is_right_and_the_true_class(models, photos):
    positions = torch.arange(len(photos.val))
    pictures = predicted(models[0], photos, positions)
    predictions = models[0].classifier.predict([open_photo(path) for path in photos.val.paths])
    rights = []
    for (picture, caption), prediction, label in zip(pictures, predictions, photos.val.labels, strict=True):
        truth = photos.class_names[label]
        right = prediction.label == truth
        probability = f"{prediction.probabilities[prediction.label]:.0%}"
        sign = plots.RIGHT_SIGN if right else plots.WRONG_SIGN
        assert caption.startswith(f"{sign} {prediction.label} {probability}")
        assert (f"is: {truth}" in caption) != right
        assert picture.size == (SMALL.crop + 2 * FRAME,) * 2
        assert picture.getpixel((0, 0)) == ImageColor.getrgb(plots.RIGHT if right else plots.WRONG)
        rights.append(right)
    assert set(rights) == {True, False}, "the test needs right and wrong predictions"


def test_within_its_frame_a_validation_photo_is_the_networks_crop(models, photos):
    ((picture, _),) = predicted(models[0], photos, torch.tensor([5]))
    crop = SMALL.cropped(open_photo(photos.val.paths[5]))
    inside = picture.crop((FRAME, FRAME, picture.width - FRAME, picture.height - FRAME))
    difference = torch.tensor(list(inside.tobytes())).int() - torch.tensor(list(crop.tobytes())).int()
    assert difference.abs().max() <= 1  # normalising and back rounds


def test_captions_escape_class_names_that_are_not_unicode(models, photos):
    odd = replace(photos, class_names=("b\udcff", "bees"))
    (grid,) = batch(ui.Snapshot((), odd), None, "train", 12, 0)
    assert {caption for _, caption in grid.pictures} <= {"b\\udcff", "bees"}


def test_batches_need_no_model(photos):
    for which in ("train", "val"):
        (grid,) = batch(ui.Snapshot((), photos), None, which, 4, 0)
        assert grid.title == f"drawn: {which} batch 0"
        assert {picture.size for picture, _ in grid.pictures} == {(FAST.preprocessing.crop,) * 2}


def test_validation_photos_of_other_classes_than_the_models_are_shown_without_predictions(models, photos):
    others = replace(photos, class_names=("cats", "dogs"))
    (grid,) = batch(ui.Snapshot(models, others), None, "val", 4, 0)
    assert {caption for _, caption in grid.pictures} <= {"cats", "dogs"}


def test_without_photos_there_is_no_batch(models):
    assert batch(ui.Snapshot(models, None), None, "val", 4, 0) == []


def test_predictions_are_matched_by_class_name_if_the_folder_orders_its_classes_differently(models, photos):
    labels = tuple(1 - label for label in photos.val.labels)
    turned = replace(photos, class_names=photos.class_names[::-1], val=replace(photos.val, labels=labels))
    positions = torch.tensor([0, 1, 14, 15])
    captions, reordered = (predicted(models[0], folder, positions) for folder in (photos, turned))
    assert [caption for _, caption in reordered] == [caption for _, caption in captions]


# ---- augmented versions of one photo ---------------------------------------------------------------------------------


def test_augmentation_is_reproducible_by_seed_and_differs_by_epoch(snapshot):
    first, again = (augmented(snapshot, "train", 8, 3, picked=2) for _ in range(2))
    assert pixels(first) == pixels(again)
    assert len(set(pixels(first))) == AUGMENTED == len(first)
    assert [caption for _, caption in first] == [f"epoch {epoch}" for epoch in range(1, AUGMENTED + 1)]
    assert pixels(augmented(snapshot, "train", 8, 4, picked=2)) != pixels(first)


def test_augmented_versions_are_of_the_picked_photo_for_every_batch_size(snapshot):
    third = augmented(snapshot, "train", 8, 3, picked=2)
    assert pixels(augmented(snapshot, "train", 4, 3, picked=2)) == pixels(third)
    assert pixels(augmented(snapshot, "train", 8, 3, picked=1)) != pixels(third)


def test_augmented_versions_differ_between_the_splits(snapshot):
    assert pixels(augmented(snapshot, "val", 8, 3, picked=2)) != pixels(augmented(snapshot, "train", 8, 3, picked=2))


def test_no_augmented_version_repeats_the_picture_of_the_batch(snapshot):
    (grid,) = batch(snapshot, None, "train", 8, 3)
    assert pixels(grid.pictures)[2] not in pixels(augmented(snapshot, "train", 8, 3, picked=2))


@pytest.fixture
def snapshot_of(models, photos):
    """A snapshot of a model with another recipe, and other values of its config."""

    def with_config(recipe, **changes):
        config = replace(models[0].config, recipe=recipe, **changes)
        return ui.Snapshot((replace(models[0], classifier=Classifier(models[0].classifier.network, config)),), photos)

    return with_config


def test_augmentation_uses_the_smallest_crop_of_the_models_recipe(snapshot_of):
    narrow, wide, usual = (
        pixels(augmented(snapshot_of(recipe), "train", 4, 0, 0))
        for recipe in ({"smallest_crop": 1.0}, {"smallest_crop": 0.1}, {"smallest_crop": FAST.smallest_crop})
    )
    assert narrow != wide
    assert usual == pixels(augmented(snapshot_of({}), "train", 4, 0, 0))


def test_augmentation_mirrors_only_if_the_models_recipe_does(snapshot_of):
    recipe = {"smallest_crop": 1.0}
    mirrored, plain = (
        pixels(augmented(snapshot_of({**recipe, "mirror": mirror}), "train", 4, 0, 0)) for mirror in (True, False)
    )
    assert mirrored == pixels(augmented(snapshot_of(recipe), "train", 4, 0, 0)), "earlier models were all mirrored"
    assert len(set(map(str, plain))) < len(set(map(str, mirrored)))


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_batches_show_photos_as_the_models_see_them(models, snapshot_of, fit):
    preprocessing = replace(models[0].config.preprocessing, crop_pct=1.0, fit=fit)
    snapshot = snapshot_of({"smallest_crop": 1.0, "mirror": False}, preprocessing=preprocessing)
    for which in ("train", "val"):
        (grid,) = batch(snapshot, None, which, 4, 0)
        photo = open_photo(
            getattr(snapshot.photos, which).paths[positions_of(getattr(snapshot.photos, which), which, 4, 0)[0]]
        )
        shown = np.asarray(grid.pictures[0][0], float)
        frame = (shown.shape[0] - preprocessing.crop) // 2
        shown = shown[frame : frame + preprocessing.crop, frame : frame + preprocessing.crop]
        assert np.abs(shown - np.asarray(preprocessing.cropped(photo), float)).mean() < 4
