"""Figures from plain data: image grids, learning curves, confusion matrices, heat maps, activations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw
from torch import Tensor

from antbee.evaluation.fonts import Lettering, lettering_for

# Blue and orange are distinguishable with every kind of colour vision; the signs do not need colour.
RIGHT, WRONG = "#0072b2", "#d55e00"
RIGHT_SIGN, WRONG_SIGN = "\N{CHECK MARK}", "\N{BALLOT X}"
MODE_COLOURS = {"frozen": "#009e73", "finetune": "#7b4fb3"}
LONGEST_LINE, LONGEST_NAME = 21, 40  # characters in a tile's title, and of a class name at a matrix
CHANNEL_SIDE = 224  # pixels
TILE_WIDTH, TILE_SIDE = 1.7, 1.617  # inches: of a tile, and of its image's longer side


@dataclass(frozen=True)
class Tile:
    """An image of a grid with its title."""

    image: Tensor  # float (3, H, W), 0..1
    title: str
    right: bool | None = None  # marks a correct or an incorrect prediction; None: no mark


def grid(tiles: Sequence[Tile], *, columns: int = 8) -> Image.Image:
    """The images in rows, each under its title, with a frame and a sign for correct and incorrect predictions."""
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = max(tile.title.count("\n") + 1 for tile in tiles)
    lettering = lettering_for([RIGHT_SIGN + WRONG_SIGN, *(tile.title for tile in tiles)])
    tile_height = TILE_WIDTH + 0.22 * lines
    width, height = TILE_WIDTH * columns, tile_height * rows
    figure = _figure(width=width, height=height)
    figure.set_layout_engine("none")
    # One axes in inches for all: an axes for each image, with its ticks and its layout, takes several times longer.
    axes = figure.add_axes((0, 0, 1, 1))
    margin = (TILE_WIDTH - TILE_SIDE) / 2
    for position, tile in enumerate(tiles):
        row, column = divmod(position, columns)
        left, bottom = TILE_WIDTH * column + margin, height - tile_height * (row + 1) + margin
        _show_tile(axes, tile, lettering, left=left, bottom=bottom)
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return _picture(figure)


def _show_tile(axes: Axes, tile: Tile, lettering: Lettering, *, left: float, bottom: float) -> None:
    _, height, width = tile.image.shape
    across, up = TILE_SIDE * width / max(height, width), TILE_SIDE * height / max(height, width)
    left += (TILE_SIDE - across) / 2
    # Tensors are (C, H, W), pictures (H, W, C).
    axes.imshow(tile.image.permute(1, 2, 0).cpu().numpy(), extent=(left, left + across, bottom, bottom + up))
    frame = Rectangle((left, bottom), across, up, fill=False, edgecolor="black", linewidth=0.8)
    title, colour = tile.title, "#333333"
    if tile.right is not None:
        colour = RIGHT if tile.right else WRONG
        frame.set(edgecolor=colour, linewidth=4, linestyle="-" if tile.right else "--")
        title = f"{RIGHT_SIGN if tile.right else WRONG_SIGN} {title}"
    axes.add_patch(frame)
    text = "\n".join(lettering.drawable(line, LONGEST_LINE) for line in title.split("\n"))
    middle, above = left + across / 2, bottom + up + 6 / 72
    axes.text(middle, above, text, ha="center", va="baseline", fontsize=9, color=colour, **lettering.options)


def learning_curves(epochs: Mapping[str, Sequence[Mapping[str, float]]]) -> Image.Image:
    """Loss and accuracy by epoch: for each mode, records with epoch, train_loss, val_loss, train_ and val_accuracy."""
    figure = _figure(width=9, height=3.4)
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for mode, records in epochs.items():
            numbers = [record["epoch"] for record in records]
            for split, line in (("train", "--"), ("val", "-")):
                values = [record[f"{split}_{quantity}"] for record in records]
                axes.plot(numbers, values, line, marker=".", color=MODE_COLOURS.get(mode), label=f"{mode}, {split}")
        axes.set(title=quantity, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8)
    return _picture(figure)


def accuracy_by_photos(points: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Accuracy by number of training images: records with "photos", and "accuracies" of several random subsets."""
    figure = _figure(width=5, height=3.4)
    axes = figure.subplots()
    photos = [point["photos"] for point in points]
    draws = [point["accuracies"] for point in points]
    means = [sum(accuracies) / len(accuracies) for accuracies in draws]
    axes.fill_between(photos, list(map(min, draws)), list(map(max, draws)), alpha=0.2, color=MODE_COLOURS["frozen"])
    axes.plot(photos, means, "-", marker="o", color=MODE_COLOURS["frozen"], label="mean, and range of the subsets")
    axes.set(xscale="log", xlabel="training photos", ylabel="accuracy on the validation photos")
    axes.set_xticks(photos, list(map(str, photos)))
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="lower right")
    return _picture(figure)


def confusion_matrix(counts: Sequence[Sequence[int]], class_names: Sequence[str]) -> Image.Image:
    """The confusion matrix: rows are true classes, columns are predicted classes."""
    size = len(class_names)
    lettering = lettering_for(class_names)
    names = [lettering.drawable(name, LONGEST_NAME) for name in class_names]
    # Inches, limited so that a figure with hundreds of classes fits into memory.
    cell, margin = min(0.75, 30 / size), 1.4 + 0.1 * max(map(len, names))
    font = {"fontsize": 10 * cell / 0.75, **lettering.options}
    figure = _figure(width=margin + cell * size, height=margin + cell * size)
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues", vmin=0)
    axes.set_xticks(range(size), names, rotation=0 if max(map(len, names)) < 8 else 90, **font)
    axes.set_yticks(range(size), names, **font)
    axes.set(xlabel="predicted class", ylabel="true class")
    if cell >= 0.75:  # smaller numbers are not legible
        _write_counts(axes, counts, font)
    return _picture(figure)


def _write_counts(axes: Axes, counts: Sequence[Sequence[int]], font: Mapping[str, Any]) -> None:
    highest = max(max(row) for row in counts)
    for row, row_counts in enumerate(counts):
        for column, count in enumerate(row_counts):
            colour = "white" if count > highest / 2 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, **font)


def heat_map(
    photo: Image.Image, activation_map: Tensor, crop_box: tuple[float, float, float, float], strongest: float
) -> Image.Image:
    """The photo with a class activation map drawn over the crop, and the rest darkened.

    `activation_map` (h, w) covers `crop_box` (left, top, right, bottom, in the photo's pixels). What of it lies outside
    the photo, on padding, is not drawn. Values up to 0 are transparent; `strongest` is the value of the brightest
    colour.
    """
    box = [round(edge) for edge in crop_box]
    left, top, right, bottom = max(0, box[0]), max(0, box[1]), min(photo.width, box[2]), min(photo.height, box[3])
    glow = (activation_map / max(strongest, 1e-6)).clamp(0, 1)
    small = Image.fromarray((glow * 255).byte().cpu().numpy())
    across, down = small.width / (box[2] - box[0]), small.height / (box[3] - box[1])
    shown = (left - box[0]) * across, (top - box[1]) * down, (right - box[0]) * across, (bottom - box[1]) * down
    strength = small.resize((right - left, bottom - top), Image.Resampling.BICUBIC, shown)
    lookup = (matplotlib.colormaps["inferno"](range(256))[:, :3] * 255).astype("uint8").tobytes()
    palette = strength.copy()
    palette.putpalette(lookup)
    crop = photo.crop((left, top, right, bottom))
    # Never opaque, so that the photo stays visible.
    glowing = Image.composite(Image.blend(crop, palette.convert("RGB"), 0.6), crop, strength)
    picture = photo.point(lambda value: value // 3)
    picture.paste(glowing, (left, top))
    ImageDraw.Draw(picture).rectangle(
        (left, top, right - 1, bottom - 1), outline="white", width=max(1, photo.width // 200)
    )
    return picture


def beside(first: Image.Image, second: Image.Image) -> Image.Image:
    """Two images side by side, in the height of the first."""
    second = second.resize((max(1, round(second.width * first.height / second.height)), first.height))
    pair = Image.new("RGB", (first.width + second.width, first.height))
    pair.paste(first, (0, 0))
    pair.paste(second, (first.width, 0))
    return pair


def channels(activations: Tensor) -> list[Image.Image]:
    """An image of each channel (K, h, w): dark for values up to 0, yellow for the channel's maximum.

    Small maps are enlarged to about CHANNEL_SIDE pixels a side, without interpolation.
    """
    largest = activations.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    return [_coloured(channel, "viridis") for channel in activations / largest]


def signed_channels(image: Tensor) -> list[Image.Image]:
    """An image of each channel of a normalised image (C, H, W): white for 0, orange above, purple below.

    All channels have the same scale, up to the largest absolute value.
    """
    furthest = float(image.abs().max().clamp(min=1e-12))
    return [_coloured(channel, "PuOr_r") for channel in (image / furthest + 1) / 2]


def _coloured(values: Tensor, colours: str) -> Image.Image:
    """Values (h, w), clamped to 0..1, in the colours of a colour map of matplotlib."""
    height, width = values.shape
    scale = (matplotlib.colormaps[colours](range(256))[:, :3] * 255).round().astype("uint8")
    steps = (values.clamp(0, 1) * 255).round().byte().cpu().numpy()
    factor = max(1, CHANNEL_SIDE // max(height, width))
    return Image.fromarray(scale[steps]).resize((width * factor, height * factor), Image.Resampling.NEAREST)


def _figure(*, width: float, height: float) -> Figure:
    # Not pyplot, which keeps figures in a global list and is not thread-safe.
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _picture(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
