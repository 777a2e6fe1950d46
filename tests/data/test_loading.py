"""A set that lies whole on a device gives the batches that reading it anew would give."""

import numpy as np
import pytest
import torch
from PIL import Image

from antbee.data import loading as data_loading
from antbee.data.drawn import draw
from antbee.data.folder import Split, read_folder
from antbee.data.loading import GPUImageLoader, ImageLoader, LoaderOptions, cut
from antbee.data.transforms import Augmentation, CropBox, Preprocessing, pixels_of

SMALL = Preprocessing(crop=32)
POSITIONS = [torch.tensor([5, 0, 17]), torch.tensor([3])]


def pair(split, augmentation=None, **loading):
    """The same photos, read for every batch and lying on the device."""
    photos = [ImageLoader(split, SMALL, augmentation, seed=1, options=LoaderOptions(**loading)) for _ in range(2)]
    return photos[0], GPUImageLoader(photos[1])


def test_validation_photos_are_the_same_to_the_bit(drawn_root):
    read, lying = pair(read_folder(drawn_root).train)
    for one, other in zip(read.batches(POSITIONS), lying.batches(POSITIONS), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("epoch", [1, 2])
def test_random_crops_are_the_same_but_for_a_shade_or_two(drawn_root, epoch):
    read, lying = pair(read_folder(drawn_root).train, Augmentation(smallest_crop=0.2, sizes=(32, 24)))
    shade = 1 / 255 / min(SMALL.std)
    for one, other in zip(read.batches(POSITIONS, epoch), lying.batches(POSITIONS, epoch), strict=True):
        assert one[0].shape == other[0].shape == (len(one[1]), 3, *([32, 24][epoch - 1],) * 2)
        assert (one[0] - other[0]).abs().max() <= 2.01 * shade
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [16, 90, 200])
def test_a_cut_is_pillows_whether_it_shrinks_or_enlarges(size, mirrored):
    photos = [draw("ants", number, 160).resize((160, 110)) for number in range(3)]
    places = [CropBox(box, mirrored) for box in ((0, 0, 160, 110), (20, 30, 95, 109), (150, 3, 160, 90))]
    found = cut(pixels_of(photos), places, size)
    expected = pixels_of([place.cut(photo, size) for place, photo in zip(places, photos, strict=True)])
    assert found.dtype == torch.uint8
    assert (found.int() - expected.int()).abs().max() <= 2


def test_photos_of_several_sizes_never_show_what_lies_around_them(tmp_path):
    paths = tuple(tmp_path / f"{number}.png" for number in range(3))
    for path, size in zip(paths, [(90, 40), (30, 80), (50, 50)], strict=True):
        Image.new("RGB", size, "white").save(path)
    lying = GPUImageLoader(ImageLoader(Split(paths, (0, 1, 0)), SMALL, Augmentation(sizes=(32,))))
    for epoch in range(20):
        ((images, _),) = lying.batches([torch.arange(3)], epoch)
        assert torch.equal(SMALL.unnormalise(images), torch.ones(3, 3, 32, 32))


def test_a_photo_larger_than_a_place_is_shrunk_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(data_loading, "LONGEST_SIDE", 60)
    Image.fromarray(np.full((50, 100, 3), 9, np.uint8)).save(tmp_path / "a.png")
    photos = ImageLoader(Split((tmp_path / "a.png",), (0,)), SMALL, Augmentation(sizes=(32,)))
    assert GPUImageLoader(photos)._pixels.shape == (1, 3, 30, 60)
    assert photos.picture(0).size == (100, 50), "what others read stays as it is"


def test_only_a_small_set_of_a_gpus_is_kept_whole(monkeypatch, drawn_root):
    monkeypatch.setattr(data_loading, "GPUImageLoader", lambda photos: "resident")
    split = read_folder(drawn_root).train
    on_a_gpu, on_the_cpu = (
        ImageLoader(split, SMALL, options=LoaderOptions(torch.device(name))) for name in ("cuda", "cpu")
    )
    assert data_loading.choose_loader(on_a_gpu) == "resident"
    assert data_loading.choose_loader(on_the_cpu) is on_the_cpu
    monkeypatch.setattr(data_loading, "LARGEST_SET", len(split) * 3 * data_loading.LONGEST_SIDE**2 - 1)
    assert data_loading.choose_loader(on_a_gpu) is on_a_gpu


def test_the_memory_layout_is_that_of_the_photos(drawn_root):
    _, lying = pair(read_folder(drawn_root).train, Augmentation(sizes=(32,)), layout=torch.channels_last)
    ((images, _),) = lying.batches(POSITIONS[:1])
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_another_seed_gives_other_crops(drawn_root):
    split = read_folder(drawn_root).train
    photos = ImageLoader(split, SMALL, Augmentation(sizes=(32,)))
    other = ImageLoader(split, SMALL, Augmentation(sizes=(32,)), seed=1)
    ((one, _),), ((two, _),) = (GPUImageLoader(each).batches(POSITIONS[:1]) for each in (photos, other))
    assert not torch.equal(one, two)
