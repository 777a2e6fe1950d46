"""What may be wrong with photos: every planted fault is found for what it is, and ordinary pictures are left alone."""

import io
import itertools
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from torch.nn.functional import normalize, one_hot

from antbee.data.drawn import draw, write_drawn_set
from antbee.data.folder import ImageDataset, Split, read_folder
from antbee.data.images import open_photo
from antbee.data.quality import KINDS, PhotoFacts, measure, photo_findings
from antbee.training.inspection import DOUBT, LEAST_ALIKE, folder_findings

ROOT = Path("photos")


@cache
def picture(seed=0, kind="bees", side=192):
    return draw(kind, seed, side)


def kinds_of(photo):
    return [finding.kind for finding in photo_findings("photo.jpg", measure(photo))]


def photo_folder(train, val, class_names=("ants", "bees")):
    """A folder of photos that are nowhere, named by split and position: the class index of each."""

    def split(name, labels):
        paths = [ROOT / name / class_names[label] / f"{number:03d}.jpg" for number, label in enumerate(labels)]
        return Split(tuple(paths), tuple(labels))

    return ImageDataset(
        "photos", ROOT, class_names, split("train", train), split("val", val), (), "val/ folder", digest="0" * 64
    )


def names_of(photos):
    return photos.all.names(photos.root)


def ordinary_facts(photos):
    """Facts of ordinary photos that look like none of the others: the changes of two agree in a third of places."""
    generator = torch.Generator().manual_seed(0)
    changes = torch.randint(-1, 2, (len(names_of(photos)), 2, 256), generator=generator).float()
    return {
        name: PhotoFacts(320, 240, 120.0, 900.0, 0.1, own, mirrored)
        for name, (own, mirrored) in zip(names_of(photos), changes, strict=True)
    }


def drawn_facts(photos):
    """The facts of as many drawn pictures, all of them different."""
    return {name: measure(picture(number)) for number, name in enumerate(names_of(photos))}


def scattered(count, width=64):
    """Features that lie far from each other."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0))


def of_kind(findings, *kinds):
    return [finding for finding in findings if finding.kind in kinds]


# ---- one photo -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ants", "bees"])
def test_ordinary_pictures_have_no_findings(kind):
    assert [kinds_of(picture(seed, kind)) for seed in range(8)] == [[]] * 8


def error_page():
    page = Image.new("RGB", (300, 220), "white")
    ImageDraw.Draw(page).text((30, 90), "404: this image is not available", fill="black")
    return page


@pytest.mark.parametrize(
    "photo",
    [
        *(Image.new("RGB", (300, 220), colour) for colour in ("white", "black", "#c0392b")),
        error_page(),
        Image.new("RGB", (40, 8), "white"),
        Image.new("RGB", (1, 1), "white"),
    ],
    ids=["white", "black", "red", "error page", "small", "one pixel"],
)
def test_a_blank_picture_is_a_placeholder_and_nothing_else(photo):
    assert kinds_of(photo) == ["placeholder"]


def test_a_picture_with_an_eighth_of_foreground_is_not_a_placeholder():
    page = Image.new("RGB", (320, 240), "white")
    page.paste(picture().resize((120, 80)), (100, 80))
    assert kinds_of(page) == []


def enlarged_strip(width, height):
    return picture().resize((width, height))


@pytest.mark.parametrize(
    ("photo", "kind", "reason"),
    [
        (enlarged_strip(160, 111), "tiny", "160 x 111 pixels"),
        (enlarged_strip(400, 120), "thin", "400 x 120 pixels: the centre crop shows 30% of it"),
        (enlarged_strip(120, 400), "thin", "120 x 400 pixels: the centre crop shows 30% of it"),
        (picture().point(lambda value: value // 8), "dark", "mean brightness 1"),
        (picture().filter(ImageFilter.GaussianBlur(6)), "blurred", "sharpness "),
        (enlarged_strip(24, 24).resize((320, 320)), "blurred", "sharpness "),
    ],
    ids=["tiny", "wide", "tall", "dark", "out of focus", "enlarged"],
)
def test_a_poor_photo_is_found_with_the_reason(photo, kind, reason):
    (finding,) = of_kind(photo_findings("a/photo.jpg", measure(photo)), kind)
    assert finding.file == "a/photo.jpg"
    assert finding.reason.startswith(reason)
    assert finding.other is None


def test_a_photo_of_12_bits_in_16_is_told_from_a_picture_of_one_colour(tmp_path):
    values = np.asarray(picture().convert("L"), np.uint16)
    for name, factor, kinds in (("twelve", 16, ["range"]), ("sixteen", 257, [])):
        path = tmp_path / f"{name}.png"
        Image.fromarray(values * factor).save(path)
        found = photo_findings(name, measure(open_photo(path), path))
        assert [finding.kind for finding in found] == kinds, name
    black = tmp_path / "black.png"
    Image.fromarray(np.zeros((200, 200), np.uint16)).save(black)
    (finding,) = photo_findings("black", measure(open_photo(black), black))
    assert finding.kind == "placeholder"


@pytest.mark.parametrize(("size", "is_found"), [((400, 120), True), ((160, 90), False), ((120, 300), True)])
def test_a_crop_that_leaves_out_most_of_most_photos_is_found_once(size, is_found):
    photos = photo_folder([0, 1, 0, 1, 1], [0, 1])
    facts = {name: replace(fact, width=size[0], height=size[1]) for name, fact in ordinary_facts(photos).items()}
    facts[names_of(photos)[0]] = replace(facts[names_of(photos)[0]], width=200, height=200)
    found = of_kind(folder_findings(photos, facts, None), "crop")
    assert [finding.file for finding in found] == ["train"] * is_found
    assert all("--fit squash" in finding.reason for finding in found)


def test_photos_at_the_limits_of_size_and_shape_have_no_findings():
    facts = measure(picture())
    for width, height in ((112, 112), (336, 112), (112, 336)):
        assert photo_findings("photo.jpg", replace(facts, width=width, height=height)) == []


def test_a_dark_photo_is_not_also_called_blurred():
    photo = picture().filter(ImageFilter.GaussianBlur(6)).point(lambda value: value // 8)
    assert kinds_of(photo) == ["dark"]


def test_worse_photos_have_higher_scores():
    blur = [measure(picture().filter(ImageFilter.GaussianBlur(radius))) for radius in (6, 12)]
    shade = [replace(measure(picture()), brightness=brightness) for brightness in (20.0, 5.0)]
    sizes = [replace(measure(picture()), width=side, height=side) for side in (100, 20)]
    for (bad, worse), kind in ((blur, "blurred"), (shade, "dark"), (sizes, "tiny")):
        (first,), (second,) = (of_kind(photo_findings("photo.jpg", facts), kind) for facts in (bad, worse))
        assert first.score < second.score


def test_facts_are_measured_at_full_size_and_the_photo_is_not_changed():
    photo = picture(side=640)
    before = photo.tobytes()
    facts = measure(photo)
    assert (facts.width, facts.height) == photo.size
    assert 0 < facts.brightness < 255
    assert 0 < facts.flatness < 1
    assert facts.changes.shape == facts.mirrored_changes.shape == (256,)
    assert set(facts.changes.tolist()) == {-1.0, 0.0, 1.0}
    assert photo.tobytes() == before
    assert torch.equal(measure(ImageOps.mirror(photo)).changes, facts.mirrored_changes)


# ---- duplicates ------------------------------------------------------------------------------------------------------


def reencoded(photo):
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=50)
    return Image.open(content).convert("RGB")


COPIES = {
    "byte for byte": lambda photo: photo,
    "re-encoded": reencoded,
    "half size": lambda photo: photo.resize((photo.width // 2, photo.height // 2)),
    "brighter": lambda photo: ImageEnhance.Brightness(photo).enhance(1.3),
    "mirrored": ImageOps.mirror,
    "grey": lambda photo: photo.convert("L").convert("RGB"),
}


def copies_among(photos, facts, features=None):
    return of_kind(folder_findings(photos, facts, features), "copy", "leak")


def test_distinct_pictures_are_not_duplicates():
    photos = photo_folder([0] * 15 + [1] * 15, [0] * 5 + [1] * 5)
    assert copies_among(photos, drawn_facts(photos)) == []


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_of_a_duplicate_within_a_split_the_later_file_is_the_one_to_exclude(change):
    photos = photo_folder([0, 0, 0, 1, 1], [0, 0, 1, 1])
    facts = drawn_facts(photos)
    train, val = photos.train.names(ROOT), photos.val.names(ROOT)
    facts[train[2]] = measure(change(picture(0)))  # of train[0]
    facts[val[3]] = measure(change(picture(7)))  # of val[2]
    findings = copies_among(photos, facts)
    assert {(finding.kind, finding.file, finding.other) for finding in findings} == {
        ("copy", train[2], train[0]),
        ("copy", val[3], val[2]),
    }
    assert all(finding.reason.startswith(f"duplicate of {finding.other}: ") for finding in findings)


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES)
def test_a_duplicate_across_the_splits_is_a_leak_and_names_the_training_photo(change):
    photos = photo_folder([0, 0, 1, 1], [0, 1])
    facts = drawn_facts(photos)
    train, val = photos.train.names(ROOT), photos.val.names(ROOT)
    facts[val[1]] = measure(change(picture(3)))  # of train[3]
    (finding,) = copies_among(photos, facts)
    assert (finding.kind, finding.file, finding.other) == ("leak", train[3], val[1])
    assert finding.reason.startswith(f"duplicate of {val[1]}: ")


@pytest.mark.parametrize(("first", "second", "kind"), [(0, 4, "leak"), (2, 4, "leak"), (4, 5, "copy")])
def test_a_duplicate_in_the_test_split_is_a_leak_from_either_other_split(first, second, kind):
    photos = photo_folder([0, 1], [0, 1])
    paths = tuple(ROOT / "test" / "ants" / f"{number}.jpg" for number in range(2))
    photos = replace(photos, test=Split(paths, (0, 0)))
    facts, names = drawn_facts(photos), names_of(photos)
    facts[names[second]] = facts[names[first]]
    (finding,) = copies_among(photos, facts)
    expected = (names[first], names[second]) if kind == "leak" else (names[second], names[first])
    assert (finding.kind, finding.file, finding.other) == (kind, *expected)


@pytest.mark.parametrize(("position", "label"), [(1, "ants"), (4, "bees")])
def test_a_duplicate_under_another_class_names_the_other_files_class(position, label):
    photos = photo_folder([0, 1, 1, 0], [1, 0])
    facts, names = drawn_facts(photos), names_of(photos)
    facts[names[position]] = facts[names[0]]
    (finding,) = copies_among(photos, facts)
    assert finding.reason.startswith(f"duplicate of {finding.other}, labelled {label}: ")


@pytest.mark.parametrize(("label", "is_advised"), [(0, False), (1, True)])
def test_a_mirror_image_of_another_class_comes_with_the_advice_not_to_mirror(label, is_advised):
    photos = photo_folder([0, label, 1], [0, 1])
    facts, names = drawn_facts(photos), names_of(photos)
    facts[names[1]] = measure(ImageOps.mirror(picture(0)))
    (finding,) = copies_among(photos, facts)
    assert ("--no-mirror" in finding.reason) == is_advised


def test_the_reason_names_a_mirror_image():
    photos = photo_folder([0, 1], [0, 1])
    facts, names = drawn_facts(photos), names_of(photos)
    facts[names[2]] = measure(ImageOps.mirror(picture(0)))
    (finding,) = copies_among(photos, facts)
    assert "the mirror image, " in finding.reason
    facts[names[2]] = facts[names[0]]
    (finding,) = copies_among(photos, facts)
    assert finding.reason.endswith(": the pictures' hashes agree to 100%")


def test_a_symmetric_picture_is_not_a_duplicate_of_itself():
    half = picture().crop((0, 0, 80, 128))
    symmetric = Image.new("RGB", (160, 128))
    symmetric.paste(half, (0, 0))
    symmetric.paste(ImageOps.mirror(half), (80, 0))
    photos = photo_folder([0, 1], [0, 1])
    facts = drawn_facts(photos) | {names_of(photos)[0]: measure(symmetric)}
    assert copies_among(photos, facts) == []


def test_three_copies_of_a_picture_give_every_pair_once():
    photos = photo_folder([0, 0, 1], [0, 1])
    facts, names = drawn_facts(photos), names_of(photos)
    facts[names[1]] = facts[names[3]] = facts[names[0]]
    pairs = [(finding.kind, finding.file, finding.other) for finding in copies_among(photos, facts)]
    assert sorted(pairs) == sorted(
        [("copy", names[1], names[0]), ("leak", names[0], names[3]), ("leak", names[1], names[3])]
    )


def test_blank_pictures_are_not_duplicates_of_each_other():
    photos = photo_folder([0, 0, 1, 1], [0, 1])
    facts, features = drawn_facts(photos), scattered(6)
    blank = [names_of(photos)[position] for position in (0, 1, 5)]
    for name in blank:
        facts[name] = measure(error_page())
    features[1] = features[5] = features[0]
    assert copies_among(photos, facts, features) == []
    assert {finding.file for finding in folder_findings(photos, facts, None)} == set(blank)


def test_placeholders_do_not_shift_the_file_names_of_duplicates():
    photos = photo_folder([0, 0, 0, 1], [0, 1])
    facts, names = drawn_facts(photos), names_of(photos)
    facts[names[0]] = measure(error_page())
    facts[names[5]] = facts[names[2]]
    (finding,) = copies_among(photos, facts)
    assert (finding.kind, finding.file, finding.other) == ("leak", names[2], names[5])
    features = scattered(6)
    features[3] = features[1]
    (other,) = [found for found in copies_among(photos, facts, features) if found != finding]
    assert (other.kind, other.file, other.other) == ("copy", names[3], names[1])


def test_a_folder_of_placeholders_has_no_duplicates():
    photos = photo_folder([0, 1], [0, 1])
    facts = dict.fromkeys(names_of(photos), measure(error_page()))
    found = folder_findings(photos, facts, None)
    assert {finding.kind for finding in found} == {"placeholder"}
    assert len(found) == 4


def test_a_cropped_copy_is_found_by_its_features():
    photos = photo_folder([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    facts, names, features = ordinary_facts(photos), names_of(photos), scattered(10)
    features[8] = 3 * (features[4] + 0.1 * scattered(11)[10])
    (finding,) = copies_among(photos, facts, features)
    assert (finding.kind, finding.file, finding.other) == ("leak", names[4], names[8])
    assert ": features at a distance of 0." in finding.reason
    assert copies_among(photos, facts) == []


def test_the_distance_limit_of_duplicates_scales_with_the_median_distance():
    photos = photo_folder([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    facts, features = ordinary_facts(photos), scattered(10)
    shared = 30 * scattered(11)[10]  # all photos of one kind lie close to each other
    assert copies_among(photos, facts, features + shared) == []
    features[8] = features[4] + 0.1 * scattered(12)[11]
    (finding,) = copies_among(photos, facts, features + shared)
    assert (finding.file, finding.other) == (names_of(photos)[4], names_of(photos)[8])


def test_a_part_of_a_photo_is_found_beyond_the_limit_where_both_lie_alone_together():
    photos = photo_folder([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    facts, names, features = ordinary_facts(photos), names_of(photos), normalize(scattered(10))
    features[8] = features[4] + 1.4 * normalize(scattered(11)[10], dim=0)
    (finding,) = copies_among(photos, facts, features)
    assert (finding.file, finding.other) == (names[4], names[8])
    features[0] = features[4] + 1.4 * normalize(scattered(12)[11], dim=0)  # one more, so they are like others of a kind
    assert copies_among(photos, facts, features) == []


@pytest.mark.parametrize(
    "poor", [{"brightness": 5.0}, {"sharpness": 1.0}, {"width": 60, "height": 50}], ids=["dark", "blurred", "tiny"]
)
def test_equal_features_of_dark_blurred_or_tiny_photos_are_not_duplicates(poor):
    photos = photo_folder([0, 0, 0, 1, 1, 1], [0, 0, 1, 1])
    facts, names, features = ordinary_facts(photos), names_of(photos), scattered(10)
    for position in (2, 5, 9):
        facts[names[position]] = replace(facts[names[position]], **poor)
        features[position] = features[2]
    features[8] = features[4]
    (finding,) = copies_among(photos, facts, features)
    assert (finding.file, finding.other) == (names[4], names[8])
    facts[names[5]] = facts[names[2]]  # but those of one picture are
    assert [finding.file for finding in copies_among(photos, facts, features)] == [names[4], names[5]]


def test_a_duplicate_by_hash_and_features_is_one_finding_by_its_hash():
    photos = photo_folder([0, 0, 1, 1], [0, 1])
    facts, names, features = drawn_facts(photos), names_of(photos), scattered(6)
    facts[names[1]], features[1] = facts[names[0]], features[0]
    (finding,) = copies_among(photos, facts, features)
    assert "hash" in finding.reason


# ---- suspicious labels -----------------------------------------------------------------------------------------------


def clusters(labels, *, spread=0.4, seed=0):
    """Features around a direction for each class."""
    noise = torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(seed))
    return 3 * one_hot(torch.tensor(labels), 8) + spread * noise


def wrong_labels(photos, features, **options):
    return of_kind(folder_findings(photos, ordinary_facts(photos), features, **options), "label")


TRUE_TRAIN, TRUE_VAL = [0] * 16 + [1] * 16, [0] * 8 + [1] * 8


def test_no_label_is_suspicious_in_clear_clusters():
    assert wrong_labels(photo_folder(TRUE_TRAIN, TRUE_VAL), clusters(TRUE_TRAIN + TRUE_VAL)) == []


def test_exactly_the_swapped_labels_of_both_splits_are_found_and_ranked_by_doubt():
    train, val = list(TRUE_TRAIN), list(TRUE_VAL)
    train[3], val[12] = 1, 0
    photos, features = photo_folder(train, val), clusters(TRUE_TRAIN + TRUE_VAL)
    findings = wrong_labels(photos, features)
    said = {finding.file: finding.reason for finding in findings}
    assert said.keys() == {"train/bees/003.jpg", "val/ants/012.jpg"}
    assert said["train/bees/003.jpg"].startswith("looks like ants more than bees: doubt 0.")
    assert said["val/ants/012.jpg"].startswith("looks like bees more than ants: doubt 0.")
    assert findings[0].score >= findings[1].score > DOUBT
    assert wrong_labels(photos, features) == findings


def test_a_swapped_label_in_the_middle_of_a_cluster_ranks_above_one_at_its_edge():
    train = list(TRUE_TRAIN)
    train[3] = train[5] = 1
    features = clusters(TRUE_TRAIN + TRUE_VAL)
    features[5] += 1.2 * one_hot(torch.tensor(1), 8)  # a little like bees after all
    findings = wrong_labels(photo_folder(train, TRUE_VAL), features)
    assert [finding.file for finding in findings] == ["train/bees/003.jpg", "train/bees/005.jpg"]
    assert findings[0].score > findings[1].score


def test_without_features_no_label_is_suspicious():
    train = [1, *TRUE_TRAIN[1:]]
    photos = photo_folder(train, TRUE_VAL)
    assert len(wrong_labels(photos, clusters(TRUE_TRAIN + TRUE_VAL))) == 1
    assert wrong_labels(photos, None) == []


def test_of_three_classes_the_most_probable_is_named():
    true = [0] * 12 + [1] * 12 + [2] * 12
    train = [2, *true[1:]]
    photos = photo_folder(train, [0, 1, 2], ("ants", "bees", "wasps"))
    (finding,) = wrong_labels(photos, clusters([*true, 0, 1, 2]))
    assert finding.file == "train/wasps/000.jpg"
    assert finding.reason.startswith("looks like ants more than wasps")


def test_the_smallest_possible_folder_is_checked_without_an_error():
    photos = photo_folder([0, 1], [0, 1])
    assert {finding.kind for finding in folder_findings(photos, ordinary_facts(photos), scattered(4))} <= {"label"}


# ---- classes of different size ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bees", "found"), [(1, False), (3, False), (6, False), (7, True), (20, True)])
def test_more_than_three_to_one_is_an_imbalance(bees, found):
    photos = photo_folder([0, 0] + [1] * bees, [0, 1])
    findings = of_kind(folder_findings(photos, ordinary_facts(photos), None), "imbalance")
    assert len(findings) == found
    for finding in findings:
        assert finding.file == "ants"
        assert finding.reason.startswith(f"2 training photos, bees has {bees}: ")
        assert "--balance" in finding.reason
        assert finding.score == pytest.approx(bees / 2)


def test_imbalanced_validation_photos_are_not_a_finding():
    photos = photo_folder([0, 1], [0] + [1] * 9)
    assert folder_findings(photos, ordinary_facts(photos), None) == []


# ---- all together ----------------------------------------------------------------------------------------------------


def test_findings_are_sorted_by_kind_and_then_by_descending_score():
    train, val = [1, 0, 0] + [0] * 30 + [1] * 8, [0] * 8 + [1] * 8
    true = [0, 0, 0] + [0] * 30 + [1] * 8 + val
    photos, features = photo_folder(train, val), normalize(clusters(true, spread=0.6)).repeat(1, 4)
    facts, names = ordinary_facts(photos), names_of(photos)
    ordinary = facts[names[0]]
    facts[names[10]] = replace(ordinary, flatness=0.95)
    facts[names[11]] = replace(ordinary, flatness=0.99)
    facts[names[12]] = replace(facts[names[12]], width=50, height=40)
    facts[names[13]] = replace(facts[names[13]], width=90, height=70)
    facts[names[14]] = replace(facts[names[14]], width=900)
    facts[names[15]] = replace(facts[names[15]], brightness=5.0)
    facts[names[19]] = replace(facts[names[19]], sharpness=1.0)
    facts[names[20]] = replace(facts[names[20]], has_narrow_range=True)
    facts[names[17]] = facts[names[16]]
    facts[names[42]] = facts[names[18]]
    found = folder_findings(photos, facts, features)
    keys = [(KINDS.index(finding.kind), -finding.score, finding.file) for finding in found]
    assert keys == sorted(keys)
    assert {finding.kind for finding in found} == set(KINDS) - {"crop"}, "most of these photos are hardly cropped"
    assert [finding.file for finding in of_kind(found, "placeholder")] == [names[11], names[10]]
    assert [finding.file for finding in of_kind(found, "tiny")] == [names[12], names[13]]


def test_planted_faults_are_found_under_the_names_of_their_files(tmp_path):
    counts = {"ants": 4, "bees": 4}
    root = write_drawn_set(tmp_path / "photos", train=counts, val=counts, longest_side=192)
    leaked = next((root / "val" / "bees").iterdir())
    (root / "train" / "ants" / "leaked.jpg").write_bytes(leaked.read_bytes())
    error_page().save(root / "train" / "bees" / "page.png")
    facts = {}
    photos = read_folder(root, on_photo=lambda file, photo: facts.update({file.path: measure(photo)}))
    by_name = {path.relative_to(root).as_posix(): fact for path, fact in facts.items()}
    found = folder_findings(photos, by_name, None)
    assert [(finding.kind, finding.file, finding.other) for finding in found] == [
        ("placeholder", "train/bees/page.png", None),
        ("leak", "train/ants/leaked.jpg", leaked.relative_to(root).as_posix()),
    ]
    assert "labelled bees" in found[1].reason


def test_the_hash_limit_separates_copies_from_other_photos_with_a_margin():
    """Copies agree nearly everywhere, and other pictures far less than copies must."""
    pictures = [picture(seed, kind) for kind in ("ants", "bees") for seed in range(12)]
    facts = [measure(photo) for photo in pictures]
    others = [
        alike(one.changes, changes)
        for one, other in itertools.combinations(facts, 2)
        for changes in (other.changes, other.mirrored_changes)
    ]
    assert max(others) < LEAST_ALIKE - 0.1
    changed = [
        measure(change(photo)) for photo in pictures[:6] for name, change in COPIES.items() if name != "mirrored"
    ]
    own = [fact for fact in facts[:6] for name in COPIES if name != "mirrored"]
    copies = [alike(one.changes, other.changes) for one, other in zip(own, changed, strict=True)]
    assert min(copies) > LEAST_ALIKE + 0.05


def alike(one, other):
    return float(torch.nn.functional.cosine_similarity(one, other, dim=0))


def test_different_objects_on_a_plain_background_are_not_duplicates():
    photos = photo_folder([0] * 9 + [1], [0, 1])
    chance, facts = random.Random(0), {}
    for name in names_of(photos):
        shown = Image.new("RGB", (320, 240), "white")
        patch = picture(len(facts), side=110)
        shown.paste(patch, (chance.randrange(320 - patch.width), chance.randrange(240 - patch.height)))
        facts[name] = measure(shown)
    assert copies_among(photos, facts) == []


def test_a_folder_of_placeholders_with_features_has_no_other_findings():
    photos = photo_folder([0, 1], [0, 1])
    blank = measure(Image.new("RGB", (320, 240), "white"))
    found = folder_findings(photos, dict.fromkeys(names_of(photos), blank), torch.rand(4, 8))
    assert {finding.kind for finding in found} == {"placeholder"}


def test_a_photo_with_many_copies_is_listed_once():
    photos = photo_folder([0] * 6 + [1], [0, 1])
    facts, names = ordinary_facts(photos), names_of(photos)
    for name in names[1:6]:
        facts[name] = facts[names[0]]
    assert [finding.file for finding in copies_among(photos, facts)] == names[1:6]
