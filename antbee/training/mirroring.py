"""Finds out whether mirroring changes the class of photos, as of arrows to the left and to the right."""

from typing import TYPE_CHECKING

import torch
from PIL import ImageOps

from antbee.data.loading import ImageLoader, LoaderOptions
from antbee.evaluation.metrics import difference
from antbee.models.classifier import BATCH_SIZE, Classifier
from antbee.text import counted

if TYPE_CHECKING:
    from antbee.training.context import RunContext

MOST_MIRRORED = 500  # validation photos that are predicted again


def mirror_hint(context: "RunContext", frozen: Classifier, finetune: Classifier) -> str:
    """Advice to train without mirroring, empty where nothing speaks for it.

    The photos are predicted again only where fine-tuning, which sees mirrored photos, did worse than the frozen mode,
    which need not: its accuracy is below the frozen mode's 95% interval. If the frozen mode then gets fewer of the
    mirrored validation photos right, by more than chance explains, left and right are what it tells the classes by.
    """
    first, second = frozen.config.metrics, finetune.config.metrics
    assert first is not None
    assert second is not None
    trained_mirrored = context.recipe.augmentation("frozen")
    if not context.recipe.mirror or trained_mirrored or second.accuracy >= first.kept.interval[0]:
        return ""
    count = len(context.dataset.val)
    split = context.dataset.val.subset(range(0, count, -(-count // MOST_MIRRORED)))
    loader = ImageLoader(split, frozen.config.preprocessing, options=LoaderOptions(cache=context.cache))
    plain, mirrored = [], []
    for positions in torch.arange(len(split)).split(BATCH_SIZE):
        crops = [loader.picture(position) for position in positions.tolist()]
        plain += frozen.predict_crops(crops)
        mirrored += frozen.predict_crops([ImageOps.mirror(crop) for crop in crops])
    names = [context.dataset.class_names[label] for label in split.labels]
    right, right_mirrored = (
        torch.tensor([prediction.label == name for prediction, name in zip(predictions, names, strict=True)])
        for predictions in (plain, mirrored)
    )
    found = difference(right, right_mirrored)
    if not found.is_significant or found.first_alone < found.second_alone:
        return ""
    return (
        f"hint: mirroring changes what these photos are. Of {counted(len(split), 'validation photo')} the frozen mode "
        f"gets {int(right.sum())} right, and {int(right_mirrored.sum())} when they are mirrored, as half of the photos "
        "that fine-tuning sees are: train again with --no-mirror"
    )
