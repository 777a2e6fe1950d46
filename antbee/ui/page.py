"""The whole page: the models it shows, its tabs, and how it is served."""

import sys
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from antbee.errors import AntbeeError
from antbee.installation import home
from antbee.text import as_text
from antbee.training.background import BackgroundTraining
from antbee.ui.components import NEWEST, PRIVATE, Choice, newly_chosen
from antbee.ui.i18n import label, translations, translator_of
from antbee.ui.registry import SIDE_BY_SIDE, ModelRegistry, notices
from antbee.ui.security import RequestLimits
from antbee.ui.tabs.batches import batches_tab
from antbee.ui.tabs.classify import classify_tab
from antbee.ui.tabs.inside import inside_tab
from antbee.ui.tabs.report import report_tab
from antbee.ui.tabs.teach import teach_tab
from antbee.ui.tabs.train import train_tab
from antbee.ui.uploads import UploadsOnly

POLL_SECONDS = 10  # between two checks for changed models
USER = "antbee"  # the user name where the page has a password
LONGEST_QUEUE = 256  # requests: opening the page makes five, so that 50 visitors can open it at once
QUEUE_SECONDS = 1.0  # between two messages to those who wait
MOST_SESSIONS = 200  # kept by Gradio, 0.3 MB each; older ones lose their state
TEACH = "teach"  # the id of its tab
SWEEP, KEEP = 600, 3600  # seconds: how often uploads and shown pictures are deleted, and from which age
STYLE = """
.notice { border-left: 0.4rem solid #d55e00; padding: 0.4rem 1rem; background: var(--background-fill-secondary); }
.notice .notice { border: 0; padding: 0; } /* Gradio gives the class to the block and to the text in it */
.verdict h2 { margin: 0; }
.log textarea { font-family: var(--font-mono); white-space: pre; overflow-x: auto; }
.numbers span { overflow-wrap: normal !important; word-break: normal !important; } /* no number in two lines */
.reading { max-width: 54rem; }
/* Pictures stand side by side in full, with their captions below instead of on them, and no empty space around. */
.pictures .grid-wrap { min-height: 0; max-height: none; height: auto; overflow: visible; }
.pictures .grid-container {
    grid-template-columns: repeat(var(--grid-cols), minmax(0, 1fr)); grid-auto-rows: max-content;
    align-items: start; padding-top: var(--size-6);
}
.pictures .thumbnail-item { display: flex; flex-direction: column; height: auto; aspect-ratio: auto; }
.pictures img { width: 100%; height: auto; aspect-ratio: 1; object-fit: cover; }
.whole img { aspect-ratio: auto; object-fit: contain; }
.pictures .caption-label {
    position: static; max-width: 100%; border: 0; border-radius: 0; text-align: center; white-space: normal;
    overflow-wrap: anywhere;
}
.block.hide-container { overflow: visible !important; } /* text that can be scrolled has to take the focus */
.progress-text { color: var(--body-text-color) !important; }
.or, .max_value, .min_value { color: var(--body-text-color-subdued) !important; opacity: 1 !important; }
@media (max-width: 600px) { .tiles .grid-container { --grid-cols: 2 !important; } }
"""


def build_page(registry: ModelRegistry, training: BackgroundTraining | None = None) -> gr.Blocks:
    """The whole page; the Train tab is there where `training` is given."""
    with gr.Blocks(title="antbee", analytics_enabled=False, delete_cache=(SWEEP, KEEP)) as page:
        choice = _sidebar(registry, page)
        gr.Markdown(label("page.title"))
        _notices(registry, choice)
        with gr.Tabs(overflow_behavior="wrap") as tabs:  # a phone shows all of them
            with gr.Tab(label("classify.tab")):
                classify_parts = classify_tab(registry, choice)
            with gr.Tab(label("batches.tab")):
                batches_tab(registry, choice)
            with gr.Tab(label("report.tab")) as report:
                report_tab(registry, choice, report)
            with gr.Tab(label("inside.tab")) as inside:
                inside_tab(registry, choice, classify_parts.photo, inside)
            with gr.Tab(label("teach.tab"), id=TEACH):
                teach_tab(registry, choice, classify_parts, page)
            if training is not None:
                with gr.Tab(label("train.tab")):
                    train_tab(registry, choice, training, home() / "outputs")
        # Without a model Teach is the only tab where something can be done.
        page.load(lambda: gr.skip() if registry.snapshot.models else gr.Tabs(selected=TEACH), None, tabs, **PRIVATE)
    return page


def _sidebar(registry: ModelRegistry, page: gr.Blocks) -> Choice:
    """The choice of models, and an offer to load those that changed on the disk."""
    with gr.Sidebar(label("page.models"), open=False):
        texts: dict[str, Any] = {"label": label("page.models.shown"), "info": label("page.models.info")}
        names = registry.snapshot.names
        chosen = gr.Dropdown(names, value=names[:SIDE_BY_SIDE], multiselect=True, max_choices=SIDE_BY_SIDE, **texts)
    version = gr.State(registry.version)
    news = gr.Markdown(visible=False, elem_classes="notice")
    update = gr.Button(label("page.models.reload"), visible=False, size="sm")

    def poll(request: gr.Request) -> list[Any]:
        changed = registry.changed()
        text = translator_of(request)("page.models.changed", names=", ".join(map(as_text, changed)))
        return [gr.Markdown(text, visible=bool(changed)), gr.Button(visible=bool(changed))]

    def reload(request: gr.Request) -> list[Any]:
        translate = translator_of(request)
        try:
            registry.reload()
        except (AntbeeError, OSError) as error:
            print(f"the models shown stay: {error}", file=sys.stderr)  # visitors must not see the owner's paths
            raise gr.Error(translate("page.models.failed"), print_exception=False) from error
        return [*newly_chosen(registry), gr.Markdown(visible=False), gr.Button(visible=False)]

    quiet: dict[str, Any] = PRIVATE | {"show_progress": "hidden", "queue": False}
    page.load(lambda: newly_chosen(registry), None, [chosen, version], **quiet)
    gr.Timer(POLL_SECONDS).tick(poll, None, [news, update], **quiet)
    update.click(reload, None, [chosen, version, news, update], **PRIVATE)
    return Choice(chosen, version, [page.load, chosen.change, version.change])


def _notices(registry: ModelRegistry, choice: Choice) -> None:
    notice = gr.Markdown(visible=False, elem_classes="notice")

    def show(request: gr.Request) -> gr.Markdown:
        texts = notices(registry.snapshot.models, translator_of(request))
        return gr.Markdown("\n\n".join(texts), visible=bool(texts))

    gr.on(choice.changes, show, None, notice, queue=False, **NEWEST)


def _theme() -> gr.themes.Base:
    """Gradio's default theme with a contrast of at least 4.5 : 1 (WCAG 2.2, 1.4.3)."""
    return gr.themes.Default(primary_hue="amber", secondary_hue="blue").set(
        button_primary_text_color="*neutral_950",
        button_primary_text_color_dark="*neutral_950",
        button_primary_background_fill_dark="*primary_500",
        button_cancel_background_fill="*neutral_200",
        button_cancel_background_fill_dark="*neutral_600",
        button_cancel_text_color="*neutral_950",
        button_cancel_text_color_dark="white",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
    )


def launch(
    page: gr.Blocks,
    *,
    host: str | None,
    port: int | None,
    share: bool,
    root_path: str | None = None,
    password: str | None = None,
    local_only: bool = False,
) -> list[str]:
    """Serves the page in the background and returns its addresses; `page.block_thread()` waits until it is stopped.

    `root_path` is the path behind a proxy, such as /antbee; with a password, visitors sign in as USER; `local_only`
    refuses requests by other names of this computer. Raises OSError where the port is taken.
    """
    # api_open would let calls bypass the queue and its bounds.
    # By default all who wait get a message whenever one of them is answered: n visitors, n² messages.
    page.queue(status_update_rate=QUEUE_SECONDS, max_size=LONGEST_QUEUE, default_concurrency_limit=1, api_open=False)
    middleware = [Middleware(RequestLimits, local_only=local_only), Middleware(UploadsOnly, page)]
    try:
        _, local, public = page.launch(
            server_name=host,
            server_port=port,
            share=share,
            root_path=root_path,
            auth=None if password is None else (USER, password),
            theme=_theme(),
            css=STYLE,
            i18n=translations(),
            app_kwargs={"middleware": middleware},
            max_file_size="20mb",
            state_session_capacity=MOST_SESSIONS,
            footer_links=["api", "settings"],
            run_history=False,  # photos are not kept in the visitor's browser
            enable_monitoring=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        where = f"port {port or 7860}" + (f" of {host}" if host else "")
        raise OSError(
            f"the page can't be served at {where}: something else is served there, or it is no address of this computer"
            " (choose others with --port and --host)"
        ) from error
    return [address for address in (local, public) if address]
