"""What is named as a model: a folder, a Hub id, the address of a model's page on the Hub."""

import pytest

from antbee import Classifier
from antbee.models.config import ModelFolderError
from antbee.models.folder import find_folder, model_name


@pytest.mark.parametrize(
    "address",
    [
        "https://huggingface.co/user/name",
        "https://huggingface.co/user/name/",
        "https://huggingface.co/user/name/tree/main",
        "http://hf.co/user/name",
    ],
)
def test_the_address_of_a_model_on_the_hub_is_its_id(address):
    assert model_name(address) == "user/name"


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/user/name",
        "https://huggingface.co/datasets/user/name",
        "https://huggingface.co/datasets/name",
        "https://huggingface.co/spaces/user/name",
        "https://huggingface.co/user/name/tree/v2",
        "https://huggingface.co/user/name/resolve/main/model.safetensors",
        "https://huggingface.co/user",
        "https://huggingface.co.evil.com/user/name",
        "ftp://huggingface.co/user/name",
    ],
)
def test_another_address_is_refused_in_one_sentence(address):
    with pytest.raises(ModelFolderError) as raised:
        Classifier.from_pretrained(address)
    assert str(raised.value) == (
        f"{address} is an address, and not that of a model on the Hub: download the model first, and name its folder, "
        "or give a Hub id such as user/name"
    )


def test_folders_and_ids_stay_as_they_are(tmp_path):
    for source in (tmp_path, str(tmp_path), "user/name", "outputs/frozen"):
        assert model_name(source) == source


def test_a_folder_of_models_in_the_place_of_one_names_them(tmp_path):
    for name in ("finetune", "frozen"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(ModelFolderError, match=r"is a folder of models, expected one of them: .*frozen or .*finetune"):
        find_folder(tmp_path)
