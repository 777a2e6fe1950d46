"""Batches do not depend on how images are loaded: threads, prefetching, the cache and device memory change nothing."""

import dataclasses
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_folders import small_set
from PIL import Image
from torch import Tensor

from antbee.data import folder as data_folder
from antbee.data import loading
from antbee.data.drawn import draw
from antbee.data.folder import Split, read_folder
from antbee.data.images import DataError, open_photo
from antbee.data.loading import GPUImageLoader, ImageCache, ImageLoader, LoaderOptions, cache_photo, crop_batch
from antbee.data.seeds import derived_seed, seeded_generator
from antbee.data.transforms import Augmentation, CropBox, Preprocessing, pixels_of

SMALL = Preprocessing(crop=32)


def load(photos: ImageLoader, positions: Sequence[Sequence[int]], epoch: int = 0) -> dict[int, Tensor]:
    """The image at every position, for any batches of positions."""
    images: dict[int, Tensor] = {}
    for wanted, (batch, labels) in zip(
        positions, photos.batches([torch.tensor(batch) for batch in positions], epoch), strict=True
    ):
        assert batch.shape[0] == len(wanted)
        assert labels.tolist() == photos.labels[list(wanted)].tolist()
        images.update(zip(wanted, batch, strict=True))
    return images


def augmented(root: Path, *, seed: int = 0, **options: Any) -> ImageLoader:
    augmentation = Augmentation(smallest_crop=0.08, sizes=(32,))
    if "cache" in options:
        options["cache"] = ImageCache(options["cache"])
    return ImageLoader(read_folder(root).train, SMALL, augmentation, seed=seed, options=LoaderOptions(**options))


def equal(one: dict[int, Tensor], other: dict[int, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[position], other[position]) for position in one)


def test_batches_are_normalised_images_and_class_indices(drawn_root: Path) -> None:
    photos = ImageLoader(read_folder(drawn_root).val, SMALL)
    ((images, labels),) = photos.batches([torch.tensor([0, 15, 3])])
    assert (images.shape, images.dtype) == ((3, 3, 32, 32), torch.float32)
    assert (labels.tolist(), labels.dtype) == ([0, 1, 0], torch.int64)
    assert len(photos) == len(photos.labels) == 16


def test_a_random_crop_depends_on_seed_epoch_and_position_alone(drawn_root: Path) -> None:
    photos = augmented(drawn_root)
    torch.manual_seed(1)
    first = load(photos, [[0, 1, 2, 3], [20, 21]], epoch=3)
    torch.manual_seed(2)
    assert equal(first, load(photos, [[21], [3, 0], [2, 20, 1]], epoch=3))
    assert equal(first, load(augmented(drawn_root), [[0, 1, 2, 3, 20, 21]], epoch=3))


def test_random_crops_differ_by_epoch_seed_and_position(drawn_root: Path) -> None:
    photos, other_seed = augmented(drawn_root), augmented(drawn_root, seed=1)
    first, second, other = load(photos, [[0, 1]], 0), load(photos, [[0, 1]], 1), load(other_seed, [[0, 1]], 0)
    for position in (0, 1):
        assert not torch.equal(first[position], second[position])
        assert not torch.equal(first[position], other[position])
    same_photo = dataclasses.replace(photos.split, paths=photos.split.paths[:1] * 2, labels=(0, 0))
    twice = load(ImageLoader(same_photo, SMALL, photos.augmentation), [[0, 1]])
    assert not torch.equal(twice[0], twice[1])


@pytest.mark.parametrize("options", [{"workers": 3}, {"workers": 2, "prefetch": 2}, {"cache": 0}, {"cache": 100_000}])
def test_workers_prefetching_and_caching_do_not_change_the_images(drawn_root: Path, options: dict[str, int]) -> None:
    positions = [[5, 0], [23, 7, 11], [2], [5]]
    plain, other = augmented(drawn_root), augmented(drawn_root, **options)
    for epoch in (1, 2):
        assert equal(load(plain, positions, epoch), load(other, positions, epoch))


def test_the_memory_layout_does_not_change_the_values(drawn_root: Path) -> None:
    ((plain, _),) = augmented(drawn_root).batches([torch.tensor([0, 1])])
    ((other, _),) = augmented(drawn_root, layout=torch.channels_last).batches([torch.tensor([0, 1])])
    assert plain.is_contiguous()
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, other)


@pytest.mark.parametrize("augmentation", [None, Augmentation(sizes=(32,))])
def test_a_photo_is_decoded_once_if_the_cache_has_room(
    drawn_root: Path, monkeypatch: pytest.MonkeyPatch, augmentation: Augmentation | None
) -> None:
    opened: list[Path] = []

    def open_and_record(path: Path, **options: Any) -> Image.Image:
        opened.append(path)
        return open_photo(path, **options)

    monkeypatch.setattr(data_folder, "open_photo", open_and_record)
    monkeypatch.setattr(loading, "open_photo", data_folder.open_photo)
    split = read_folder(drawn_root).train
    for limit, times in ((10**9, 1), (0, 3)):
        opened.clear()
        photos = ImageLoader(split, SMALL, augmentation, options=LoaderOptions(cache=ImageCache(limit)))
        for epoch in range(3):
            load(photos, [list(range(len(split)))], epoch)
        assert sorted(opened) == sorted(split.paths * times)


def test_transforms_with_different_pixels_share_no_cached_image(drawn_root: Path) -> None:
    split, cache = read_folder(drawn_root).train, ImageCache()
    transforms = [SMALL, replace(SMALL, interpolation="bicubic"), replace(SMALL, crop_pct=0.5), replace(SMALL, crop=24)]
    for transform in transforms:
        kept = ImageLoader(split, transform, options=LoaderOptions(cache=cache))
        assert equal(load(kept, [[0, 1]]), load(ImageLoader(split, transform), [[0, 1]]))
    assert len(cache) == 2 * len(transforms)


def test_cached_images_never_exceed_the_limit(drawn_root: Path) -> None:
    split = read_folder(drawn_root).train
    width, height = open_photo(split.paths[0]).size
    cache = ImageCache(5 * 3 * width * height)
    load(
        ImageLoader(split, SMALL, Augmentation(sizes=(32,)), options=LoaderOptions(workers=4, cache=cache)),
        [[*range(24)]],
    )
    kept = [picture for path in split.paths if (picture := cache.get((path, None, None)))]
    assert 0 < len(kept) == len(cache) < len(split)
    assert sum(3 * picture.width * picture.height for picture in kept) + cache.free == 5 * 3 * width * height


def test_images_cached_while_the_folder_is_read_equal_those_the_loader_would_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = small_set(tmp_path)
    draw("bees", 1, 200).save(root / "train/ants/large.jpg")
    transforms = [SMALL, Augmentation(sizes=(32,), shorter_side=64)]
    cache = ImageCache()
    split = read_folder(root, on_photo=lambda file, photo: cache_photo(cache, file.path, photo, transforms)).train
    # The evaluation crop of each photo, and each photo but the large one, which training decodes at another size.
    assert len(cache) == 8 + 1 + 8
    for transform in (None, transforms[1]):
        kept = ImageLoader(split, SMALL, transform, options=LoaderOptions(cache=cache))
        read = ImageLoader(split, SMALL, transform)
        positions = [[*range(len(split))]]
        assert equal(load(kept, positions), load(read, positions))
    monkeypatch.setattr(data_folder, "open_photo", None)
    monkeypatch.setattr(loading, "open_photo", data_folder.open_photo)  # not callable: reading anything would fail
    load(ImageLoader(split, SMALL, options=LoaderOptions(cache=cache)), positions)


def test_only_the_prefetched_batches_are_begun_before_they_are_used(
    drawn_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    crop = ImageLoader.crop

    def crop_and_record(self: ImageLoader, position: int, epoch: int) -> Image.Image:
        begun.append(position)
        return crop(self, position, epoch)

    monkeypatch.setattr(ImageLoader, "crop", crop_and_record)
    for prefetch in (0, 2):
        begun.clear()
        batches = augmented(drawn_root, prefetch=prefetch).batches([torch.tensor([number]) for number in range(8)])
        next(batches)
        batches.close()
        assert sorted(begun) == list(range(prefetch + 1))


def test_batches_are_prefetched_for_a_gpu_and_not_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    options = {name: LoaderOptions.for_device(torch.device(name), processes=4) for name in ("cpu", "cuda", "mps")}
    assert {name: (loading.workers, loading.prefetch) for name, loading in options.items()} == {
        "cpu": (3, 0),
        "cuda": (4, 4),
        "mps": (4, 4),
    }
    assert LoaderOptions.for_device(torch.device("cuda"), workers=7).workers == 7


def test_loading_leaves_the_global_generator_of_torch_unchanged(drawn_root: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load(augmented(drawn_root), [[0, 1], [2]])
    read_folder(drawn_root)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_photo_that_was_removed_is_an_error_that_names_it(tmp_path: Path) -> None:
    root = small_set(tmp_path)
    photos = ImageLoader(read_folder(root).train, Preprocessing(crop=8))
    (root / "train/ants/001.jpg").unlink()
    with pytest.raises(DataError, match=re.escape(str(root / "train/ants/001.jpg"))):
        load(photos, [[0, 1]])


def test_derived_seeds_are_fixed_values_that_differ_by_every_part() -> None:
    assert derived_seed(0, "look", 1, 2) == 5806292493511177220
    assert len({derived_seed(*parts) for parts in ((0, 1), (1, 0), (0, 11), (0, "1", 1), (0,), (10,), (1,))}) == 7
    assert seeded_generator(4, "x").initial_seed() == derived_seed(4, "x")


# ---------------------------------------------------------------------------------------------------------------------
# Device memory

POSITIONS = [torch.tensor([5, 0, 17]), torch.tensor([3])]


def both_loaders(split, augmentation=None, **options):
    """A loader from files, and one from the memory of a device."""
    loaders = [ImageLoader(split, SMALL, augmentation, seed=1, options=LoaderOptions(**options)) for _ in range(2)]
    return loaders[0], GPUImageLoader(loaders[1])


def test_evaluation_crops_from_device_memory_are_bit_identical(drawn_root):
    from_files, from_memory = both_loaders(read_folder(drawn_root).train)
    for one, other in zip(from_files.batches(POSITIONS), from_memory.batches(POSITIONS), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("epoch", [1, 2])
def test_random_crops_from_device_memory_differ_by_two_levels_at_most(drawn_root, epoch):
    from_files, from_memory = both_loaders(
        read_folder(drawn_root).train, Augmentation(smallest_crop=0.2, sizes=(32, 24))
    )
    level = 1 / 255 / min(SMALL.std)
    for one, other in zip(from_files.batches(POSITIONS, epoch), from_memory.batches(POSITIONS, epoch), strict=True):
        assert one[0].shape == other[0].shape == (len(one[1]), 3, *([32, 24][epoch - 1],) * 2)
        assert (one[0] - other[0]).abs().max() <= 2.01 * level
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [16, 90, 200])
def test_crops_of_a_batch_equal_pillows_when_shrunk_and_when_enlarged(size, mirrored):
    photos = [draw("ants", number, 160).resize((160, 110)) for number in range(3)]
    crops = [CropBox(box, mirrored) for box in ((0, 0, 160, 110), (20, 30, 95, 109), (150, 3, 160, 90))]
    found = crop_batch(pixels_of(photos), crops, size)
    expected = pixels_of([crop.cut(photo, size) for crop, photo in zip(crops, photos, strict=True)])
    assert found.dtype == torch.uint8
    assert (found.int() - expected.int()).abs().max() <= 2


def test_the_padding_of_smaller_photos_is_never_in_a_crop(tmp_path):
    paths = tuple(tmp_path / f"{number}.png" for number in range(3))
    for path, size in zip(paths, [(90, 40), (30, 80), (50, 50)], strict=True):
        Image.new("RGB", size, "white").save(path)
    from_memory = GPUImageLoader(ImageLoader(Split(paths, (0, 1, 0)), SMALL, Augmentation(sizes=(32,))))
    for epoch in range(20):
        ((images, _),) = from_memory.batches([torch.arange(3)], epoch)
        assert torch.equal(SMALL.unnormalise(images), torch.ones(3, 3, 32, 32))


def test_a_photo_that_is_too_large_for_device_memory_is_shrunk(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "LONGEST_SIDE", 60)
    Image.fromarray(np.full((50, 100, 3), 9, np.uint8)).save(tmp_path / "a.png")
    photos = ImageLoader(Split((tmp_path / "a.png",), (0,)), SMALL, Augmentation(sizes=(32,)))
    assert GPUImageLoader(photos)._pixels.shape == (1, 3, 30, 60)
    assert photos.picture(0).size == (100, 50), "other readers get it in full size"


def test_a_data_set_is_kept_in_gpu_memory_only_if_it_is_small(monkeypatch, drawn_root):
    monkeypatch.setattr(loading, "GPUImageLoader", lambda loader: "in GPU memory")
    split = read_folder(drawn_root).train
    on_a_gpu, on_the_cpu = (
        ImageLoader(split, SMALL, options=LoaderOptions(torch.device(name))) for name in ("cuda", "cpu")
    )
    assert loading.choose_loader(on_a_gpu) == "in GPU memory"
    assert loading.choose_loader(on_the_cpu) is on_the_cpu
    monkeypatch.setattr(loading, "LARGEST_SET", len(split) * 3 * loading.LONGEST_SIDE**2 - 1)
    assert loading.choose_loader(on_a_gpu) is on_a_gpu


def test_device_memory_gives_the_memory_layout_asked_for(drawn_root):
    _, from_memory = both_loaders(read_folder(drawn_root).train, Augmentation(sizes=(32,)), layout=torch.channels_last)
    ((images, _),) = from_memory.batches(POSITIONS[:1])
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_another_seed_gives_other_crops_from_device_memory(drawn_root):
    split = read_folder(drawn_root).train
    photos = ImageLoader(split, SMALL, Augmentation(sizes=(32,)))
    other = ImageLoader(split, SMALL, Augmentation(sizes=(32,)), seed=1)
    ((one, _),), ((two, _),) = (GPUImageLoader(each).batches(POSITIONS[:1]) for each in (photos, other))
    assert not torch.equal(one, two)
