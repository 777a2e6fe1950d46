"""python app.py [MODEL ...] [--data DATA] [--follow-links] [--host H] [--port P] [--root-path PATH] [--share] [--train]

Serves the page that shows the models' predictions, training data and metrics. MODEL is a model folder or a Hub id such
as user/name; without one, those named in the environment variable ANTBEE_MODELS are shown, as on a Space, or every
model in outputs/. With a password in the environment variable ANTBEE_PASSWORD, visitors sign in as antbee.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from antbee import errors

with errors.importing():
    from antbee import ui
    from antbee.hub.space import MODELS_VARIABLE
    from antbee.installation import home
    from antbee.models.folder import model_folders
    from antbee.text import one_line
    from antbee.training.background import BackgroundTraining
    from antbee.ui.memory import share_arenas
    from antbee.ui.registry import choose_photos

PASSWORD_VARIABLE = "ANTBEE_PASSWORD"  # not a flag: other users of the computer can read those


def parse_arguments() -> argparse.Namespace:
    """The flags of the command line."""
    parser = argparse.ArgumentParser(description="Show trained models in the browser.", allow_abbrev=False)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="model folder or Hub id (default: all in outputs/)")
    parser.add_argument("--data", metavar="DATA", help="photos for examples and batches (default: in data/)")
    parser.add_argument("--follow-links", action="store_true", help="follow links that lead out of the data folder")
    parser.add_argument("--host", metavar="H", help="address to serve on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, metavar="P", help="port to serve on (default: 7860)")
    parser.add_argument(
        "--root-path", type=_root_path, metavar="PATH", help="where a proxy shows the page, such as /antbee"
    )
    parser.add_argument("--share", action="store_true", help="also serve on a public address for a week")
    parser.add_argument(
        "--train",
        action=argparse.BooleanOptionalAction,
        help="let the page train on this computer (default: where none but its owner can open the page)",
    )
    if os.environ.get(PASSWORD_VARIABLE) == "":
        parser.error(f"{PASSWORD_VARIABLE} is empty: put a password into it, or unset it for a page without one")
    return parser.parse_args()


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text} is no port: give a number from 1 to 65535")
    return int(text)


def _root_path(text: str) -> str:
    if not text.startswith(("/", "http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text} is no path: give one such as /antbee, or a whole address")
    return text.rstrip("/")


def main() -> None:
    """Load the models, find photos to show, serve the page."""
    arguments = parse_arguments()
    share_arenas()  # before there are threads, which would take arenas of their own
    with tempfile.TemporaryDirectory(prefix="antbee-") as temporary:
        for name, value in gradio_settings(Path(temporary)).items():
            os.environ.setdefault(name, value)
        registry = ui.ModelRegistry(
            lambda: choose_models(arguments.models),
            lambda models: choose_photos(arguments.data, models, Path(temporary), follow_links=arguments.follow_links),
        )
        for shown in registry.snapshot.models:
            print(f"model     {shown.name}: {', '.join(map(one_line, shown.config.label_names))}")
        with closing(BackgroundTraining()) as training:
            page = ui.build_page(registry, training if may_train(arguments) else None)
            addresses = ui.launch(
                page,
                host=arguments.host,
                port=arguments.port,
                share=arguments.share,
                root_path=arguments.root_path,
                password=os.environ.get(PASSWORD_VARIABLE),
                local_only=may_train(arguments) and is_for_this_computer(arguments),
            )
            for address in addresses:
                print(f"page      {address}", flush=True)
            page.block_thread()


def gradio_settings(temporary: Path) -> dict[str, str]:
    """The environment variables that Gradio reads, for a page with a temporary folder."""
    return {
        "GRADIO_TEMP_DIR": str(temporary / "uploads"),  # for uploads and shown pictures, deleted with the page
        # For a dashboard that the page does not show, Gradio keeps 10,000 requests and makes a table of them at each.
        "GRADIO_ANALYTICS_MAX_EVENTS": "100",
        "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),  # requests between two tables
    }


def may_train(arguments: argparse.Namespace) -> bool:
    """Whether visitors may train on this computer: as the flag says, else where only its owner can open the page."""
    return is_for_this_computer(arguments) if arguments.train is None else bool(arguments.train)


def is_for_this_computer(arguments: argparse.Namespace) -> bool:
    """Whether only people at this computer can open the page, by its flags and environment."""
    host = arguments.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    others = arguments.share or arguments.root_path or "SPACE_ID" in os.environ or "GRADIO_ROOT_PATH" in os.environ
    return host in ("127.0.0.1", "localhost", "::1") and not others


def choose_models(named: Sequence[str]) -> Sequence[str | Path]:
    """The models named on the command line, else in a Space's variable, else all in outputs/."""
    return named or os.environ.get(MODELS_VARIABLE, "").split() or model_folders(home() / "outputs")


if __name__ == "__main__":
    errors.run(main)
