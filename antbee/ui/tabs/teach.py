"""Teach: a classifier of the visitor's own, from a handful of photos, in the browser."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_space, get_upload_folder
from PIL import Image

from antbee import hub
from antbee.data.archive import LONGEST_CLASS_NAME, MOST_CLASSES, MOST_PHOTOS, FewShotError, class_name_of
from antbee.data.folder import SkippedFile
from antbee.data.images import DataError, open_photo
from antbee.models.classifier import Classifier
from antbee.text import as_text, one_line
from antbee.training.fewshot import MODEL_FOLDER, FewShotResult, fit_few_shot, write_zip
from antbee.training.fewshot_data import FewShotClass, Progress, dataset_with_zip, embed
from antbee.training.output import write_model_folder
from antbee.ui.components import Choice, files_of, gallery, photo_of, shown_probabilities, uploaded
from antbee.ui.i18n import ENGLISH, Translator, in_toast, label, translator_of
from antbee.ui.registry import LoadedModel, ModelRegistry, Snapshot, how_to_train
from antbee.ui.sessions import Session, Sessions
from antbee.ui.tabs.classify import NEIGHBOURS, Classifying, verdict_sentence

FIRST_CLASSES = 2  # that stand there from the start
ZIP_NAME = "taught-model.zip"


def teacher_of(exhibit: Snapshot) -> LoadedModel | None:
    """The model whose backbone looks at a visitor's photos: a frozen one's knows nothing of its classes."""
    frozen = next((shown for shown in exhibit.models if shown.config.mode == "frozen"), None)
    return frozen or next(iter(exhibit.models), None)


def begin(session: Session, translate: Translator = ENGLISH) -> None:
    """The classes that an empty lesson starts with."""
    while len(session.dataset.classes) < FIRST_CLASSES:
        add_class(session, translate)


def add_class(session: Session, translate: Translator = ENGLISH) -> None:
    """One more class, under a name that the visitor may change. Raises FewShotError where there are enough."""
    names = session.dataset.label_names
    numbers = range(len(names) + 1, 2 * len(names) + 2)
    free = (name for number in numbers if (name := translate("teach.default", number=number)) not in names)
    session.dataset = session.dataset.with_class(next(free))


def add_photos(
    session: Session, base: Classifier, class_name: str, files: Sequence[Path]
) -> tuple[int, list[SkippedFile]]:
    """Photos that were uploaded for a class: how many were new to it, and those that can't be used.

    The files go when the visitor leaves. Raises FewShotError where another model than `base` looked at the photos that
    are there.
    """
    session.dataset.check_backbone(base)
    # Gradio keeps the same photo once, wherever it is dropped: another tab may show it, so it is not deleted yet.
    session.uploads.update(file for file in files if file.is_file())
    skipped: list[SkippedFile] = []

    def photos() -> Iterator[tuple[str, Image.Image]]:
        for file in files:
            try:
                yield file.name, open_photo(file)
            except DataError as error:
                skipped.append(SkippedFile(one_line(file.name), str(error)))

    before = len(session.dataset)
    for example in embed(base, photos()):
        try:
            session.dataset = session.dataset.with_examples(class_name, [example])
        except FewShotError as error:  # one too many, or another class's: that the others are lost helps nobody
            skipped.append(SkippedFile(one_line(example.name), str(error)))
    return len(session.dataset) - before, skipped


def keep_photos(session: Session, class_name: str, kept: Sequence[Path]) -> None:
    """Takes those photos out of a class whose pictures were deleted in the browser."""
    (known,) = [one for one in session.dataset.classes if one.name == class_name]
    for example in known.examples:
        if session.picture_of(example).resolve() not in kept:
            session.dataset = session.dataset.without_example(class_name, example.name)


def add_zip(
    session: Session, base: Classifier, file: Path, report: Progress = lambda share, what: None
) -> tuple[int, Sequence[SkippedFile]]:
    """All photos of a zip of class folders: how many are new, and those that can't be used. The file is deleted.

    Classes without photos make way. Raises FewShotError where the zip can't be used.
    """
    before = len(session.dataset)
    dataset = session.dataset
    for name, count in dataset.counts.items():
        dataset = dataset if count else dataset.without_class(name)
    try:
        session.dataset, skipped = dataset_with_zip(base, dataset, file, report)
    finally:
        if file.is_file():
            file.unlink()
    return len(session.dataset) - before, skipped


def correct(session: Session, base: Classifier, class_name: str, photo: Image.Image) -> int:
    """Adds a photo that was answered wrongly to the class it is of, and gives how many the class has now.

    A class that stands there without photos makes way for the first correction. Raises FewShotError where it can't.
    """
    dataset = session.dataset
    class_name = class_name_of(class_name)
    if class_name not in dataset.label_names:
        empty = next((name for name, count in dataset.counts.items() if not count), None)
        dataset = dataset.with_class(class_name) if empty is None else dataset.renamed(empty, class_name)
    session.dataset = dataset.with_examples(class_name, embed(base, [("correction.jpg", photo)]))
    return session.dataset.counts[class_name]


def result_sentence(taught: FewShotResult, translate: Translator = ENGLISH) -> str:
    """How good a taught classifier is, as Markdown."""
    if taught.report is None:
        return translate("teach.result.unknown")
    record = taught.report.model_dump()
    low, high = record["interval"]
    told = translate(
        "teach.result",
        accuracy=f"{record['accuracy']:.0%}",
        count=record["count"],
        low=f"{low:.0%}",
        high=f"{high:.0%}",
    )
    detector = taught.classifier.detector
    return (
        told
        if detector is not None and detector.limit is not None
        else f"{told}\n\n{translate('teach.result.no_limit')}"
    )


def answer(
    session: Session, photo: Image.Image, translate: Translator = ENGLISH
) -> tuple[str, dict[str, float], list[tuple[str, str]]]:
    """What the visitor's classifier says of a photo: verdict, probabilities and the nearest of their own photos.

    Raises FewShotError where nothing was taught yet.
    """
    if session.taught is None:
        raise FewShotError(translate("teach.untrained"))
    explanation = session.taught.classifier.explain(photo, NEIGHBOURS)
    pictures = {
        f"{one.name}/{example.name}": example for one in session.dataset.classes for example in one.examples
    }  # those that were taken out since are left out
    nearest = [
        (str(session.picture_of(pictures[neighbour.name])), f"{one_line(neighbour.label)} {neighbour.distance:.2f}")
        for neighbour in explanation.neighbours
        if neighbour.name in pictures
    ]
    prediction = explanation.prediction
    return verdict_sentence(prediction, translate), shown_probabilities(prediction), nearest


def push(taught: FewShotResult, repo_id: str, token: str, *, private: bool) -> str:
    """Pushes the model with the visitor's own token, and gives its address. Raises hub.HubError."""
    with tempfile.TemporaryDirectory(prefix="antbee-push-") as workshop:
        folder = Path(workshop) / MODEL_FOLDER
        write_model_folder(taught.classifier, folder)
        return hub.push(folder, repo_id, private=private, token=token)


class FewShotForm:
    """The visitors' desks, and what happens at each when its visitor does something in the browser.

    Its methods are Gradio's handlers: they take values of the page and give those of others.
    """

    def __init__(self, registry: ModelRegistry, sessions: Sessions) -> None:
        self.registry = registry
        self.sessions = sessions

    @contextmanager
    def at_desk(self, request: gr.Request) -> Iterator[tuple[Session, Classifier, Translator]]:
        """The visitor's desk, for one handler at a time, with the model that looks at photos.

        What can't be done is said to the visitor as gr.Error.
        """
        translate, shown = translator_of(request), teacher_of(self.registry.now)
        if shown is None:
            raise gr.Error(how_to_train(translate), print_exception=False)
        try:
            with self.sessions.at(_session_of(request)) as session:
                begin(session, translate)
                yield session, shown.classifier, translate
        except (FewShotError, hub.HubError, DataError) as error:
            raise gr.Error(translate("teach.failed", error=in_toast(error)), print_exception=False) from error

    def board(self, session: Session, translate: Translator, said: str = "") -> list[Any]:
        """How many photos there are; then of each place for a class: whether it is used, its name and its photos."""
        parts: list[Any] = [_status(session, translate, said)]
        for one in [*session.dataset.classes, *[None] * (MOST_CLASSES - len(session.dataset.classes))]:
            pictures = [] if one is None else _pictures(session, one)
            parts += [gr.Column(visible=one is not None), "" if one is None else one.name, pictures]
        return parts

    def start(self, request: gr.Request) -> list[Any]:
        """What the tab says, and the board."""
        shown, translate = teacher_of(self.registry.now), translator_of(request)
        if shown is None:
            return [how_to_train(translate), "", *[gr.Column(visible=False), "", None] * MOST_CLASSES]
        with self.at_desk(request) as (session, _, translate):
            return [translate("teach.intro", name=as_text(shown.name)), *self.board(session, translate)]

    def one_more(self, request: gr.Request) -> list[Any]:
        """The board with one more class."""
        with self.at_desk(request) as (session, _, translate):
            add_class(session, translate)
            return self.board(session, translate)

    def clear(self, request: gr.Request) -> list[Any]:
        """An empty board, and nothing of what was taught."""
        with self.at_desk(request) as (session, _, translate):
            session.start_again()
            begin(session, translate)
            return [*self.board(session, translate), "", gr.DownloadButton(interactive=False)]

    # Of what a class's own place says, no more is sent back than it asked for: the visitor may be typing in another.

    def rename(self, place: int, name: str, request: gr.Request) -> str:
        """The name of the class in this place, which is called so from now on."""
        with self.at_desk(request) as (session, _, _):
            old = _name_at(session, place)
            if name != old:
                session.dataset = session.dataset.renamed(old, name)
            return _name_at(session, place)

    def upload(self, place: int, pictures: Any, request: gr.Request) -> list[Any]:
        """What is said of photos that a gallery shows and did not show before, and what it shows now."""
        with self.at_desk(request) as (session, base, translate):
            files = dict.fromkeys(_gallery_files(pictures, translate))
            new = [file for file in files if not session.shows(file)]
            said = _added(*add_photos(session, base, _name_at(session, place), new), translate)
            return [_status(session, translate, said), _pictures(session, session.dataset.classes[place])]

    def delete(self, place: int, pictures: Any, request: gr.Request) -> list[Any]:
        """The same where a gallery shows less than before."""
        with self.at_desk(request) as (session, _, translate):
            keep_photos(session, _name_at(session, place), _gallery_files(pictures, translate))
            return [_status(session, translate), _pictures(session, session.dataset.classes[place])]

    def remove(self, place: int, request: gr.Request) -> list[Any]:
        """The board without the class in this place."""
        with self.at_desk(request) as (session, _, translate):
            session.dataset = session.dataset.without_class(_name_at(session, place))
            begin(session, translate)
            return self.board(session, translate)

    def unzip(self, upload: Any, request: gr.Request, progress: gr.Progress = gr.Progress()) -> list[Any]:
        """The board with the photos of a zip."""
        with self.at_desk(request) as (session, base, translate):
            told = translate("teach.looking")
            found = add_zip(session, base, uploaded(upload), lambda share, what: progress(share, told))
            return self.board(session, translate, _added(*found, translate))

    def correct(self, upload: Any, truth: str | None, request: gr.Request) -> list[Any]:
        """The board with a photo of the Classify tab in the class that the visitor says it shows."""
        with self.at_desk(request) as (session, base, translate):
            photo = photo_of(upload, translate)
            if photo is None or not truth:
                raise FewShotError(translate("teach.which"))
            count = correct(session, base, truth, photo)
            gr.Info(translate("teach.corrected", name=in_toast(truth), count=count))
            return self.board(session, translate)

    def learn(self, upload: Any, request: gr.Request, progress: gr.Progress = gr.Progress()) -> list[Any]:
        """What was learned, the model to take away, and what it says of the photo that is there to be asked about."""
        with self.at_desk(request) as (session, base, translate):
            told = translate("teach.learning")
            session.taught = fit_few_shot(base, session.dataset, progress=lambda share, what: progress(share, told))
            path = session.place_for(ZIP_NAME)
            write_zip(session.taught.classifier, path)
            learned = [result_sentence(session.taught, translate), gr.DownloadButton(value=str(path), interactive=True)]
            try:
                return [*learned, *_answers(session, upload, translate)]
            except gr.Error as error:  # the photo was swept meanwhile; what was learned is there all the same
                gr.Warning(error.message)
                return [*learned, *_answers(session, None, translate)]

    def ask(self, upload: Any, request: gr.Request) -> list[Any]:
        """What the visitor's classifier says of a photo."""
        with self.at_desk(request) as (session, _, translate):
            return _answers(session, upload, translate)

    def give(
        self, repo_id: str, typed: str, private: bool, request: gr.Request, signed_in: gr.OAuthToken | None
    ) -> list[str]:
        """Where the model is on the Hub; and the token's field, emptied."""
        with self.at_desk(request) as (session, _, translate):
            token = typed.strip() or (signed_in.token if signed_in else "")
            if session.taught is None:
                raise FewShotError(translate("teach.untrained"))
            if not token:  # without one the Hub's library would take that of whoever runs this page
                raise FewShotError(translate("teach.no_token"))
            address = push(session.taught, repo_id.strip(), token, private=private)
            return [translate("teach.pushed", address=address), ""]

    def leave(self, request: gr.Request) -> None:
        """Nothing of the visitor's is left."""
        self.sessions.leave(request.session_hash or "")


def _answers(session: Session, upload: Any, translate: Translator) -> list[Any]:
    """Verdict, probabilities and nearest photos; nothing without a photo."""
    photo = photo_of(upload, translate)
    if photo is None:
        return ["", gr.Label(visible=False), gr.Gallery(visible=False)]
    session.uploads.add(uploaded(upload))
    verdict, probabilities, neighbours = answer(session, photo, translate)
    return [verdict, gr.Label(probabilities, visible=True), gr.Gallery(neighbours, visible=bool(neighbours))]


def _session_of(request: gr.Request) -> str:
    """What tells a visitor from all others. Raises FewShotError without it: its desk would be everybody's."""
    if not request.session_hash:
        raise FewShotError("no session came: open the page in a browser, which starts one")
    return request.session_hash


def _name_at(session: Session, place: int) -> str:
    """The class in a place of the board. Raises FewShotError where it is gone by now."""
    names = session.dataset.label_names
    if place >= len(names):
        raise FewShotError("this class is gone already: go on with one of the others")
    return names[place]


def _status(session: Session, translate: Translator, said: str = "") -> str:
    """What was done, and how many photos there are."""
    classes = len(session.dataset.classes)
    told = translate("teach.count", photos=len(session.dataset), classes=classes, most=MOST_PHOTOS)
    return f"{said}\n\n{told}" if said else told


def _pictures(session: Session, one: FewShotClass) -> list[str]:
    """What the gallery of a class shows."""
    return [str(session.picture_of(example)) for example in one.examples]


def _gallery_files(pictures: Any, translate: Translator) -> list[Path]:
    """The files that a gallery shows, in the form that the browser sends."""
    shown = pictures if isinstance(pictures, list) else []
    return files_of([item.get("image") if isinstance(item, dict) else None for item in shown], translate)


def _added(count: int, skipped: Sequence[SkippedFile], translate: Translator) -> str:
    if not skipped:
        return translate("teach.added", count=count)
    first = {"file": as_text(skipped[0].file), "reason": as_text(skipped[0].reason)}
    return translate("teach.skipped", count=count, skipped=len(skipped), **first)


def teach_tab(registry: ModelRegistry, choice: Choice, classifying: Classifying, page: gr.Blocks) -> None:
    """Classes with their photos, a button that trains, the classifier at work, and ways to take it along."""
    room = FewShotForm(registry, Sessions(Path(get_upload_folder()) / "visitors"))
    intro = gr.Markdown()
    with gr.Row():
        slots = [_slot() for _ in range(MOST_CLASSES)]
    with gr.Row():
        more = gr.Button(label("teach.add"))
        zipped = gr.UploadButton(str(label("teach.zip")), file_types=[".zip"])
        fresh = gr.Button(label("teach.clear"))
    status = gr.Markdown()
    board = [status, *[part for slot in slots for part in slot.shown]]
    train = gr.Button(label("teach.train"), variant="primary")
    result = gr.Markdown(elem_classes="verdict")
    photo, answers = _trying()
    with gr.Accordion(label("teach.take"), open=False):
        download = _taking(room)

    private: dict[str, Any] = {"api_visibility": "private"}
    # Not where a visitor chooses among the models, as the page does when it opens: it would fill in the names anew that
    # are being typed, and another choice changes nothing here.
    gr.on([choice.changes[0], choice.version.change], room.start, None, [intro, *board], **private)
    more.click(room.one_more, None, board, **private)
    fresh.click(room.clear, None, [*board, result, download], **private)
    zipped.upload(room.unzip, zipped, board, preprocess=False, **private)
    correction = [classifying.photo, classifying.truth]
    classifying.correct.click(room.correct, correction, board, preprocess=False, **private)
    train.click(room.learn, photo, [result, download, *answers], preprocess=False, **private)
    photo.change(room.ask, photo, answers, preprocess=False, **private)
    page.unload(room.leave)
    for place, slot in enumerate(slots):
        _wire(room, place, slot, board)


@dataclass(frozen=True)
class _Slot:
    """A place for a class on the board."""

    column: gr.Column
    name: gr.Textbox
    photos: gr.Gallery
    remove: gr.Button

    @property
    def shown(self) -> list[gr.blocks.Block]:
        """What `FewShotForm.board` fills."""
        return [self.column, self.name, self.photos]


def _slot() -> _Slot:
    with gr.Column(visible=False, min_width=280) as column:
        name = gr.Textbox(label=label("teach.class"), max_length=LONGEST_CLASS_NAME)
        photos = gallery(
            label=label("teach.photos"),
            columns=4,
            interactive=True,
            sources=["upload", "webcam", "clipboard"],
            file_types=["image"],
            format="png",
            allow_preview=False,
        )
        return _Slot(column, name, photos, gr.Button(label("teach.remove"), size="sm"))


def _wire(room: FewShotForm, place: int, slot: _Slot, board: list[Any]) -> None:
    """What happens in one place of the board. Gradio reads from a function's own arguments what to give it."""

    def rename(name: str, request: gr.Request) -> None:
        room.rename(place, name, request)

    def remove(request: gr.Request) -> list[Any]:
        return room.remove(place, request)

    def upload(pictures: Any, request: gr.Request) -> list[Any]:
        return room.upload(place, pictures, request)

    def delete(pictures: Any, request: gr.Request) -> list[Any]:
        return room.delete(place, pictures, request)

    private: dict[str, Any] = {"api_visibility": "private"}
    shown = [board[0], slot.photos]
    # Nothing is written back, and the last name counts: the visitor may have typed on meanwhile.
    typed: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", **private}
    gr.on([slot.name.submit, slot.name.blur], rename, slot.name, None, **typed)
    slot.remove.click(remove, None, board, **private)
    slot.photos.upload(upload, slot.photos, shown, preprocess=False, **private)
    slot.photos.delete(delete, slot.photos, shown, preprocess=False, **private)


def _trying() -> tuple[gr.Image, list[gr.blocks.Block]]:
    with gr.Row():
        with gr.Column(min_width=280):
            photo = gr.Image(
                elem_id="try",
                label=label("teach.try"),
                sources=["upload", "webcam", "clipboard"],
                height=300,
                format="png",
            )
        with gr.Column(min_width=280):
            verdict = gr.Markdown(elem_classes="verdict")
            probabilities = gr.Label(label=label("teach.try.answer"), show_heading=False, visible=False)
            nearest = gallery(label=label("teach.try.neighbours"), columns=NEIGHBOURS, visible=False)
    return photo, [verdict, probabilities, nearest]


def _taking(room: FewShotForm) -> gr.DownloadButton:
    gr.Markdown(label("teach.take.info"))
    download = gr.DownloadButton(str(label("teach.download")), interactive=False)
    with gr.Row():
        repository = gr.Textbox(label=label("teach.repository"), placeholder="your-name/my-classifier")
        token = gr.Textbox(label=label("teach.token"), info=label("teach.token.info"), type="password")
        private = gr.Checkbox(label=label("teach.private"))
    if _visitors_can_sign_in():
        gr.LoginButton()
    push_button = gr.Button(label("teach.push"))
    pushed = gr.Markdown()
    push_button.click(room.give, [repository, token, private], [pushed, token], api_visibility="private")
    return download


def _visitors_can_sign_in() -> bool:
    """Whether this is a Space with `hf_oauth: true`, and gradio[oauth] is there."""
    is_allowed = get_space() is not None and "OAUTH_CLIENT_ID" in os.environ
    return is_allowed and all(map(find_spec, ("authlib", "itsdangerous")))
