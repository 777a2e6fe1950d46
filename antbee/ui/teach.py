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

from antbee import hub, teaching
from antbee.classifier import Classifier
from antbee.data import Skipped
from antbee.images import DataError, open_photo
from antbee.teaching import MODEL_FOLDER, MOST_CLASSES, MOST_PHOTOS, LessonClass, Taught, TeachingError
from antbee.text import as_text, one_line
from antbee.ui.choice import Choice
from antbee.ui.classify import NEIGHBOURS, Classifying, verdict_sentence
from antbee.ui.exhibition import Exhibit, Exhibition, Shown, how_to_train
from antbee.ui.photo import files_of, gallery, photo_of, shown_probabilities, uploaded
from antbee.ui.visitors import Desk, Desks
from antbee.ui.words import ENGLISH, Speech, in_toast, label, speech_of

FIRST_CLASSES = 2  # that stand there from the start
ZIP_NAME = "taught-model.zip"


# ---------------------------------------------------------------------------------------------------------------------
# Handlers


def teacher_of(exhibit: Exhibit) -> Shown | None:
    """The model whose backbone looks at a visitor's photos: a frozen one's knows nothing of its classes."""
    frozen = next((shown for shown in exhibit.models if shown.config.mode == "frozen"), None)
    return frozen or next(iter(exhibit.models), None)


def begin(desk: Desk, speech: Speech = ENGLISH) -> None:
    """The classes that an empty lesson starts with."""
    while len(desk.lesson.classes) < FIRST_CLASSES:
        add_class(desk, speech)


def add_class(desk: Desk, speech: Speech = ENGLISH) -> None:
    """One more class, under a name that the visitor may change. Raises TeachingError where there are enough."""
    names = desk.lesson.label_names
    numbers = range(len(names) + 1, 2 * len(names) + 2)
    free = (name for number in numbers if (name := speech("teach.default", number=number)) not in names)
    desk.lesson = desk.lesson.with_class(next(free))


def add_photos(desk: Desk, base: Classifier, class_name: str, files: Sequence[Path]) -> tuple[int, list[Skipped]]:
    """Photos that were uploaded for a class: how many were new to it, and those that can't be used.

    The files go when the visitor leaves. Raises TeachingError where another model than `base` looked at the photos that
    are there.
    """
    desk.lesson.check_backbone(base)
    # Gradio keeps the same photo once, wherever it is dropped: another tab may show it, so it is not deleted yet.
    desk.uploads.update(file for file in files if file.is_file())
    skipped: list[Skipped] = []

    def photos() -> Iterator[tuple[str, Image.Image]]:
        for file in files:
            try:
                yield file.name, open_photo(file)
            except DataError as error:
                skipped.append(Skipped(one_line(file.name), str(error)))

    before = len(desk.lesson)
    for example in teaching.look(base, photos()):
        try:
            desk.lesson = desk.lesson.with_examples(class_name, [example])
        except TeachingError as error:  # one too many, or another class's: that the others are lost helps nobody
            skipped.append(Skipped(one_line(example.name), str(error)))
    return len(desk.lesson) - before, skipped


def keep_photos(desk: Desk, class_name: str, kept: Sequence[Path]) -> None:
    """Takes those photos out of a class whose pictures were deleted in the browser."""
    (known,) = [one for one in desk.lesson.classes if one.name == class_name]
    for example in known.examples:
        if desk.picture_of(example).resolve() not in kept:
            desk.lesson = desk.lesson.without_example(class_name, example.name)


def add_zip(
    desk: Desk, base: Classifier, file: Path, report: teaching.Progress = lambda share, what: None
) -> tuple[int, Sequence[Skipped]]:
    """All photos of a zip of class folders: how many are new, and those that can't be used. The file is deleted.

    Classes without photos make way. Raises TeachingError where the zip can't be used.
    """
    before = len(desk.lesson)
    lesson = desk.lesson
    for name, count in lesson.counts.items():
        lesson = lesson if count else lesson.without_class(name)
    try:
        desk.lesson, skipped = teaching.lesson_with_zip(base, lesson, file, report)
    finally:
        if file.is_file():
            file.unlink()
    return len(desk.lesson) - before, skipped


def correct(desk: Desk, base: Classifier, class_name: str, photo: Image.Image) -> int:
    """Adds a photo that was answered wrongly to the class it is of, and gives how many the class has now.

    A class that stands there without photos makes way for the first correction. Raises TeachingError where it can't.
    """
    lesson = desk.lesson
    class_name = teaching.class_name_of(class_name)
    if class_name not in lesson.label_names:
        empty = next((name for name, count in lesson.counts.items() if not count), None)
        lesson = lesson.with_class(class_name) if empty is None else lesson.renamed(empty, class_name)
    desk.lesson = lesson.with_examples(class_name, teaching.look(base, [("correction.jpg", photo)]))
    return desk.lesson.counts[class_name]


def result_sentence(taught: Taught, speech: Speech = ENGLISH) -> str:
    """How good a taught classifier is, as Markdown."""
    if taught.report is None:
        return speech("teach.result.unknown")
    record = taught.report.score.to_record()
    low, high = record["interval"]
    told = speech(
        "teach.result",
        accuracy=f"{record['accuracy']:.0%}",
        count=record["count"],
        low=f"{low:.0%}",
        high=f"{high:.0%}",
    )
    bank = taught.classifier.bank
    return told if bank is not None and bank.limit is not None else f"{told}\n\n{speech('teach.result.no_limit')}"


def answer(
    desk: Desk, photo: Image.Image, speech: Speech = ENGLISH
) -> tuple[str, dict[str, float], list[tuple[str, str]]]:
    """What the visitor's classifier says of a photo: verdict, probabilities and the nearest of their own photos.

    Raises TeachingError where nothing was taught yet.
    """
    if desk.taught is None:
        raise TeachingError(speech("teach.untrained"))
    explanation = desk.taught.classifier.explain(photo, NEIGHBOURS)
    pictures = {
        f"{one.name}/{example.name}": example for one in desk.lesson.classes for example in one.examples
    }  # those that were taken out since are left out
    nearest = [
        (str(desk.picture_of(pictures[neighbour.name])), f"{one_line(neighbour.label)} {neighbour.distance:.2f}")
        for neighbour in explanation.neighbours
        if neighbour.name in pictures
    ]
    prediction = explanation.prediction
    return verdict_sentence(prediction, speech), shown_probabilities(prediction), nearest


def push(taught: Taught, repo_id: str, token: str, *, private: bool) -> str:
    """Pushes the model with the visitor's own token, and gives its address. Raises hub.HubError."""
    with tempfile.TemporaryDirectory(prefix="antbee-push-") as workshop:
        folder = Path(workshop) / MODEL_FOLDER
        teaching.write_folder(taught.classifier, folder)
        return hub.push(folder, repo_id, private=private, token=token)


# ---------------------------------------------------------------------------------------------------------------------
# What the browser asks for


class Classroom:
    """The visitors' desks, and what happens at each when its visitor does something in the browser.

    Its methods are Gradio's handlers: they take values of the page and give those of others.
    """

    def __init__(self, exhibition: Exhibition, desks: Desks) -> None:
        self.exhibition = exhibition
        self.desks = desks

    @contextmanager
    def at_desk(self, request: gr.Request) -> Iterator[tuple[Desk, Classifier, Speech]]:
        """The visitor's desk, for one handler at a time, with the model that looks at photos.

        What can't be done is said to the visitor as gr.Error.
        """
        speech, shown = speech_of(request), teacher_of(self.exhibition.now)
        if shown is None:
            raise gr.Error(how_to_train(speech), print_exception=False)
        try:
            with self.desks.at(_session_of(request)) as desk:
                begin(desk, speech)
                yield desk, shown.classifier, speech
        except (TeachingError, hub.HubError, DataError) as error:
            raise gr.Error(speech("teach.failed", error=in_toast(error)), print_exception=False) from error

    def board(self, desk: Desk, speech: Speech, said: str = "") -> list[Any]:
        """How many photos there are; then of each place for a class: whether it is used, its name and its photos."""
        parts: list[Any] = [_status(desk, speech, said)]
        for one in [*desk.lesson.classes, *[None] * (MOST_CLASSES - len(desk.lesson.classes))]:
            pictures = [] if one is None else _pictures(desk, one)
            parts += [gr.Column(visible=one is not None), "" if one is None else one.name, pictures]
        return parts

    def start(self, request: gr.Request) -> list[Any]:
        """What the tab says, and the board."""
        shown, speech = teacher_of(self.exhibition.now), speech_of(request)
        if shown is None:
            return [how_to_train(speech), "", *[gr.Column(visible=False), "", None] * MOST_CLASSES]
        with self.at_desk(request) as (desk, _, speech):
            return [speech("teach.intro", name=as_text(shown.name)), *self.board(desk, speech)]

    def one_more(self, request: gr.Request) -> list[Any]:
        """The board with one more class."""
        with self.at_desk(request) as (desk, _, speech):
            add_class(desk, speech)
            return self.board(desk, speech)

    def clear(self, request: gr.Request) -> list[Any]:
        """An empty board, and nothing of what was taught."""
        with self.at_desk(request) as (desk, _, speech):
            desk.start_again()
            begin(desk, speech)
            return [*self.board(desk, speech), "", gr.DownloadButton(interactive=False)]

    # Of what a class's own place says, no more is sent back than it asked for: the visitor may be typing in another.

    def rename(self, place: int, name: str, request: gr.Request) -> str:
        """The name of the class in this place, which is called so from now on."""
        with self.at_desk(request) as (desk, _, _):
            old = _name_at(desk, place)
            if name != old:
                desk.lesson = desk.lesson.renamed(old, name)
            return _name_at(desk, place)

    def upload(self, place: int, pictures: Any, request: gr.Request) -> list[Any]:
        """What is said of photos that a gallery shows and did not show before, and what it shows now."""
        with self.at_desk(request) as (desk, base, speech):
            files = dict.fromkeys(_gallery_files(pictures, speech))
            new = [file for file in files if not desk.shows(file)]
            said = _added(*add_photos(desk, base, _name_at(desk, place), new), speech)
            return [_status(desk, speech, said), _pictures(desk, desk.lesson.classes[place])]

    def delete(self, place: int, pictures: Any, request: gr.Request) -> list[Any]:
        """The same where a gallery shows less than before."""
        with self.at_desk(request) as (desk, _, speech):
            keep_photos(desk, _name_at(desk, place), _gallery_files(pictures, speech))
            return [_status(desk, speech), _pictures(desk, desk.lesson.classes[place])]

    def remove(self, place: int, request: gr.Request) -> list[Any]:
        """The board without the class in this place."""
        with self.at_desk(request) as (desk, _, speech):
            desk.lesson = desk.lesson.without_class(_name_at(desk, place))
            begin(desk, speech)
            return self.board(desk, speech)

    def unzip(self, upload: Any, request: gr.Request, progress: gr.Progress = gr.Progress()) -> list[Any]:
        """The board with the photos of a zip."""
        with self.at_desk(request) as (desk, base, speech):
            told = speech("teach.looking")
            found = add_zip(desk, base, uploaded(upload), lambda share, what: progress(share, told))
            return self.board(desk, speech, _added(*found, speech))

    def correct(self, upload: Any, truth: str | None, request: gr.Request) -> list[Any]:
        """The board with a photo of the Classify tab in the class that the visitor says it shows."""
        with self.at_desk(request) as (desk, base, speech):
            photo = photo_of(upload, speech)
            if photo is None or not truth:
                raise TeachingError(speech("teach.which"))
            count = correct(desk, base, truth, photo)
            gr.Info(speech("teach.corrected", name=in_toast(truth), count=count))
            return self.board(desk, speech)

    def learn(self, upload: Any, request: gr.Request, progress: gr.Progress = gr.Progress()) -> list[Any]:
        """What was learned, the model to take away, and what it says of the photo that is there to be asked about."""
        with self.at_desk(request) as (desk, base, speech):
            told = speech("teach.learning")
            desk.taught = teaching.teach(base, desk.lesson, progress=lambda share, what: progress(share, told))
            path = desk.place_for(ZIP_NAME)
            teaching.write_zip(desk.taught.classifier, path)
            learned = [result_sentence(desk.taught, speech), gr.DownloadButton(value=str(path), interactive=True)]
            try:
                return [*learned, *_answers(desk, upload, speech)]
            except gr.Error as error:  # the photo was swept meanwhile; what was learned is there all the same
                gr.Warning(error.message)
                return [*learned, *_answers(desk, None, speech)]

    def ask(self, upload: Any, request: gr.Request) -> list[Any]:
        """What the visitor's classifier says of a photo."""
        with self.at_desk(request) as (desk, _, speech):
            return _answers(desk, upload, speech)

    def give(
        self, repo_id: str, typed: str, private: bool, request: gr.Request, signed_in: gr.OAuthToken | None
    ) -> list[str]:
        """Where the model is on the Hub; and the token's field, emptied."""
        with self.at_desk(request) as (desk, _, speech):
            token = typed.strip() or (signed_in.token if signed_in else "")
            if desk.taught is None:
                raise TeachingError(speech("teach.untrained"))
            if not token:  # without one the Hub's library would take that of whoever runs this page
                raise TeachingError(speech("teach.no_token"))
            address = push(desk.taught, repo_id.strip(), token, private=private)
            return [speech("teach.pushed", address=address), ""]

    def leave(self, request: gr.Request) -> None:
        """Nothing of the visitor's is left."""
        self.desks.leave(request.session_hash or "")


def _answers(desk: Desk, upload: Any, speech: Speech) -> list[Any]:
    """Verdict, probabilities and nearest photos; nothing without a photo."""
    photo = photo_of(upload, speech)
    if photo is None:
        return ["", gr.Label(visible=False), gr.Gallery(visible=False)]
    desk.uploads.add(uploaded(upload))
    verdict, probabilities, neighbours = answer(desk, photo, speech)
    return [verdict, gr.Label(probabilities, visible=True), gr.Gallery(neighbours, visible=bool(neighbours))]


def _session_of(request: gr.Request) -> str:
    """What tells a visitor from all others. Raises TeachingError without it: its desk would be everybody's."""
    if not request.session_hash:
        raise TeachingError("no session came: open the page in a browser, which starts one")
    return request.session_hash


def _name_at(desk: Desk, place: int) -> str:
    """The class in a place of the board. Raises TeachingError where it is gone by now."""
    names = desk.lesson.label_names
    if place >= len(names):
        raise TeachingError("this class is gone already: go on with one of the others")
    return names[place]


def _status(desk: Desk, speech: Speech, said: str = "") -> str:
    """What was done, and how many photos there are."""
    classes = len(desk.lesson.classes)
    told = speech("teach.count", photos=len(desk.lesson), classes=classes, most=MOST_PHOTOS)
    return f"{said}\n\n{told}" if said else told


def _pictures(desk: Desk, one: LessonClass) -> list[str]:
    """What the gallery of a class shows."""
    return [str(desk.picture_of(example)) for example in one.examples]


def _gallery_files(pictures: Any, speech: Speech) -> list[Path]:
    """The files that a gallery shows, in the form that the browser sends."""
    shown = pictures if isinstance(pictures, list) else []
    return files_of([item.get("image") if isinstance(item, dict) else None for item in shown], speech)


def _added(count: int, skipped: Sequence[Skipped], speech: Speech) -> str:
    if not skipped:
        return speech("teach.added", count=count)
    first = {"file": as_text(skipped[0].file), "reason": as_text(skipped[0].reason)}
    return speech("teach.skipped", count=count, skipped=len(skipped), **first)


# ---------------------------------------------------------------------------------------------------------------------
# The tab


def teach_tab(exhibition: Exhibition, choice: Choice, classifying: Classifying, page: gr.Blocks) -> None:
    """Classes with their photos, a button that trains, the classifier at work, and ways to take it along."""
    room = Classroom(exhibition, Desks(Path(get_upload_folder()) / "visitors"))
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
    gr.on([choice.changes[0], choice.edition.change], room.start, None, [intro, *board], **private)
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
        """What `Classroom.board` fills."""
        return [self.column, self.name, self.photos]


def _slot() -> _Slot:
    with gr.Column(visible=False, min_width=280) as column:
        name = gr.Textbox(label=label("teach.class"), max_length=teaching.LONGEST_CLASS_NAME)
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


def _wire(room: Classroom, place: int, slot: _Slot, board: list[Any]) -> None:
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


def _taking(room: Classroom) -> gr.DownloadButton:
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
