"""A Space: a Gradio page on the Hub that shows models of the Hub."""

from collections.abc import Sequence

from antbee.installation import PACKAGE, project
from antbee.text import one_line

# The environment variable that names the models a Space shows: ids with spaces in between.
MODELS_VARIABLE = "ANTBEE_MODELS"

# Spaces start with Python 3.10, which is too old, unless they are told otherwise.
GRADIO_VERSION, PYTHON_VERSION = "6.31.0", "3.12"

# Free Spaces have no GPU: this index has builds of torch without CUDA's libraries, a tenth in size.
PACKAGE_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"
SIGN_IN = "gradio[oauth]"  # what `hf_oauth` in the card needs

CARD = """\
---
{front_matter}
---

The page of antbee: drop a photo, and see what the models predict and which regions of the photo the prediction rests \
on. It shows

{models}

To show other models, change the variable {variable} in this Space's settings: ids of model repositories, separated by \
spaces.
"""


def space_files(repo_id: str, model_ids: Sequence[str]) -> dict[str, bytes]:
    """The files of a Space by path: the page, the package, requirements.txt and README.md, the Space's card."""
    paths = [path for pattern in ("*.py", "*.jinja") for path in PACKAGE.rglob(pattern)]
    package = sorted(path.relative_to(PACKAGE) for path in paths)
    requirements = f"{PACKAGE_INDEX}\n{SIGN_IN}\n{(project() / 'requirements.txt').read_text('utf-8')}"
    return {
        "README.md": space_card(repo_id, model_ids).encode(),
        "app.py": (project() / "app.py").read_bytes(),
        "requirements.txt": requirements.encode(),
        # An installed antbee carries the commands in its folder project: see antbee/installation.py.
        **{
            f"antbee/{path.as_posix()}": (PACKAGE / path).read_bytes() for path in package if path.parts[0] != "project"
        },
    }


def space_card(repo_id: str, model_ids: Sequence[str]) -> str:
    """The README.md of a Space that shows models of the Hub.

    Front matter as https://huggingface.co/docs/hub/spaces-config-reference describes it.
    """
    from huggingface_hub import SpaceCardData

    metadata = SpaceCardData(
        title=one_line(repo_id.partition("/")[2], longest=60),
        emoji="\N{ANT}",
        colorFrom="yellow",
        colorTo="gray",
        sdk="gradio",
        sdk_version=GRADIO_VERSION,
        python_version=PYTHON_VERSION,
        app_file="app.py",
        license="mit",
        models=list(model_ids),
        hf_oauth=True,  # visitors may push the models they trained under their own name
        hf_oauth_scopes=["manage-repos"],
        tags=["antbee", "image-classification"],
        short_description="An image classifier, shown in both modes of training",
    )
    models = "\n".join(f"- [{model_id}](https://huggingface.co/{model_id})" for model_id in model_ids)
    return CARD.format(front_matter=metadata.to_yaml(), models=models, variable=MODELS_VARIABLE)
