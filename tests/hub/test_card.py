"""The model card: what it says is what was measured, is valid for the Hub, and is shown as text whatever the names."""

import copy
import html.parser
import os
import re

import configs
import huggingface_hub
import pytest
import yaml

from antbee.hub.card import FEW_SHOT_DATA, card_without_figures, model_card, page_text, without_comparison

CONFIG = configs.CONFIG.to_json()


def config_with(**antbee):
    """CONFIG with other values under "antbee"."""
    return copy.deepcopy(CONFIG) | {"antbee": copy.deepcopy(CONFIG["antbee"]) | antbee}


def metadata_and_body(card):
    _, block, body = card.split("---\n", maxsplit=2)
    return yaml.safe_load(block), body


class Page(html.parser.HTMLParser):
    """The elements and the text of a card as it is read on the Hub, where the front matter is no part of the page."""

    def __init__(self, card):
        super().__init__()
        markdown_it = pytest.importorskip("markdown_it")
        _, body = metadata_and_body(card)
        self.elements, self.texts = [], []
        self.feed(markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(body))
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_front_matter_says_what_the_hub_needs_to_know():
    metadata, _ = metadata_and_body(model_card(CONFIG))
    assert metadata == {
        "library_name": "timm",
        "pipeline_tag": "image-classification",
        "tags": ["antbee", "timm", "transformers", "image-classification"],
        "license": "bsd-3-clause",
        "base_model": "timm/resnet18.tv_in1k",
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": "antbee resnet18 finetune",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {
                            "name": "hymenoptera_data",
                            "type": "imagefolder",
                            "split": "val",
                            "revision": "d" * 64,
                        },
                        "metrics": [
                            {
                                "type": "accuracy",
                                "value": 0.9477,
                                "name": "Accuracy, best epoch as selected on val",
                                "args": {"n": 153, "interval_95_wilson": [0.9, 0.973], "epoch": 3},
                            },
                            {
                                "type": "accuracy",
                                "value": 0.9412,
                                "name": "Accuracy, last epoch, not selected",
                                "args": {"n": 153, "interval_95_wilson": [0.892, 0.969], "epoch": 5},
                            },
                        ],
                    }
                ],
            }
        ],
    }


def test_weights_pass_on_their_licence_and_name_where_they_have_some():
    for name, given, licence in (
        ("random", None, "mit"),
        ("mine.safetensors", None, None),
        ("imagenet", None, "bsd-3-clause"),
        ("a1_in1k", "apache-2.0", "apache-2.0"),
    ):
        weights = {"name": name, "digest": None, "base_model": None, "license": given}
        metadata, _ = metadata_and_body(model_card(config_with(weights=weights)))
        assert metadata.get("license") == licence
        assert "base_model" not in metadata
    published = {"name": "a1_in1k", "digest": "e" * 64, "base_model": "timm/resnet18.a1_in1k"}
    assert metadata_and_body(model_card(config_with(weights=published)))[0]["base_model"] == "timm/resnet18.a1_in1k"
    unnamed = {"name": "imagenet", "digest": "e" * 64, "base_model": None}
    assert "base_model" not in metadata_and_body(model_card(config_with(weights=unnamed)))[0]


def test_the_card_tells_results_training_use_and_limits():
    text = " ".join(Page(model_card(CONFIG)).texts)
    for statement in (
        "94.8%",
        "145 of 153",
        "90.0% to 97.3%",
        "94.1%",
        "optimistic",
        "All weights of the network were trained",
        "11,177,538 parameters, of which 11,177,538 were trained",
        "244 photos in train: ants 123, bees 121",
        "train/ants/imageNotFound.gif (not a picture)",
        "SHA-256 digest " + "e" * 64,
        "Seed: 3",
        "learning_rate",
        'Classifier.from_pretrained("your-name/model-name")',
        'timm.create_model("hf-hub:your-name/model-name"',
        'pipeline("image-classification", model="your-name/model-name")',
        "one photo is 0.7 percentage points",
        "shows none of the classes is often given one of them",
        "restricted to these classes, gets 91.5% correct (140 of 153, 95% interval 86.0% to 95.0%)",
        "ROC curve: 0.988",
        "divided by a temperature of 1.37",
        "0.070",
        "farther than 0.765",
        "about 5% of photos like the training photos",
        "False alarms: 6 of 153 validation photos",
        "Detected: 19 of 20 synthetic out-of-distribution images (noise)",
        "own class left out: 33 of 153 validation photos",
        "With *all* 244 photos: level.",
        "do not show what the name of their folder says",
        "is not a survey of species",
    ):
        assert statement in text, statement


def test_the_front_matter_is_read_back_by_the_hubs_own_reader():
    data = huggingface_hub.ModelCard(model_card(CONFIG)).data
    assert (data.library_name, data.pipeline_tag, data.license) == ("timm", "image-classification", "bsd-3-clause")
    kept, last = data.eval_results
    assert (kept.metric_value, kept.dataset_split, kept.metric_args["n"]) == (0.9477, "val", 153)
    assert (last.metric_value, last.dataset_name) == (0.9412, "hymenoptera_data")


def test_the_card_says_on_what_the_epoch_was_chosen():
    def card(selected_on, **metrics):
        return model_card(config_with(metrics=CONFIG["antbee"]["metrics"] | {"selected_on": selected_on, **metrics}))

    assert "evaluated once" in card("a holdout", last=None)
    assert "Accuracy, best epoch as selected on a holdout" in card("a holdout", last=None)
    assert "not selected" not in card("a holdout", last=None)
    assert "validation photos decided nothing" in card("nothing")
    assert "best epoch" not in card("nothing")
    assert "optimistic; the last epoch was not selected" in card("val")


def test_the_card_tells_the_score_without_excluded_pictures_and_that_of_many_seeds():
    cleaned = {"correct": 140, "count": 145, "accuracy": 140 / 145, "interval": [0.92, 0.99], "loss": 0.1}
    seeds = {"kept": {"values": [0.9, 0.92, 0.94], "mean": 0.92, "deviation": 0.02, "interval": [0.87, 0.97]}}
    config = config_with(
        metrics=CONFIG["antbee"]["metrics"] | {"cleaned": cleaned, "seeds": seeds},
        data=CONFIG["antbee"]["data"] | {"excluded": ["val/ants/desert_ant.jpg"]},
    )
    text = " ".join(Page(model_card(config)).texts)
    assert "Without the photos that were excluded as wrong: 96.6% correct (140 of 145" in text
    assert (
        "Repeated with 3 seeds, on these same photos: 92.0% on average (standard deviation 2.0 percentage points"
        in text
    )
    assert "1 excluded, used neither for training nor for the score without them: val/ants/desert_ant.jpg." in text


def test_the_card_compares_the_modes_of_a_run_where_there_are_two():
    head, rows = ("mode", "best val"), [("frozen", "83.0%"), ("finetune", "82.4%")]
    page = Page(model_card(CONFIG, [head, *rows]))
    assert "Both modes compared" in "".join(page.texts)
    assert {"frozen", "83.0%", "finetune", "82.4%"} <= set(page.texts)
    assert "Both modes" not in model_card(CONFIG, [head, rows[0]])


def test_the_card_says_what_the_data_is_and_where_it_knows_nothing_asks_for_it():
    def about(name):
        return model_card(config_with(data=CONFIG["antbee"]["data"] | {"name": name}))

    assert "licenses are not known" in about("hymenoptera_data")
    assert "a program drew" in about("drawn")
    assert "should add where the photos come from, who may use them" in about("my_photos")


def test_the_card_of_a_frozen_model_says_what_of_the_backbone_stayed():
    def text(mode, **recipe):
        return model_card(config_with(mode=mode, recipe=CONFIG["antbee"]["recipe"] | recipe))

    assert "only the head was trained" not in text("finetune")
    untouched = (text("frozen"), text("frozen", batch_norm="adapting"))  # its features were computed once, and cached
    for card in untouched:
        assert "byte for byte its starting weights, and only the head was trained" in card
        assert "statistics" not in card
    replaced = text("frozen", batch_norm="adapting", cached_features=False)
    assert "only the head was trained" in replaced
    assert "BatchNorm layers were nevertheless replaced" in replaced
    assert "byte for byte" not in replaced


def test_the_accuracy_of_a_start_from_a_file_is_told_as_such():
    words = "The accuracy is that of a model started from mine.safetensors"
    assert words in model_card(config_with(weights={"name": "mine.safetensors", "digest": "e" * 64}))
    for known in ("imagenet", "random"):
        assert "The accuracy is that of a model started" not in model_card(config_with(weights={"name": known}))


def test_drawn_pictures_and_random_weights_are_announced_at_the_top():
    drawn = config_with(data=CONFIG["antbee"]["data"] | {"name": "drawn"})
    random = config_with(weights={"name": "random", "digest": None})
    for config, words in ((drawn, "Trained on drawn images."), (random, "Started from random weights.")):
        _, body = metadata_and_body(model_card(config))
        note = body.strip().splitlines()[0]
        assert note.startswith(f"> **{words}**")
        assert "Do not expect it to recognise photos" in note
    assert "Do not expect it" not in model_card(CONFIG)


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "a|b",
        "*x*",
        "[click](javascript:alert(1))",
        "![](http://127.0.0.1/x.png)",
        "`code` & &amp; &lt;",
        "# title",
        "- item",
        "1. item",
        "{{ config }} ${x} $y$",
        "www.example.org http://example.org a@example.org",
        "_under_ snake_case golden-retriever",
        "back\\slash",
        "<!-- gone",
        "---",
        "Ämse 蚂蚁 🐜",
        "'quotes\"",
    ],
)
def test_hostile_names_are_shown_as_text(name):
    config = copy.deepcopy(CONFIG) | {"label_names": [name, "bees"]}
    config["antbee"]["data"] |= {"name": name, "val": {name: 1}, "skipped": [{"file": name, "reason": name}]}
    config["antbee"]["recipe"] = {name: name}
    card = model_card(config)
    metadata, body = metadata_and_body(card)
    page = Page(card)
    plain = Page(model_card(CONFIG))
    shown = "".join(page.texts)

    assert metadata["model-index"][0]["results"][0]["dataset"]["name"] == name
    assert metadata["license"] == "bsd-3-clause"
    assert set(page.elements) <= set(plain.elements)
    assert page.elements.count("img") == plain.elements.count("img")
    assert page.elements.count("th") == plain.elements.count("th")
    assert not re.search(r"www\.|http:|@", body), "the Hub would make a link of a bare address, which Page does not"
    assert f"Image classifier: {name} or bees" in shown
    assert f"Classes: {name}, bees." in shown
    assert f"{name} ({name})" in shown


def test_unprintable_names_become_one_printable_line_of_utf_8():
    names = [
        "line\nbreak\r\n---\nlicense: evil",
        "\x1b[31mred",
        "\u202eright to left",
        os.fsdecode(b"caf\xe9"),
        "x" * 20_000,
    ]
    config = copy.deepcopy(CONFIG) | {"label_names": names}
    for of_two_classes in ("confusion", "per_class"):
        config["antbee"]["metrics"].pop(of_two_classes)
    config["antbee"]["data"]["name"] = names[0]
    card = model_card(config)
    metadata, _ = metadata_and_body(card)
    shown = "".join(Page(card).texts)

    assert metadata["license"] == "bsd-3-clause"
    assert card.encode().decode() == card
    assert all(letter.isprintable() or letter == "\n" for letter in card)
    for text in (
        "line break --- license: evil",
        "\\x1b[31mred",
        "\\u202eright to left",
        "caf\\udce9",
        "x" * 97 + "...",
    ):
        assert text in shown
    assert "x" * 101 not in shown


def test_a_card_leaves_out_what_its_config_does_not_tell():
    untold = (
        {},
        {"metrics": {}, "data": {}, "recipe": {}},
        {"metrics": {"kept": None, "confusion": None, "seconds": None}},
        dict.fromkeys(CONFIG["antbee"]),
    )
    for antbee in untold:
        config = {"architecture": "resnet18", "label_names": ["ants", "bees"], "antbee": antbee}
        metadata, body = metadata_and_body(model_card(config))
        assert not {"model-index", "license", "base_model"} & metadata.keys()
        assert "## Results" not in body
        assert "## Training" not in body
        assert "## How to use it" in body
        assert "None" not in body
    metadata, body = metadata_and_body(model_card(config_with(metrics={"kept": {"accuracy": 0.5}})))
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5
    assert "50.0%" in body


def cross_validated(**data):
    """A config of a model that was taught from few photos, without any to check with."""
    metrics = CONFIG["antbee"]["metrics"] | {"cross_validation": 5, "selected_on": "nothing", "last": None}
    metrics["neither"] = metrics["neither"] | {"val": None, "foreign": {}}
    of_page = {"name": FEW_SHOT_DATA, "train": {"ants": 80, "bees": 73}, "split": "5-fold cross-validation"}
    return config_with(mode="frozen", metrics=metrics | data, data=of_page)


def test_cross_validated_figures_are_told_as_such_and_never_as_those_of_val_pictures():
    card = model_card(cross_validated())
    text = " ".join(Page(card).texts)
    for statement in (
        "Cross-validated on the training photos; there were no validation photos.",
        "divided into 5 folds, and each fold was predicted by a head trained on the other folds alone",
        "Measured on each fold, with the temperature of the other folds:",
        "own class left out: 33 of 153 training photos",
        "photos of one occasion resemble each other",
        "Photos that somebody chose in antbee's page",
        "153 photos in train: ants 80, bees 73",
    ):
        assert statement in text, statement
    assert text.count("validation photos") == 1
    assert "in val" not in text
    (result,) = metadata_and_body(card)[0]["model-index"][0]["results"]
    assert result["dataset"]["split"] == "train"
    assert [metric["name"] for metric in result["metrics"]] == ["Accuracy, 5-fold cross-validation"]
    assert "ross-validated" not in model_card(CONFIG)


def test_neither_is_told_where_nothing_was_counted():
    neither = {"threshold": 0.7, "rate": 0.05, "foreign": {}, "val": None, "left_out": None}
    text = " ".join(Page(model_card(cross_validated(neither=neither))).texts)
    assert "about 5% of photos like the training photos are called" in text
    assert "Detected" not in text
    assert "False alarms" not in text


def test_a_card_without_figures_shows_no_picture_and_says_the_rest():
    card = model_card(CONFIG)
    bare = card_without_figures(CONFIG)
    assert Page(card).elements.count("img") == 4
    assert Page(bare).elements.count("img") == 0
    lines = [line for line in card.splitlines() if line and not line.startswith("![")]
    assert [line for line in bare.splitlines() if line] == lines


def test_the_page_shows_the_card_of_a_repository_without_front_matter_and_figures():
    text = page_text(CONFIG, "tester/bugs")
    assert text.lstrip().startswith("# Image classifier: ants or bees")
    assert "figures/" not in text
    assert text.count("tester/bugs") == 3
    assert text == card_without_figures(CONFIG).split("---\n", 2)[2].replace("your-name/model-name", "tester/bugs")


def test_a_card_without_its_comparison_is_the_card_of_the_model_alone():
    rows = [("frozen", "83.0%"), ("finetune", "82.4%")]
    compared = model_card(CONFIG, [("mode", "best val"), *rows], "They do not differ by more than chance.")
    assert without_comparison(compared) == without_comparison(model_card(CONFIG)) == model_card(CONFIG) != compared
    assert without_comparison(compared.replace("Limits", "My limits")) != model_card(CONFIG)
    assert "They do not differ by more than chance." in compared


def test_an_unknown_entry_of_a_config_does_not_reach_the_card():
    unknown = {"text": "a", "card_data": "b", "template_path": "c", "repo_id": "d", "license": "evil"}
    assert model_card(config_with(**unknown)) == model_card(CONFIG)


def test_a_confusion_matrix_too_wide_for_a_table_is_left_to_the_picture():
    labels = [f"class {number}" for number in range(40)]
    score = CONFIG["antbee"]["metrics"]["macro"]
    metrics = CONFIG["antbee"]["metrics"] | {"confusion": [[1] * 40] * 40, "per_class": [score] * 40}
    card = model_card(config_with(metrics=metrics) | {"label_names": labels})
    assert "figures/confusion.png" in card
    assert Page(card).elements.count("th") < 40


def test_files_that_config_json_only_counts_are_counted_in_the_card():
    data = {"skipped": [{"file": "a.txt", "reason": "no image"}], "skipped_count": 80_000}
    card = model_card({"architecture": "resnet18", "label_names": ["ants", "bees"], "antbee": {"data": data}})
    assert "- 80000 skipped, not readable as photos: " in card


@pytest.mark.parametrize(
    ("crop_mode", "words"), [("squash", "both sides resized to a square"), ("border", "padded with the mean colour")]
)
def test_a_card_says_if_the_model_sees_the_whole_photo(crop_mode, words):
    whole = CONFIG | {"pretrained_cfg": CONFIG["pretrained_cfg"] | {"crop_mode": crop_mode}}
    assert words in model_card(whole)
    assert "the whole photo" not in model_card(CONFIG)


def test_far_too_many_false_alarms_are_warned_of_where_they_are_told():
    metrics = CONFIG["antbee"]["metrics"]
    few, many = (
        config_with(metrics=metrics | {"neither": metrics["neither"] | {"val": {"found": found, "count": 60}}})
        for found in (4, 30)
    )
    assert "do not believe it" not in model_card(few)
    assert "30 of 60 validation photos were called *neither*. That is far more often than meant" in model_card(many)
