"""The KNN detector: distances against brute force, thresholds, label doubt, near-duplicates, untrusted files."""

import json
import math
import os
import pickle
import stat

import numpy as np
import pytest
import safetensors.torch
import torch

from antbee.models import detector
from antbee.models.detector import (
    NEAREST,
    DetectorError,
    KNNDetector,
    build_detector,
    directions,
    kth_distance,
    label_doubt,
    leave_classes_out,
    nearest,
    pairs_within,
    sample,
    threshold,
)


def drawn(count, width=8, *, seed=0):
    """Features of random direction and length."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator) * torch.rand(count, 1, generator=generator)


def between(rows, references):
    """All distances by brute force: float64 (B, N)."""
    rows, references = (features.double().numpy() for features in (rows, references))
    rows, references = (features / np.linalg.norm(features, axis=1, keepdims=True) for features in (rows, references))
    return np.linalg.norm(rows[:, None] - references[None], axis=2)


def clusters(count, *, seed=0):
    """Features of two classes, clustered around one direction each, and their labels."""
    labels = torch.arange(2 * count) % 2
    centres = torch.eye(6)[labels]
    return 5 * (centres + 0.15 * drawn(2 * count, 6, seed=seed)), labels


def detector_of(count=12, width=8):
    return build_detector(drawn(count, width), torch.arange(count) % 2, [f"train/{i}.jpg" for i in range(count)], 0.5)


# ---- distances -------------------------------------------------------------------------------------------------------


def test_directions_have_length_1_in_float64():
    rows = directions(drawn(20))
    assert rows.dtype == torch.float64
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(20, dtype=torch.double), rtol=0, atol=1e-12)
    torch.testing.assert_close(rows, directions(1000 * drawn(20)))


@pytest.mark.parametrize("count", [1, 5, 30])
def test_the_nearest_are_those_of_brute_force_nearest_first(count):
    rows, references = drawn(9, seed=1), drawn(30)
    found = nearest(directions(rows), directions(references), count)
    expected = between(rows, references)
    assert found.positions.tolist() == np.argsort(expected, axis=1)[:, :count].tolist()
    np.testing.assert_allclose(found.distances, np.sort(expected, axis=1)[:, :count], atol=1e-7)


def test_no_image_is_its_own_neighbour_among_the_same_images():
    rows = directions(drawn(15))
    found = nearest(rows, rows, 14, same=True)
    for position, others in enumerate(found.positions.tolist()):
        assert sorted(others) == [other for other in range(15) if other != position]
    assert found.distances.isfinite().all()


@pytest.mark.parametrize(("same", "expected"), [(False, 4), (True, 3)])
def test_there_are_no_more_neighbours_than_images(same, expected):
    rows = directions(drawn(4))
    found = nearest(rows, rows, 10, same=same)
    assert found.positions.shape == found.distances.shape == (4, expected)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_training_image_has_distance_0_to_itself_at_any_length_of_its_features(scale):
    features = 100 * drawn(50, 512)
    knn = build_detector(features, torch.zeros(50, dtype=torch.int64), ["a.jpg"] * 50, 0.5)
    found = knn.nearest(scale * features, 1)
    assert found.positions[:, 0].tolist() == list(range(50))
    assert float(found.distances.max()) < 1e-6


def test_opposite_features_have_distance_2_and_orthogonal_ones_the_square_root_of_2():
    rows = directions(torch.tensor([[3.0, 0.0]]))
    references = directions(torch.tensor([[1.0, 0.0], [0.0, 5.0], [-7.0, 0.0]]))
    assert nearest(rows, references, 3).distances[0].tolist() == pytest.approx([0, math.sqrt(2), 2])


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("chunk", [1, 4, 7, 30])
def test_the_chunk_size_does_not_change_the_neighbours(chunk, same, monkeypatch):
    rows = directions(drawn(30))
    expected = nearest(rows, rows, 5, same=same), pairs_within(rows, 0.9)
    monkeypatch.setattr(detector, "CHUNK", chunk)
    found = nearest(rows, rows, 5, same=same), pairs_within(rows, 0.9)
    assert torch.equal(found[0].positions, expected[0].positions)
    # The square root amplifies rounding errors: the distance of an image to itself is 0 or 2e-8.
    torch.testing.assert_close(found[0].distances, expected[0].distances, rtol=0, atol=1e-7)
    assert [(pair.first, pair.second) for pair in found[1]] == [(pair.first, pair.second) for pair in expected[1]]


def test_the_distance_of_a_detector_is_that_to_the_kth_neighbour():
    knn, photos = detector_of(40), drawn(6, seed=1)
    expected = np.sort(between(photos, knn.features), axis=1)[:, NEAREST - 1]
    np.testing.assert_allclose(knn.distance(photos), expected, atol=1e-6)
    torch.testing.assert_close(kth_distance(photos, knn.features), knn.distance(photos))


def test_with_fewer_than_k_images_the_distance_is_that_to_the_farthest():
    photos, references = drawn(6, seed=1), drawn(NEAREST - 3)
    np.testing.assert_allclose(kth_distance(photos, references), between(photos, references).max(axis=1), atol=1e-6)
    np.testing.assert_allclose(
        kth_distance(references, references, same=True), between(references, references).max(axis=1), atol=1e-6
    )


# ---- "neither" -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 0.2])
@pytest.mark.parametrize("count", [19, 50, 244])
def test_the_expected_false_alarm_rate_on_uniform_distances_is_at_most_the_rate(count, rate):
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(500, count, dtype=torch.double, generator=generator)
    # A uniform distance in 0..1 exceeds t with probability 1 - t.
    alarms = np.mean([1 - detector.threshold(draw, rate) for draw in draws])
    chance = 4 * math.sqrt(rate / count / len(draws))  # four standard errors of the mean, or more
    assert rate - 1 / (count + 1) - chance < alarms < rate + chance


def test_the_mean_false_alarm_rate_on_new_images_is_at_most_the_rate():
    rate, shares = 0.1, []
    for seed in range(120):
        photos = drawn(140, 4, seed=seed)
        references, set_aside, new = photos[:40], photos[40:79], photos[79:]
        beyond = detector.threshold(kth_distance(set_aside, references), rate)
        shares.append(float((kth_distance(new, references) > beyond).double().mean()))
    assert 0.6 * rate < np.mean(shares) < 1.15 * rate


def test_the_threshold_is_one_of_the_distances_and_does_not_depend_on_their_order():
    distances = torch.rand(60, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    found = detector.threshold(distances)
    assert found in distances.tolist()
    assert found == detector.threshold(distances.flip(0))
    assert detector.threshold(distances, 0.5) < found


@pytest.mark.parametrize(("count", "expected"), [(18, 2.0), (19, 0.7)])
def test_with_too_few_images_for_the_rate_there_is_no_limit(count, expected):
    assert detector.threshold(torch.full((count,), 0.7, dtype=torch.double), 0.05) == expected


def test_images_of_a_separate_class_are_detected_if_their_class_is_left_out():
    features, labels = clusters(40)
    others, other_labels = clusters(10, seed=1)
    assert leave_classes_out(features, labels, others, other_labels) == 20


def test_images_that_resemble_another_class_are_not_detected_if_their_own_is_left_out():
    features, others = drawn(200, 4), drawn(100, 4, seed=1)
    found = leave_classes_out(features, torch.arange(200) % 2, others, torch.arange(100) % 2)
    assert 0 <= found < 25


def test_leaving_classes_out_chooses_the_threshold_from_the_remaining_images():
    features, labels, others, other_labels = (
        drawn(60, 4),
        torch.arange(60) % 3,
        drawn(50, 4, seed=1),
        torch.arange(50) % 3,
    )
    expected = 0
    for label in range(3):
        rest = features[labels != label]
        apart = between(rest, rest)
        np.fill_diagonal(apart, math.inf)
        ordered = np.sort(np.sort(apart, axis=1)[:, NEAREST - 1])
        beyond = ordered[math.ceil(41 * 0.95) - 1]
        far = np.sort(between(others[other_labels == label], rest), axis=1)[:, NEAREST - 1]
        expected += int((far > beyond).sum())
    assert leave_classes_out(features, labels, others, other_labels) == expected
    assert 0 < expected < 50


def test_only_the_class_of_the_queries_is_left_out():
    features, labels = clusters(40)
    others, other_labels = clusters(10, seed=1)
    of_first = other_labels == 0
    assert leave_classes_out(features, labels, others[of_first], other_labels[of_first]) == 10
    # Images of the first class, labelled as the second: the detector keeps the first class.
    assert leave_classes_out(features, labels, others[of_first], other_labels[of_first] + 1) < 5


# ---- suspicious labels -----------------------------------------------------------------------------------------------


SWAPPED = [3, 20, 41]


def with_swapped_labels():
    """Two separate clusters, their correct labels, and labels of which three are swapped."""
    features, labels = clusters(30)
    wrong = labels.clone()
    wrong[SWAPPED] = 1 - wrong[SWAPPED]
    return features, labels, wrong


@pytest.mark.parametrize("certainty", [0.5, 0.7, 0.99])
def test_only_swapped_labels_are_doubted(certainty):
    features, labels, wrong = with_swapped_labels()
    probabilities = torch.full((60, 2), 1 - certainty).scatter(1, labels[:, None], certainty)
    doubt = label_doubt(features, wrong, probabilities)
    assert sorted(doubt.argsort(descending=True)[: len(SWAPPED)].tolist()) == SWAPPED
    assert (doubt > 0.5).nonzero()[:, 0].tolist() == SWAPPED


def test_a_label_that_neighbours_and_head_confirm_has_no_doubt():
    features, labels = clusters(30)
    doubt = label_doubt(features, labels, torch.eye(2)[labels])
    assert doubt.dtype == torch.float64
    assert doubt.tolist() == pytest.approx([0] * 60)
    assert label_doubt(features, labels, torch.eye(2)[1 - labels]).tolist() == pytest.approx([0.5] * 60)


def test_doubt_is_in_0_to_1_and_falls_as_the_probability_of_the_label_rises():
    features, labels = drawn(50), torch.arange(50) % 3
    probabilities = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    probabilities = probabilities / probabilities.sum(1, keepdim=True)
    doubt = label_doubt(features, labels, probabilities)
    assert ((doubt >= 0) & (doubt <= 1)).all()
    surer = probabilities.scatter_add(1, labels[:, None], torch.full((50, 1), 0.1))
    torch.testing.assert_close(label_doubt(features, labels, surer), doubt - 0.05, rtol=0, atol=1e-6)


def test_a_duplicate_with_another_label_outweighs_the_other_neighbours():
    features, labels = drawn(30), torch.zeros(30, dtype=torch.int64)
    features[1], labels[1] = features[0], 1
    doubt = label_doubt(features, labels, torch.full((30, 2), 0.5))
    assert float(doubt[0]) > 0.7  # one of ten neighbours disagrees: the nearest


# ---- near-duplicates -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [0.3, 0.8, 3.0])
def test_pairs_are_those_of_brute_force_each_once_and_nearest_first(distance):
    features = drawn(40, 4)
    expected = between(features, features)
    pairs = pairs_within(features, distance)
    upper = zip(*np.nonzero(np.triu(expected <= distance, 1)), strict=True)
    assert {(pair.first, pair.second) for pair in pairs} == {(int(first), int(second)) for first, second in upper}
    assert len(pairs) == len({(pair.first, pair.second) for pair in pairs})
    assert [pair.distance for pair in pairs] == sorted(pair.distance for pair in pairs)
    for pair in pairs:
        assert pair.distance == pytest.approx(expected[pair.first, pair.second], abs=1e-7)


def test_three_copies_make_three_pairs():
    features = drawn(20)
    features[[4, 9]] = 3 * features[17]
    assert {(pair.first, pair.second) for pair in pairs_within(features, 1e-4)} == {(4, 9), (4, 17), (9, 17)}


# ---- detectors -------------------------------------------------------------------------------------------------------


def test_a_detector_keeps_features_labels_and_names():
    features = drawn(7)
    knn = build_detector(features, torch.arange(7), [f"{i}.jpg" for i in range(7)], 0.4)
    assert knn.features.dtype == torch.float32
    torch.testing.assert_close(knn.features.double(), directions(features), rtol=0, atol=1e-6)
    assert knn.labels.tolist() == list(range(7))
    assert knn.names == tuple(f"{i}.jpg" for i in range(7))
    assert knn.threshold == 0.4


@pytest.mark.parametrize(("count", "kept"), [(9, 9), (10, 10), (11, 10), (99, 10)])
def test_a_detector_of_a_large_set_keeps_a_sample_with_its_labels_and_names(count, kept, monkeypatch):
    monkeypatch.setattr(detector, "LARGEST_DETECTOR", 10)
    features = drawn(count)
    knn = build_detector(features, torch.arange(count), [f"{i}.jpg" for i in range(count)], 0.4)
    assert len(knn.features) == len(knn.labels) == len(knn.names) == kept
    assert knn.names == tuple(f"{i}.jpg" for i in knn.labels.tolist())
    torch.testing.assert_close(knn.features.double(), directions(features[knn.labels]), rtol=0, atol=1e-6)
    assert torch.equal(knn.labels, sample(count))
    assert knn.labels.unique().tolist() == knn.labels.tolist(), "each once, ascending"


def test_a_single_image_has_the_largest_distance():
    alone = drawn(1)
    assert kth_distance(alone, alone, same=True).tolist() == [2.0]
    assert leave_classes_out(drawn(3), torch.tensor([0, 0, 1]), drawn(2, seed=1), torch.tensor([0, 1])) in (0, 1, 2)


def test_distances_within_the_sample_give_a_valid_threshold_for_a_sampled_detector(monkeypatch):
    monkeypatch.setattr(detector, "LARGEST_DETECTOR", 200)
    features, new = drawn(2000), drawn(500, seed=1)
    kept = features[sample(len(features))]
    knn = build_detector(features, torch.zeros(2000, dtype=torch.long), [""] * 2000, 0.0)
    limit = threshold(kth_distance(kept, kept, same=True))
    assert float((knn.distance(new) > limit).double().mean()) < 0.12


NAMES = ("train/ants/1.jpg", "train/🐝/ä ö.jpg", 'a\n"b"\\c.jpg', "not utf-8 \udcff.jpg", "")


def test_a_detector_is_saved_and_loaded_with_any_file_names(tmp_path):
    knn = build_detector(drawn(5), torch.tensor([0, 1, 2, 1, 0]), NAMES, 0.123456789)
    knn.save(tmp_path / "detector.safetensors")
    loaded = KNNDetector.load(tmp_path / "detector.safetensors", feature_count=8, class_count=3)
    assert torch.equal(loaded.features, knn.features)
    assert torch.equal(loaded.labels, knn.labels)
    assert (loaded.names, loaded.threshold) == (NAMES, 0.123456789)
    photos = drawn(3, seed=1)
    assert torch.equal(loaded.distance(photos), knn.distance(photos))


@pytest.mark.skipif(os.name != "posix", reason="no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_the_umask_decides_the_permissions_of_a_detectors_file(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        detector_of().save(tmp_path / "detector.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "detector.safetensors").stat().st_mode) == mode


# ---- untrusted files -------------------------------------------------------------------------------------------------


def file_of(tmp_path, *, metadata=None, **changed):
    """A detector's file with changed tensors (None: left out) or metadata."""
    knn = detector_of()
    tensors = {
        "features": knn.features,
        "labels": knn.labels,
        "threshold": torch.tensor(knn.threshold, dtype=torch.float64),
    } | changed
    metadata = {"format": "pt", "names": json.dumps(knn.names)} if metadata is None else metadata
    path = tmp_path / "detector.safetensors"
    path.write_bytes(safetensors.torch.save({k: v for k, v in tensors.items() if v is not None}, metadata or None))
    return path


def complaint(path):
    with pytest.raises(DetectorError) as raised:
        KNNDetector.load(path, feature_count=8, class_count=2)
    assert str(raised.value).startswith(str(path))
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


def test_the_unchanged_file_is_loaded(tmp_path):
    assert len(KNNDetector.load(file_of(tmp_path), feature_count=8, class_count=2).names) == 12


def spoiled(row, value):
    """The features with one row filled with a value."""
    features = detector_of().features.clone()
    features[row] = value
    return features


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"features": None}, "holds labels"),
        ({"labels": None}, "holds features"),
        ({"threshold": None}, "for 12 names, expected features"),
        ({"more": torch.zeros(2)}, r"more \(2,\)"),
        ({"features": detector_of().features.double()}, r"holds features torch\.float64"),
        ({"features": detector_of().features.half()}, r"holds features torch\.float16"),
        ({"features": detector_of(11).features}, r"features \(11, 8\).*expected.*\(12, 8\)"),
        ({"features": detector_of(width=9).features}, r"features \(12, 9\).*expected.*\(12, 8\)"),
        ({"features": detector_of().features.flatten()}, r"features \(96,\).*expected.*\(12, 8\)"),
        ({"labels": detector_of().labels.int()}, r"labels torch\.int32"),
        ({"labels": detector_of().labels[:, None].contiguous()}, r"labels \(12, 1\)"),
        ({"threshold": torch.tensor(0.5)}, r"threshold torch\.float32"),
        ({"threshold": torch.tensor([0.5], dtype=torch.float64)}, r"threshold \(1,\)"),
        ({"features": spoiled(11, math.nan)}, "not of length 1"),
        ({"features": spoiled(3, math.inf)}, "not of length 1"),
        ({"features": spoiled(0, 0.0)}, "not of length 1"),
        ({"features": spoiled(5, 1.0)}, "not of length 1"),
        ({"features": 1.01 * detector_of().features}, "not of length 1"),
        ({"labels": detector_of().labels + 1}, "labels outside of 2 classes"),
        ({"labels": detector_of().labels - 1}, "labels outside of 2 classes"),
        ({"threshold": torch.tensor(-0.1, dtype=torch.float64)}, r"the threshold -0\.1, expected a distance of 0 to 2"),
        ({"threshold": torch.tensor(2.1, dtype=torch.float64)}, r"the threshold 2\.1"),
        ({"threshold": torch.tensor(math.nan, dtype=torch.float64)}, "the threshold nan"),
        ({"threshold": torch.tensor(math.inf, dtype=torch.float64)}, "the threshold inf"),
    ],
)
def test_other_tensors_are_refused_in_one_line_that_names_them(changed, says, tmp_path):
    path = file_of(tmp_path, **changed)
    with pytest.raises(DetectorError, match=says):
        KNNDetector.load(path, feature_count=8, class_count=2)
    complaint(path)


@pytest.mark.parametrize(
    "names",
    [
        None,
        "",
        "{",
        "null",
        "NaN",
        '"twelve names"',
        '{"a.jpg": 0}',
        "[]",
        json.dumps([f"{i}.jpg" for i in range(11)]),
        json.dumps([*[f"{i}.jpg" for i in range(11)], 11]),
        json.dumps([*[f"{i}.jpg" for i in range(11)], None]),
        "[" * 100_000,
        "1" * 5000,
    ],
    ids=lambda names: "none" if names is None else f"{names:.12}",
)
def test_invalid_names_are_refused_in_one_line(names, tmp_path):
    complaint(file_of(tmp_path, metadata={"format": "pt"} | ({} if names is None else {"names": names})))


def test_a_file_without_metadata_is_refused_in_one_line(tmp_path):
    assert "for 0 names" in complaint(file_of(tmp_path, metadata={}))


def test_a_detector_that_is_too_large_is_refused(tmp_path, monkeypatch):
    path = file_of(tmp_path)
    monkeypatch.setattr(detector, "LARGEST_DETECTOR", 11)
    complaint(path)


@pytest.mark.parametrize("length", [0, 5, 8, 60, 300, -1])
def test_a_truncated_file_is_refused_in_one_line(length, tmp_path):
    path = file_of(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    assert "can't be read" in complaint(path)


def test_a_pickle_is_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (path.with_name("sprung").touch, ())

    path = tmp_path / "detector.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    assert "can't be read" in complaint(path)
    torch.save({"features": drawn(2)}, path)
    assert "can't be read" in complaint(path)
    assert not path.with_name("sprung").exists()


def test_a_missing_file_and_a_folder_are_refused_in_one_line(tmp_path):
    assert "can't be read" in complaint(tmp_path / "nowhere.safetensors")
    assert "can't be read" in complaint(tmp_path)


def test_equal_detectors_are_written_in_equal_bytes(tmp_path):
    detector = build_detector(torch.rand(6, 4), torch.tensor([0, 0, 0, 1, 1, 1]), [f"{n}.jpg" for n in range(6)], 0.5)
    assert len({detector.save(tmp_path / "neighbours.safetensors") for _ in range(8)}) == 1
