"""The hint to train without mirroring is given where mirrored photos are taken for another class, and nowhere else."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from antbee.data.folder import read_folder
from antbee.data.loading import ImageCache
from antbee.data.transforms import Preprocessing
from antbee.training import mirroring
from antbee.training.mirroring import mirror_hint
from antbee.training.recipe import FAST, TUTORIAL

PREPROCESSING = Preprocessing(crop=32, crop_pct=1.0)


def half_lit(side):
    """A picture that is bright on one side."""
    pixels = np.full((32, 32, 3), 40, np.uint8)
    pixels[:, :16] = 220
    return Image.fromarray(pixels if side == "left" else pixels[:, ::-1])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("sides")
    for split, count in (("train", 2), ("val", 10)):
        for side in ("left", "right"):
            (root / split / side).mkdir(parents=True)
            for number in range(count):
                half_lit(side).save(root / split / side / f"{number}.png")
    return read_folder(root)


def knows_sides(crop):
    pixels = np.asarray(crop, float)
    return "left" if pixels[:, :16].mean() > pixels[:, 16:].mean() else "right"


def knows_nothing(crop):
    return "left"


def model(name_of, accuracy, low):
    """What the hint needs of a classifier."""
    return SimpleNamespace(
        config=SimpleNamespace(
            metrics=SimpleNamespace(accuracy=accuracy, kept=SimpleNamespace(interval=[low, 1.0])),
            preprocessing=PREPROCESSING,
        ),
        predict_crops=lambda crops: [SimpleNamespace(label=name_of(crop)) for crop in crops],
    )


def hint(dataset, *, recipe=FAST, mirror=True, name_of=knows_sides, finetune=0.5):
    context = SimpleNamespace(
        recipe=SimpleNamespace(mirror=mirror, augmentation=recipe.augmentation), dataset=dataset, cache=ImageCache()
    )
    return mirror_hint(context, model(name_of, 1.0, 0.9), model(name_of, finetune, 0.3))


def test_where_mirrored_photos_are_taken_for_the_other_class_the_hint_says_how_many(dataset):
    text = hint(dataset)
    assert "Of 20 validation photos the frozen mode gets 20 right, and 0 when they are mirrored" in text
    assert text.endswith("train again with --no-mirror")


@pytest.mark.parametrize(
    "changes",
    [{"name_of": knows_nothing}, {"finetune": 0.95}, {"mirror": False}, {"recipe": TUTORIAL}],
    ids=["mirroring changes nothing", "finetune is no worse", "nothing was mirrored", "frozen was mirrored too"],
)
def test_otherwise_there_is_no_hint(dataset, changes):
    assert hint(dataset, **changes) == ""


def test_of_many_validation_photos_a_part_of_both_classes_is_predicted_again(dataset, monkeypatch):
    monkeypatch.setattr(mirroring, "MOST_MIRRORED", 10)
    assert "Of 10 validation photos the frozen mode gets 10 right" in hint(dataset)
