"""Pictures of nothing: the same ones every time, and what their kind says."""

import random

import pytest

from antbee.evaluation import ood


def colours_of(picture):
    return len(picture.getcolors(maxcolors=ood.SIDE**2))


@pytest.mark.parametrize("kind", ood.KINDS)
def test_pictures_are_rgb_squares_and_as_many_as_asked_for(kind):
    pictures = ood.synthetic_images(kind, 3)
    assert len(pictures) == 3
    assert {(picture.mode, picture.size) for picture in pictures} == {("RGB", (ood.SIDE, ood.SIDE))}


@pytest.mark.parametrize("kind", ood.KINDS)
def test_equal_arguments_give_equal_pixels_and_more_pictures_begin_with_the_same(kind):
    fewer, more = ([picture.tobytes() for picture in ood.synthetic_images(kind, count)] for count in (3, 5))
    assert more[:3] == fewer


def test_no_two_pictures_are_alike():
    every = [picture.tobytes() for kind in ood.KINDS for picture in ood.synthetic_images(kind, ood.COUNT)]
    assert len(every) == len(ood.KINDS) * ood.COUNT
    assert len(set(every)) == len(every)


def test_every_kind_is_what_it_is_called():
    flat, shapes, noise = (
        [colours_of(picture) for picture in ood.synthetic_images(kind, ood.COUNT)]
        for kind in ("flat colours", "drawn shapes", "noise")
    )
    assert set(flat) == {1}
    assert all(2 <= count <= 13 for count in shapes)  # twelve shapes at most, on one colour
    assert min(noise) > max(shapes)


def test_drawing_leaves_the_random_numbers_of_others_alone():
    random.seed(0)
    before = random.getstate()
    for kind in ood.KINDS:
        ood.synthetic_images(kind, 1)
    assert random.getstate() == before
