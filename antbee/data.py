"""Folders of photos in, image tensors out: which photos there are, and what the network sees of each.

A data folder is what `torchvision.datasets.ImageFolder` reads, twice: `train/` and `val/`, each with one folder a
class. Everything here is decided once for the whole run: one class list, one `Preprocessing`, one list of the files
that could not be used.
"""

import hashlib
import http.client
import io
import math
import os
import shutil
import struct
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms import ToTensor, v2
from torchvision.transforms.v2 import functional
from tqdm import tqdm

from antbee.drawn import write_drawn_set

HYMENOPTERA_URL = "https://download.pytorch.org/tutorial/hymenoptera_data.zip"
# Of the list "SHA-256, two spaces, path", one line a file, sorted by path: 398 files (see `folder_digest`).
HYMENOPTERA_DIGEST = "b0e3506710bc375be5996e1c9b29818c80cdfc19bcc324e560091da6690149ec"
# Decided by content, never by a file's name; a short list keeps rarely tested decoders out of reach.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
# A few kilobytes can unpack to gigabytes, and so can a sliver of a photo whose shorter side is enlarged to 256 pixels.
LARGEST_PHOTO = 60_000_000  # pixels
THINNEST_PHOTO = 40  # longer side : shorter side
HIDDEN = (".", "__")  # how the names of folders begin that tools leave behind: .ipynb_checkpoints, __MACOSX
LAYOUT = "expected DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg, with two classes or more"


class DataError(ValueError):
    """A data folder or a photo can't be used; the message says which, why, and what to do."""


class DownloadError(DataError):
    """The default photos could not be fetched from the network."""


# ---------------------------------------------------------------------------------------------------------------------
# One photo, as the network sees it


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a photo before the network: the same in training, evaluation, scripts and page.

    It travels in `config.json` in timm's terms and rebuilds the same transforms wherever the model goes.
    """

    crop: int = 224  # pixels a side of the square the network sees
    crop_pct: float = 0.875  # of the resized photo's shorter side that the crop keeps
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # per channel, of pixels in 0..1
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @property
    def resize(self) -> int:
        """Pixels of the shorter side before the centre crop; timm's rounding, so that both see the same pixels."""
        return math.floor(self.crop / self.crop_pct)

    def evaluation(self) -> v2.Compose:
        """PIL RGB photo -> float32 (3, crop, crop), normalised: resize, centre crop, no randomness."""
        return v2.Compose([v2.Resize(self.resize), v2.CenterCrop(self.crop), *self._to_tensor()])

    def augmentation(self, smallest_crop: float) -> v2.Compose:
        """PIL RGB photo -> float32 (3, crop, crop), normalised: a random crop and a random mirror image.

        `smallest_crop` is the least share of the photo's area that a crop may keep.
        """
        crop = v2.RandomResizedCrop(self.crop, scale=(smallest_crop, 1.0))
        return v2.Compose([crop, v2.RandomHorizontalFlip(), *self._to_tensor()])

    def _to_tensor(self) -> list[Callable[[Any], Tensor]]:
        # Resizing happened on the PIL image: torchvision's tensor resize differs from it by a shade or two. And
        # v2.ToDtype multiplies by 1 / 255 where torchvision's own preset for the ImageNet weights, and timm, divide.
        return [ToTensor(), v2.Normalize(self.mean, self.std)]

    def unnormalise(self, images: Tensor) -> Tensor:
        """Normalised float images (..., 3, H, W) -> the same in 0..1, to be looked at."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        return (images * std + mean).clamp(0, 1)

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the evaluation crop, in the pixels of a photo of `width` x `height`."""
        side = min(width, height) * self.crop / self.resize
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def cropped(self, photo: Image.Image) -> Image.Image:
        """The crop that `evaluation` feeds to the network, as an RGB picture of crop x crop pixels."""
        return functional.center_crop(functional.resize(photo, [self.resize]), [self.crop])


def open_photo(file: Path | BinaryIO) -> Image.Image:
    """The photo, fully decoded, in RGB and turned upright by its EXIF orientation.

    Raises DataError where the file is no photo, is cut short, is too large, or is of a kind that is not read here.
    """
    try:
        with Image.open(file, formats=PHOTO_FORMATS) as image:
            _refuse_size(*image.size)
            return _rgb(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"not a photo that can be read (expected {', '.join(PHOTO_FORMATS)})") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"can't be opened ({error.strerror})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"too large a photo ({error}): make it smaller") from error
    except (OSError, ValueError, TypeError, SyntaxError, struct.error) as error:
        raise DataError(f"damaged photo ({error})") from error


def _refuse_size(width: int, height: int) -> None:
    if width * height > LARGEST_PHOTO:
        limit = f"at most {LARGEST_PHOTO // 1_000_000} megapixels are read"
        raise DataError(f"too large a photo ({width} x {height} pixels, {limit}): make it smaller")
    if max(width, height) > THINNEST_PHOTO * min(width, height):
        raise DataError(
            f"too thin a photo ({width} x {height} pixels, at most {THINNEST_PHOTO} : 1 is read): crop it first"
        )


def _rgb(image: Image.Image) -> Image.Image:
    """The colours as a viewer shows them; Pillow alone clips 16-bit grey to white and uncovers what is transparent."""
    if image.mode.startswith("I"):
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


# ---------------------------------------------------------------------------------------------------------------------
# A folder of photos


@dataclass(frozen=True)
class Split:
    """The photos of one split and the class index of each."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def counts(self, class_names: Sequence[str]) -> dict[str, int]:
        """Photos of each class, by name."""
        return {name: self.labels.count(index) for index, name in enumerate(class_names)}


@dataclass(frozen=True)
class Skipped:
    """A file that lies in a class folder and is not used."""

    file: str  # relative to the data folder
    reason: str


@dataclass(frozen=True)
class PhotoFolder:
    """A data folder, read once: the class list of the whole run and the photos of both splits."""

    name: str
    root: Path
    class_names: tuple[str, ...]
    train: Split
    val: Split
    skipped: tuple[Skipped, ...]
    split: str  # how the validation photos were chosen
    digest: str  # SHA-256 over every file of the class folders, see `folder_digest`


class _ClassFolders(ImageFolder):
    """ImageFolder, for which hidden folders are no classes."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        names = _class_folder_names(directory)
        return names, {name: index for index, name in enumerate(names)}


def _class_folder_names(directory: str | Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(directory) if entry.is_dir() and not entry.name.startswith(HIDDEN))


def read_folder(root: Path, *, seed: int = 0, val_share: float = 0.2) -> PhotoFolder:
    """Reads a data folder: every photo is decoded once, every file that can't be used is listed with its reason.

    Without a `val/`, `val_share` of each class becomes the validation split, drawn by `seed`.
    Raises DataError, naming the folder, where the layout or the class lists don't fit.
    """
    root = Path(root)
    if not root.is_dir():
        hint = "unpack it first; " if root.suffix == ".zip" else ""
        raise DataError(f"{root} is {'not a folder' if root.exists() else 'not there'}: {hint}{LAYOUT}")
    train_root, val_root = root / "train", root / "val"
    if val_root.is_dir() and not train_root.is_dir():
        raise DataError(f"{root} has val/ but no train/: {LAYOUT}")
    roots = [train_root if train_root.is_dir() else root] + ([val_root] if val_root.is_dir() else [])
    class_names = _one_class_list(roots)
    digests: dict[Path, str] = {}
    skipped: list[Skipped] = []
    splits = [_read_split(root, split_root, class_names, digests, skipped) for split_root in roots]
    if len(splits) == 1:
        splits = list(_divide(splits[0], class_names, seed, val_share))
        how = f"{val_share:.0%} of each class, drawn with seed {seed}"
    else:
        how = "val/ folder"
    return PhotoFolder(
        name=root.resolve().name,
        root=root,
        class_names=class_names,
        train=splits[0],
        val=splits[1],
        skipped=tuple(skipped),
        split=how,
        digest=_digest_of({path.relative_to(root).as_posix(): digest for path, digest in digests.items()}),
    )


def _one_class_list(roots: Sequence[Path]) -> tuple[str, ...]:
    """The class names, from the training split; every other split must have just the same."""
    found = [_class_folder_names(split_root) for split_root in roots]
    class_names = found[0]
    if len(class_names) < 2:
        raise DataError(f"{roots[0]} has {len(class_names)} class folder(s): {LAYOUT}")
    for split_root, names in zip(roots[1:], found[1:], strict=True):
        if missing := sorted(set(class_names) - set(names)):
            raise DataError(
                f"{split_root / missing[0]} is not there, but {roots[0] / missing[0]} is: every class needs both"
            )
        if unknown := sorted(set(names) - set(class_names)):
            raise DataError(
                f"{split_root / unknown[0]} is a class that {roots[0]} doesn't have: every class needs both"
            )
    return tuple(class_names)


def _read_split(
    root: Path, split_root: Path, class_names: Sequence[str], digests: dict[Path, str], skipped: list[Skipped]
) -> Split:
    """ImageFolder's photos of one split that really open; adds to `digests` and `skipped` what it saw."""
    samples = {Path(path): label for path, label in _ClassFolders(split_root, allow_empty=True).samples}
    entries = [path for name in class_names for path in (split_root / name).rglob("*")]
    # A link to a folder may lead in a circle, so nothing is read through it.
    files = sorted(path for path in entries if path.is_symlink() or not path.is_dir())
    usable: list[tuple[Path, int]] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        checked = tqdm(pool.map(_check_file, files), split_root.name, len(files), leave=False, disable=None)
        for path, (digest, damage) in zip(files, checked, strict=True):
            if digest is None:
                reason = damage
            else:
                if not path.name.startswith("."):  # a desktop that leaves .DS_Store makes no other data set
                    digests[path] = digest
                reason = _outside_of_image_folder(path.relative_to(split_root), path in samples) or damage
            if reason:
                skipped.append(Skipped(path.relative_to(root).as_posix(), reason))
            else:
                usable.append((path, samples[path]))
    for index, name in enumerate(class_names):
        if index not in {label for _, label in usable}:
            raise DataError(
                f"{split_root / name} has no photo that can be used: add photos, or remove the class folder"
            )
    return Split(paths=tuple(path for path, _ in usable), labels=tuple(label for _, label in usable))


def _outside_of_image_folder(path: Path, is_sample: bool) -> str | None:
    """Why the name of a file (below the split's folder) keeps it out, or None where it doesn't."""
    if any(part.startswith(HIDDEN) for part in path.parent.parts):
        return "in a hidden folder"
    if not is_sample:
        return f"{path.suffix or 'no'} file extension, not one of {' '.join(IMG_EXTENSIONS)}"
    return None


def _check_file(path: Path) -> tuple[str | None, str | None]:
    """The file's SHA-256 where it can be read, and why it can't be decoded, or None where it can."""
    if not path.is_file():
        return None, "not a file (a link to a folder or to nothing, or a device)"
    try:
        content = path.read_bytes()
    except OSError as error:
        return None, f"can't be opened ({error.strerror})"
    try:
        open_photo(io.BytesIO(content))
    except DataError as error:
        return hashlib.sha256(content).hexdigest(), str(error)
    return hashlib.sha256(content).hexdigest(), None


def _divide(split: Split, class_names: Sequence[str], seed: int, val_share: float) -> tuple[Split, Split]:
    """Training and validation parts, each class divided alike; the order of `split` is kept."""
    chosen: set[int] = set()
    for index, name in enumerate(class_names):
        members = [position for position, label in enumerate(split.labels) if label == index]
        if len(members) < 2:
            raise DataError(f"class {name} has a single photo: two are needed, one to learn from and one to check with")
        order = torch.randperm(len(members), generator=seeded_generator(seed, "split", name)).tolist()
        # At least one photo on each side.
        count = min(max(1, round(val_share * len(members))), len(members) - 1)
        chosen.update(members[position] for position in order[:count])
    return _part(split, [i for i in range(len(split)) if i not in chosen]), _part(split, sorted(chosen))


def _part(split: Split, positions: Iterable[int]) -> Split:
    chosen = list(positions)
    return Split(tuple(split.paths[i] for i in chosen), tuple(split.labels[i] for i in chosen))


def folder_digest(root: Path) -> str:
    """SHA-256 over the sorted lines "SHA-256 of a file, two spaces, its path below `root`"."""
    files = [path for path in root.rglob("*") if path.is_file()]
    return _digest_of(
        {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    )


def _digest_of(digests: dict[str, str]) -> str:
    lines = "".join(f"{digest}  {path}\n" for path, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# Photos as batches


class Photos:
    """A split's photos as batches of tensors.

    A photo's random crop and mirror image hang on (seed, epoch, position) alone, so that a run repeats bit for bit,
    goes on after an interruption as if there had been none, and does not change with the number of workers.
    """

    def __init__(self, split: Split, transform: v2.Compose, *, seed: int = 0, workers: int = 0) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed
        self.workers = workers
        self.labels = torch.tensor(split.labels)  # int64 (N,)

    def __len__(self) -> int:
        return len(self.split)

    def batches(self, positions: Sequence[Tensor], epoch: int = 0) -> Iterable[tuple[Tensor, Tensor]]:
        """For each batch of positions: float32 images (B, 3, H, W) and int64 labels (B,)."""
        look = _Look(self.split, self.transform, self.seed, epoch)
        return DataLoader(
            look,
            batch_sampler=[batch.tolist() for batch in positions],
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # workers' seeds are drawn from it, otherwise from torch's global one
        )


@dataclass(frozen=True)
class _Look(Dataset[tuple[Tensor, int]]):
    """One epoch's look at every photo."""

    split: Split
    transform: v2.Compose
    seed: int
    epoch: int

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        path = self.split.paths[position]
        try:
            photo = open_photo(path)
        except DataError as error:
            raise DataError(f"{path} has changed since the folder was read: {error}") from error
        # torchvision's transforms draw from torch's global generator: borrow it, and give it back as it was.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed(self.seed, "look", self.epoch, position))
            return self.transform(photo), self.split.labels[position]


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed of its own for every combination of parts, the same on every machine."""
    text = "/".join(map(str, parts))
    # Class names are folder names, which need not be valid Unicode.
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()) >> 1


def seeded_generator(*parts: int | str) -> torch.Generator:
    """A CPU generator that starts at `derived_seed(*parts)`."""
    return torch.Generator().manual_seed(derived_seed(*parts))


# ---------------------------------------------------------------------------------------------------------------------
# The two data sets that antbee brings by itself


def hymenoptera_folder(parent: Path, *, url: str = HYMENOPTERA_URL, digest: str = HYMENOPTERA_DIGEST) -> Path:
    """The classic ants and bees below `parent`, downloaded where they aren't there yet.

    The folder has its final name only when it is complete and every file is what it should be.
    Raises DownloadError where the network or the download fails.
    """
    folder = parent / "hymenoptera_data"
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    workplace = parent / ".hymenoptera_data.download"
    shutil.rmtree(workplace, ignore_errors=True)  # of a download that was cut off
    workplace.mkdir()
    try:
        _download(url, workplace / "archive.zip")
        _unpack(workplace / "archive.zip", workplace / "unpacked")
        unpacked = workplace / "unpacked" / "hymenoptera_data"
        if (found := folder_digest(unpacked)) != digest:
            raise DownloadError(
                f"{url} is not the set it should be (digest {found[:12]}, expected {digest[:12]}): try again"
            )
        unpacked.rename(folder)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return folder


def _download(url: str, target: Path) -> None:
    title = url.rsplit("/", 1)[-1]
    try:
        with urllib.request.urlopen(url, timeout=20) as response, target.open("wb") as file:
            size = response.length  # None where the server doesn't say
            with tqdm.wrapattr(response, "read", total=size, desc=title, leave=False, disable=None) as body:
                shutil.copyfileobj(body, file)
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadError(f"{url} can't be downloaded (HTTP {error.code} {error.reason}): try again later") from error
    except (OSError, http.client.HTTPException) as error:  # OSError is also every URLError, TLS error and reset
        cause = str(getattr(error, "reason", error)).strip()
        raise DownloadError(f"{url} can't be downloaded ({cause}): check the connection and try again") from error
    # http.client ends such a body without a word.
    if size is not None and (received := target.stat().st_size) < size:
        raise DownloadError(f"the download of {url} was cut off after {received} of {size} bytes: try again")


def _unpack(archive: Path, target: Path) -> None:
    """Unpacks `train/` and `val/` of the archive; zipfile itself strips `..` and absolute paths."""
    try:
        with zipfile.ZipFile(archive) as content:
            wanted = [
                name
                for name in content.namelist()
                if name.startswith(("hymenoptera_data/train/", "hymenoptera_data/val/"))
            ]
            content.extractall(target, wanted)
    # zipfile meets damage with all of these: an unknown method, a password, a name or a place that can't be.
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise DownloadError(f"the downloaded archive can't be unpacked ({error}): try again") from error


def folder_named(parent: Path, name: object) -> Path | None:
    """The folder of that name in `parent`, if it is there; a name that leads out of `parent` is none.

    Names come from models, and models from anybody.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        return None
    return parent / name if (parent / name).is_dir() else None


def drawn_folder(parent: Path) -> Path:
    """The drawn ants and bees below `parent`, drawn where they aren't there yet: as many as the photos."""
    folder = parent / "drawn"
    return folder if folder.is_dir() else write_drawn_set(folder)
