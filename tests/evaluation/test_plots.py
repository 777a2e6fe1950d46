"""Figures show their data, with any class name and without relying on colour; warnings are errors."""

from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.font_manager import fontManager
from PIL import Image, ImageColor
from torch import Tensor

from antbee.evaluation import fonts, plots
from antbee.evaluation.fonts import lettering_for
from antbee.evaluation.plots import (
    Tile,
    beside,
    channels,
    confusion_matrix,
    grid,
    heat_map,
    learning_curves,
    signed_channels,
)

RED, GREEN, BLUE, GREY = (220, 20, 60), (20, 180, 40), (30, 60, 200), (128, 128, 128)
LATIN_NAMES = ("$5 or $6", r"$\frac$", "a_b^c{", r"\alpha", "tab\there", "bad\udce4byte", "a long name " * 20)
OTHER_NAMES = ("蚂蚁", "ミツバチ", "개미", "نمل", "🐜")


def plain(colour: tuple[int, int, int], size: int = 48) -> Tensor:
    """An image (3, size, size) of a single colour."""
    return (torch.tensor(colour) / 255).view(3, 1, 1).expand(3, size, size)


def places_of(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """(N, 2): row and column of every pixel that has the colour, up to a rounding step."""
    distance = np.abs(np.asarray(picture).astype(int) - colour).max(axis=2)
    return np.argwhere(distance <= 1)


def middle_of(picture: Image.Image, colour: tuple[int, int, int]) -> tuple[float, float]:
    places = places_of(picture, colour)
    assert len(places) > 500, f"{colour} is hardly there"
    row, column = places.mean(axis=0)
    return float(row), float(column)


def pixels(picture: Image.Image) -> bytes:
    assert picture.mode == "RGB"
    return picture.tobytes()


# ---------------------------------------------------------------------------------------------------------------------
# The grid


def test_a_tile_shows_the_pixels_of_its_tensor_upright() -> None:
    image = plain(RED, 200).clone()
    image[:, :100, 100:] = plain(GREEN, 100)
    image[:, 100:, :100] = plain(BLUE, 100)
    image[:, 100:, 100:] = plain(GREY, 100)
    picture = grid([Tile(image, "upright")])
    top_left, top_right, bottom_left = (middle_of(picture, colour) for colour in (RED, GREEN, BLUE))
    assert top_left[0] == pytest.approx(top_right[0], abs=2)
    assert top_left[1] == pytest.approx(bottom_left[1], abs=2)
    assert top_left[1] < top_right[1] - 50
    assert top_left[0] < bottom_left[0] - 50


def test_tiles_follow_each_other_along_the_rows() -> None:
    tiles = [Tile(plain(colour), "") for colour in (RED, GREEN, BLUE)]
    first, second, third = (middle_of(grid(tiles, columns=2), colour) for colour in (RED, GREEN, BLUE))
    assert second[1] > first[1] + 50
    assert second[0] == pytest.approx(first[0], abs=2)
    assert third[0] > first[0] + 50
    assert third[1] == pytest.approx(first[1], abs=2)


def test_the_grid_grows_with_its_tiles_and_title_lines() -> None:
    tile = Tile(plain(GREY), "one line")
    one, row, rows = (grid([tile] * count, columns=4) for count in (1, 4, 5))
    assert one.width < row.width == rows.width
    assert one.height == row.height < rows.height
    assert grid([Tile(plain(GREY), "two\nlines")]).height > one.height


@pytest.mark.parametrize(("height", "width"), [(60, 60), (60, 120), (120, 60)])
def test_an_image_of_a_grid_keeps_its_shape(height: int, width: int) -> None:
    image = (torch.tensor(RED) / 255).view(3, 1, 1).expand(3, height, width)
    rows, columns = np.ptp(places_of(grid([Tile(image, "bees")]), RED), axis=0) + 1
    assert columns / rows == pytest.approx(width / height, rel=0.03)
    assert max(rows, columns) > 170


def test_titles_and_images_of_neighbouring_tiles_do_not_overlap() -> None:
    picture = grid([Tile(plain(RED), "one\ntwo\nthree")] * 4, columns=2)
    is_red = np.zeros((picture.height, picture.width), dtype=bool)
    is_red[tuple(places_of(picture, RED).T)] = True
    assert is_red.sum() == pytest.approx(4 * 175**2, rel=0.05)  # no letter covers an image
    between = np.asarray(picture.crop((0, picture.height // 2 - 1, picture.width, picture.height // 2 + 1)))
    assert (between == 255).all()


def zones(right: bool | None, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, bytes]:
    """The title and the frame of a prediction's tile, drawn in black to compare shapes alone."""
    monkeypatch.setattr(plots, "RIGHT", "black")
    monkeypatch.setattr(plots, "WRONG", "black")
    picture = grid([Tile(plain(RED), "bees", right)])
    # A dashed frame covers less of the image: the image's position is taken from the same tile without a frame.
    top, left = places_of(grid([Tile(plain(RED), "bees")]), RED).min(axis=0)
    title = picture.crop((0, 0, picture.width, int(top) - 8))
    frame = picture.crop((0, int(top), int(left) + 4, picture.height))
    return pixels(title), pixels(frame)


def test_correct_and_incorrect_predictions_differ_in_frame_and_sign_without_colour(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (right_title, right_frame), (wrong_title, wrong_frame) = (zones(right, monkeypatch) for right in (True, False))
    assert right_title != wrong_title
    assert right_frame != wrong_frame


def test_correct_and_incorrect_predictions_differ_in_colour_and_other_images_have_none() -> None:
    blue, orange = ((0, 114, 178), (213, 94, 0))
    right, wrong, unasked = (grid([Tile(plain(GREY), "bees", answer)]) for answer in (True, False, None))
    assert [len(places_of(picture, blue)) > 100 for picture in (right, wrong, unasked)] == [True, False, False]
    assert [len(places_of(picture, orange)) > 100 for picture in (right, wrong, unasked)] == [False, True, False]


@pytest.mark.parametrize("name", LATIN_NAMES)
def test_odd_class_names_are_drawn_without_a_warning(name: str) -> None:
    assert grid([Tile(plain(GREY), name, True)]).mode == "RGB"
    assert confusion_matrix([[3, 1], [0, 5]], [name, "bees"]).mode == "RGB"


@pytest.mark.filterwarnings("ignore:figures show")  # where no font has these letters
@pytest.mark.parametrize("name", OTHER_NAMES)
def test_class_names_in_any_script_are_drawn(name: str) -> None:
    assert grid([Tile(plain(GREY), name, True)]).mode == "RGB"
    assert confusion_matrix([[3, 1], [0, 5]], [name, "bees"]).mode == "RGB"


def test_dollar_signs_do_not_mark_a_formula() -> None:
    assert title_width("$ant$") > title_width("ant") + 10


def title_width(title: str) -> int:
    picture = grid([Tile(plain(RED), title)])
    top = int(places_of(picture, RED).min(axis=0)[0]) - 2
    ink = np.asarray(picture.crop((0, 0, picture.width, top)).convert("L")) < 128
    return int(np.ptp(np.argwhere(ink)[:, 1]))


def test_a_long_title_is_shortened_to_the_width_of_its_tile() -> None:
    assert title_width("n" * 200) < grid([Tile(plain(RED), "")]).width - 2
    assert title_width("n" * 16) > title_width("n" * 8) + 20


@pytest.mark.filterwarnings("ignore:figures show")
def test_chinese_names_are_legible_where_there_is_a_font_for_them() -> None:
    if lettering_for(["蚂蚁蜜蜂"]).missing:
        pytest.skip("no installed font has Chinese letters")
    assert len({pixels(grid([Tile(plain(GREY), name)])) for name in ("蚂蚁", "蜜蜂", "🐜🐜")}) == 3


def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [entry for entry in fontManager.ttflist if entry.name == "DejaVu Sans"]
    monkeypatch.setattr(fontManager, "ttflist", entries)
    monkeypatch.setattr(fonts, "findSystemFonts", list)


@pytest.mark.filterwarnings("ignore:figures show")
def test_characters_that_no_font_has_are_drawn_as_replacement_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    only_dejavu(monkeypatch)
    unknown = pixels(grid([Tile(plain(GREY), "\N{REPLACEMENT CHARACTER}" * 2)]))
    assert pixels(grid([Tile(plain(GREY), "蚂蚁")])) == unknown
    assert pixels(grid([Tile(plain(GREY), "ab")])) != unknown


# ---------------------------------------------------------------------------------------------------------------------
# The heat map

PHOTO = Image.linear_gradient("L").resize((120, 90)).convert("RGB")
BOX = (20.0, 5.0, 100.0, 85.0)


def inside(picture: Image.Image) -> np.ndarray:
    """The crop inside its white outline."""
    return np.asarray(picture.crop((21, 6, 99, 84))).astype(int)


def test_a_heat_map_has_the_size_of_the_photo_and_does_not_change_it() -> None:
    before = PHOTO.tobytes()
    picture = heat_map(PHOTO, torch.rand(7, 7), BOX, strongest=1.0)
    assert (picture.size, picture.mode) == (PHOTO.size, "RGB")
    assert PHOTO.tobytes() == before


def test_the_photo_outside_the_crop_is_darkened() -> None:
    picture = np.asarray(heat_map(PHOTO, torch.ones(7, 7), BOX, strongest=1.0))
    outside = np.ones(picture.shape[:2], dtype=bool)
    outside[5:85, 20:100] = False
    assert (picture[outside] == np.asarray(PHOTO)[outside] // 3).all()


def test_values_up_to_zero_are_transparent() -> None:
    picture = heat_map(PHOTO, torch.tensor([[0.0, -3.0], [-0.5, 0.0]]), BOX, strongest=2.0)
    assert (inside(picture) == inside(PHOTO)).all()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 3), (3, 1)])
def test_the_colour_is_at_the_position_of_the_activation(row: int, column: int) -> None:
    activation_map = torch.zeros(4, 4)
    activation_map[row, column] = 1
    change = np.abs(inside(heat_map(PHOTO, activation_map, BOX, strongest=1.0)) - inside(PHOTO)).sum(axis=2)
    place = np.unravel_index(change.argmax(), change.shape)
    assert (place[0] * 4 // change.shape[0], place[1] * 4 // change.shape[1]) == (row, column)


def test_the_brightness_is_relative_to_the_given_strongest_value() -> None:
    weak, full, beyond = (inside(heat_map(PHOTO, torch.full((3, 3), value), BOX, strongest=4.0)) for value in (1, 4, 9))
    assert np.abs(weak - inside(PHOTO)).sum() < np.abs(full - inside(PHOTO)).sum() / 2
    assert (beyond == full).all()


def test_the_photo_stays_visible_under_the_strongest_value() -> None:
    glowing = inside(heat_map(PHOTO, torch.ones(3, 3), BOX, strongest=1.0))[:, :, 0].mean(axis=1)
    assert np.corrcoef(glowing, inside(PHOTO)[:, :, 0].mean(axis=1))[0, 1] > 0.99


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (400, 11)])
def test_a_tiny_photo_has_a_heat_map_too(size: tuple[int, int]) -> None:
    side = 0.875 * min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    picture = heat_map(Image.new("RGB", size, RED), torch.ones(7, 7), (left, top, left + side, top + side), 1.0)
    assert picture.size == size


def test_the_map_of_a_padded_photo_is_cut_to_the_photo() -> None:
    photo = Image.new("RGB", (160, 40), (90, 90, 90))
    activation_map = torch.zeros(4, 4)
    activation_map[0] = 1  # on the padding above the photo
    activation_map[2, 3] = 1  # on the photo's right end
    picture = heat_map(photo, activation_map, (0, -60, 160, 100), strongest=1.0)
    assert picture.size == photo.size
    change = np.abs(np.asarray(picture).astype(int) - 90)[2:-2, 2:-2].sum(axis=2)  # without the frame
    assert change[:, :60].max() < 20, "what lies on the padding is not drawn"
    assert change[:, 116:].max() > 60


def test_a_box_far_larger_than_a_thin_photo_takes_no_more_memory_than_the_photo() -> None:
    photo = Image.new("RGB", (40_000, 1_000))
    assert heat_map(photo, torch.ones(7, 7), (0, -19_500, 40_000, 20_500), strongest=1.0).size == photo.size


# ---------------------------------------------------------------------------------------------------------------------
# Two pictures side by side


def test_two_images_are_side_by_side_with_every_pixel_of_the_first() -> None:
    pair = beside(PHOTO, Image.new("RGB", PHOTO.size, RED))
    assert (pair.size, pair.mode) == ((2 * PHOTO.width, PHOTO.height), "RGB")
    assert pixels(pair.crop((0, 0, PHOTO.width, PHOTO.height))) == pixels(PHOTO)
    assert pair.crop((PHOTO.width, 0, pair.width, pair.height)).getcolors() == [(PHOTO.width * PHOTO.height, RED)]


@pytest.mark.parametrize(("size", "width"), [((60, 45), 120), ((120, 90), 120), ((480, 360), 120), ((30, 90), 30)])
def test_the_second_image_gets_the_height_of_the_first_and_keeps_its_shape(size: tuple[int, int], width: int) -> None:
    pair = beside(PHOTO, Image.new("RGB", size, RED))
    assert pair.size == (PHOTO.width + width, PHOTO.height)
    assert pixels(pair.crop((0, 0, PHOTO.width, PHOTO.height))) == pixels(PHOTO)
    assert pair.crop((PHOTO.width, 0, pair.width, pair.height)).getcolors() == [(width * PHOTO.height, RED)]


def test_the_second_image_is_at_least_one_pixel_wide() -> None:
    pair = beside(PHOTO, Image.new("RGB", (1, 1000), RED))
    assert pair.width == PHOTO.width + 1
    assert pair.getpixel((PHOTO.width, 0)) == RED


def test_two_images_side_by_side_are_not_changed() -> None:
    first, second = PHOTO.copy(), Image.new("RGB", (30, 30), RED)
    beside(first, second)
    assert pixels(first) == pixels(PHOTO)
    assert second.size == (30, 30)


# ---------------------------------------------------------------------------------------------------------------------
# Single channels

DARK, YELLOW = (68, 1, 84), (253, 231, 37)  # the ends of viridis


def test_every_channel_is_scaled_to_its_own_largest_value() -> None:
    pattern = torch.rand(5, 7, generator=torch.Generator().manual_seed(0))
    weak, strong = channels(torch.stack([pattern, 1000 * pattern]))
    assert pixels(weak) == pixels(strong)


def test_a_channel_is_dark_up_to_zero_and_yellow_at_its_maximum() -> None:
    (picture,) = channels(torch.tensor([[[0.0, 3.0], [-2.0, 1.5]]]))
    side = picture.width // 2
    corners = [picture.getpixel((x, y)) for y in (0, side) for x in (0, side)]
    assert corners[:3] == [DARK, YELLOW, DARK]
    assert corners[3] not in (DARK, YELLOW)


def test_a_channel_of_zeros_is_dark() -> None:
    (picture,) = channels(torch.zeros(1, 7, 7))
    assert picture.getcolors() == [(picture.width * picture.height, DARK)]


@pytest.mark.parametrize("size", [(7, 7), (28, 28), (7, 11), (224, 224), (300, 200)])
def test_every_value_of_a_channel_is_a_square_of_a_single_colour(size: tuple[int, int]) -> None:
    activations = torch.rand(1, *size, generator=torch.Generator().manual_seed(0))
    (picture,) = channels(activations)
    side = picture.width // size[1]
    assert picture.size == (side * size[1], side * size[0])
    assert side == max(1, plots.CHANNEL_SIDE // max(size))
    values = np.asarray(picture)
    assert (values == values[::side, ::side].repeat(side, 0).repeat(side, 1)).all()


def test_a_normalised_image_is_white_at_zero_orange_above_and_purple_below() -> None:
    below, zero, above = (signed_channels(torch.tensor([[[value, 2.0]]]))[0].getpixel((0, 0)) for value in (-2, 0, 2))
    assert min(zero) > 240
    assert above[0] > above[1] > above[2]
    assert below[2] > below[0] > below[1]


def test_the_channels_of_a_normalised_image_have_one_scale() -> None:
    half, full = signed_channels(torch.tensor([[[1.0]], [[2.0]]]))
    assert half.getpixel((0, 0)) != full.getpixel((0, 0))
    assert pixels(full) == pixels(signed_channels(torch.tensor([[[5.0]]]))[0])
    assert [min(picture.getpixel((0, 0))) > 240 for picture in signed_channels(torch.zeros(3, 2, 2))] == [True] * 3


# ---------------------------------------------------------------------------------------------------------------------
# Curves and counts


def epochs(count: int, val_accuracy: float = 0.9) -> list[dict[str, float]]:
    return [
        {
            "epoch": number,
            "train_loss": 1 / number,
            "val_loss": 1.2 / number,
            "train_accuracy": 0.8,
            "val_accuracy": val_accuracy,
        }
        for number in range(1, count + 1)
    ]


@pytest.mark.parametrize("count", [1, 2, 25])
def test_learning_curves_are_a_wide_rgb_picture(count: int) -> None:
    picture = learning_curves({"frozen": epochs(count), "finetune": epochs(count, 0.95)})
    assert picture.mode == "RGB"
    assert 2 < picture.width / picture.height < 4
    assert 600 < picture.width < 2000


def test_loss_is_on_the_left_and_accuracy_on_the_right() -> None:
    one, other = (learning_curves({"frozen": epochs(5, accuracy)}) for accuracy in (0.9, 0.95))
    half = one.width // 2
    left, right = (0, 0, half, one.height), (half, 0, one.width, one.height)
    assert pixels(one.crop(left)) == pixels(other.crop(left))
    assert pixels(one.crop(right)) != pixels(other.crop(right))


def test_every_mode_has_its_own_colour() -> None:
    picture = learning_curves({"frozen": epochs(9), "finetune": epochs(9, 0.95)})
    for colour in plots.MODE_COLOURS.values():
        red, green, blue = ImageColor.getrgb(colour)[:3]
        assert len(places_of(picture, (red, green, blue))) > 50


def test_a_confusion_matrix_is_darker_for_larger_counts() -> None:
    picture = confusion_matrix([[9, 0], [0, 9]], ["ants", "bees"])
    dark = places_of(picture, (8, 48, 107))  # the deepest of matplotlib's Blues
    rows, columns = dark.min(axis=0), dark.max(axis=0)
    centre = (rows + columns) / 2
    assert len(dark) > 5000
    assert ((dark[:, 0] < centre[0]) == (dark[:, 1] < centre[1])).all()


def test_the_counts_are_written_into_the_matrix() -> None:
    # The shades are equal: only the numbers differ.
    two, three = (confusion_matrix([[count, 0], [0, count]], ["ants", "bees"]) for count in (2, 3))
    assert pixels(two) != pixels(three)


def test_true_classes_are_rows_and_predicted_classes_are_columns() -> None:
    picture = confusion_matrix([[0, 9], [0, 0]], ["ants", "bees"])
    row, column = middle_of(picture, (8, 48, 107))
    assert row < picture.height / 2 - 20
    assert column > picture.width / 2 + 20


@pytest.mark.parametrize("size", [2, 5, 12, 80])
def test_a_confusion_matrix_of_any_size_fits_into_memory_and_without_warnings(size: int) -> None:
    counts = [[row * column % 7 for column in range(size)] for row in range(size)]
    picture = confusion_matrix(counts, [f"class {number}" for number in range(size)])
    assert picture.mode == "RGB"
    assert 300 < picture.width < 4000
    assert 300 < picture.height < 4000


def test_a_confusion_matrix_of_zeros_can_be_drawn() -> None:
    assert confusion_matrix([[0, 0], [0, 0]], ["ants", "bees"]).mode == "RGB"


# ---------------------------------------------------------------------------------------------------------------------
# Global state


def draw_everything() -> list[bytes]:
    tiles = [Tile(plain(RED), "ants", True), Tile(plain(BLUE), "蜜蜂", False)]
    pictures = [
        grid(tiles),
        learning_curves({"frozen": epochs(3)}),
        confusion_matrix([[1, 2], [3, 4]], ["ants", "bees"]),
        heat_map(PHOTO, torch.ones(7, 7), BOX, 1.0),
    ]
    return [pixels(picture) for picture in pictures]


@pytest.mark.filterwarnings("ignore:figures show")
def test_drawing_leaves_no_figure_in_pyplot_and_no_changed_setting() -> None:
    before = dict(matplotlib.rcParams)
    draw_everything()
    assert pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


@pytest.mark.filterwarnings("ignore:figures show")
def test_two_threads_can_draw_concurrently() -> None:
    expected = draw_everything()
    with ThreadPoolExecutor(max_workers=2) as pool:
        assert all(drawn == expected for drawn in pool.map(lambda _: draw_everything(), range(4)))
