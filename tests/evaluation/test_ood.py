"""Synthetic out-of-distribution images: deterministic, distinct, and of their kind."""

import random

import pytest

from antbee.evaluation import ood


def colours_of(picture):
    return len(picture.getcolors(maxcolors=ood.SIDE**2))


@pytest.mark.parametrize("kind", ood.KINDS)
def test_images_are_rgb_squares_in_the_requested_number(kind):
    pictures = ood.synthetic_images(kind, 3)
    assert len(pictures) == 3
    assert {(picture.mode, picture.size) for picture in pictures} == {("RGB", (ood.SIDE, ood.SIDE))}


@pytest.mark.parametrize("kind", ood.KINDS)
def test_images_are_deterministic_and_do_not_depend_on_the_number(kind):
    fewer, more = ([picture.tobytes() for picture in ood.synthetic_images(kind, count)] for count in (3, 5))
    assert more[:3] == fewer


def test_all_images_differ():
    every = [picture.tobytes() for kind in ood.KINDS for picture in ood.synthetic_images(kind, ood.COUNT)]
    assert len(every) == len(ood.KINDS) * ood.COUNT
    assert len(set(every)) == len(every)


def test_the_number_of_colours_fits_the_kind():
    flat, shapes, noise = (
        [colours_of(picture) for picture in ood.synthetic_images(kind, ood.COUNT)]
        for kind in ("flat colours", "drawn shapes", "noise")
    )
    assert set(flat) == {1}
    assert all(2 <= count <= 13 for count in shapes)  # twelve shapes at most, on one colour
    assert min(noise) > max(shapes)


def test_drawing_does_not_change_the_global_generator():
    random.seed(0)
    before = random.getstate()
    for kind in ood.KINDS:
        ood.synthetic_images(kind, 1)
    assert random.getstate() == before
