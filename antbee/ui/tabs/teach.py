"""Teach: trains a classifier on a handful of the visitor's own photos, in the browser (few-shot)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder
from PIL import Image

from antbee.data.archive import MOST_CLASSES, MOST_PHOTOS, FewShotError, class_name_of
from antbee.data.images import DataError, open_photo
from antbee.data.listing import SkippedFile
from antbee.data.zip_names import ZipNames
from antbee.models.classifier import Classifier
from antbee.text import as_text, one_line
from antbee.training.fewshot import FewShotResult, fit_few_shot, write_zip
from antbee.training.fewshot_data import FewShotClass, Progress, UnpackedZip, dataset_with_zip, embed, no_progress
from antbee.ui.components import (
    EACH,
    NEWEST,
    PRIVATE,
    Choice,
    errors_in_toasts,
    files_of,
    photo_of,
    shown_probabilities,
    uploaded,
)
from antbee.ui.i18n import ENGLISH, Translator, in_toast, translator_of
from antbee.ui.registry import ModelRegistry
from antbee.ui.sessions import Session, Sessions
from antbee.ui.tabs.classify import NEIGHBOURS, ClassifyParts, verdict_sentence
from antbee.ui.tabs.teach_layout import teach_layout

FIRST_CLASSES = 2  # of an empty form
ZIP_NAME = "few-shot-model.zip"


def fill_up(session: Session, translate: Translator = ENGLISH) -> None:
    """Adds empty classes until there are FIRST_CLASSES."""
    while len(session.dataset.classes) < FIRST_CLASSES:
        add_class(session, translate)


def add_class(session: Session, translate: Translator = ENGLISH) -> None:
    """Adds an empty class with a default name that is free. Raises FewShotError where there are enough."""
    names = session.dataset.label_names
    numbers = range(len(names) + 1, 2 * len(names) + 2)
    free = (name for number in numbers if (name := translate("teach.default", number=number)) not in names)
    session.dataset = session.dataset.with_class(next(free))


def add_photos(
    session: Session, base: Classifier, class_name: str, files: Sequence[Path]
) -> tuple[int, list[SkippedFile]]:
    """Adds uploaded photos to a class; returns how many were new, and the skipped files with the reasons.

    The files are deleted when the session ends. Raises FewShotError where another model than `base` embedded the photos
    of the data set.
    """
    session.dataset.check_backbone(base)
    # Gradio stores equal files once: another tab may show this one, so it is not deleted yet.
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
        except FewShotError as error:  # one too many, or another class's: the other photos can be added all the same
            skipped.append(SkippedFile(one_line(example.name), str(error)))
    return len(session.dataset) - before, skipped


def keep_photos(session: Session, class_name: str, kept: Sequence[Path]) -> None:
    """Removes the photos of a class whose thumbnails are not among `kept`, resolved paths."""
    (known,) = [one for one in session.dataset.classes if one.name == class_name]
    for example in known.examples:
        if session.thumbnail_path(example).resolve() not in kept:
            session.dataset = session.dataset.without_example(class_name, example.name)


def add_zip(
    session: Session, base: Classifier, file: Path, progress: Progress = no_progress, language: str = ""
) -> tuple[int, UnpackedZip]:
    """Adds the photos of a zip of class folders, which is deleted; returns how many were new, and what was skipped.

    Empty classes are removed first. `language` is the visitor's, which helps to read the names in the zip. Raises
    FewShotError where the zip can't be used.
    """
    before = len(session.dataset)
    dataset = session.dataset
    for name, count in dataset.counts.items():
        dataset = dataset if count else dataset.without_class(name)
    try:
        unpacked = dataset_with_zip(base, dataset, file, progress, language)
    finally:
        if file.is_file():
            file.unlink()
    session.dataset = unpacked.dataset
    return len(session.dataset) - before, unpacked


def add_correction(session: Session, base: Classifier, class_name: str, photo: Image.Image) -> int:
    """Adds a wrongly classified photo to its true class, and returns the number of photos of this class.

    A new class replaces the first empty one, if any. Raises FewShotError where the photo can't be added.
    """
    dataset = session.dataset
    class_name = class_name_of(class_name)
    if class_name not in dataset.label_names:
        empty = next((name for name, count in dataset.counts.items() if not count), None)
        dataset = dataset.with_class(class_name) if empty is None else dataset.renamed(empty, class_name)
    session.dataset = dataset.with_examples(class_name, embed(base, [("correction.jpg", photo)]))
    return session.dataset.counts[class_name]


def result_sentence(result: FewShotResult, translate: Translator = ENGLISH) -> str:
    """The cross-validated accuracy of a trained classifier, as Markdown."""
    if result.report is None:
        return translate("teach.result.unknown")
    score, detector = result.report, result.classifier.detector
    accuracy, low, high = (f"{share:.0%}" for share in (score.accuracy, *score.interval))
    sentence = translate("teach.result", accuracy=accuracy, count=score.count, low=low, high=high)
    has_limit = detector is not None and detector.limit is not None
    return sentence if has_limit else f"{sentence}\n\n{translate('teach.result.no_limit')}"


def predict(
    session: Session, photo: Image.Image, translate: Translator = ENGLISH
) -> tuple[str, dict[str, float], list[tuple[str, str]]]:
    """Verdict and probabilities of a photo, and paths and captions of the visitor's nearest photos.

    Raises FewShotError where nothing was trained yet.
    """
    if session.result is None:
        raise FewShotError(translate("teach.untrained"))
    explanation = session.result.classifier.explain(photo, NEIGHBOURS)
    examples = {f"{one.name}/{example.name}": example for one in session.dataset.classes for example in one.examples}
    nearest = [
        (str(session.thumbnail_path(examples[near.name])), f"{one_line(near.label)} {near.distance:.2f}")
        for near in explanation.neighbours
        if near.name in examples  # it may have been removed after training
    ]
    prediction = explanation.prediction
    return verdict_sentence(prediction, translate), shown_probabilities(prediction), nearest


class FewShotForm:
    """The Gradio handlers of the tab: they take values of components, and return new ones."""

    def __init__(self, registry: ModelRegistry, sessions: Sessions) -> None:
        self.registry = registry
        self.sessions = sessions

    @contextmanager
    def locked(self, request: gr.Request) -> Iterator[tuple[Session, Classifier, Translator]]:
        """The visitor's session, locked, and the model that embeds photos. AntbeeErrors become gr.Error."""
        translate, base = translator_of(request), self.registry.base_model()
        with errors_in_toasts("teach.failed", translate), self.sessions.locked(_session_id(request)) as session:
            fill_up(session, translate)
            yield session, base.classifier, translate

    def start(self, request: gr.Request) -> list[Any]:
        """The introduction, and the form."""
        base = self.registry.base_model()
        with self.locked(request) as (session, _, translate):
            return [translate("teach.intro", name=as_text(base.name)), *_form(session, translate)]

    def add_class(self, request: gr.Request) -> list[Any]:
        """The form with one more class."""
        with self.locked(request) as (session, _, translate):
            add_class(session, translate)
            return _form(session, translate)

    def clear(self, request: gr.Request) -> list[Any]:
        """An empty form, no result and no download."""
        with self.locked(request) as (session, _, translate):
            session.start_again()
            fill_up(session, translate)
            return [*_form(session, translate), "", gr.DownloadButton(interactive=False)]

    # Handlers of one class return no more of the form than they change: the visitor may be typing in another class.

    def rename(self, index: int, name: str, request: gr.Request) -> None:
        """Renames a class."""
        with self.locked(request) as (session, _, _):
            if name != (old := _name_at(session, index)):
                session.dataset = session.dataset.renamed(old, name)

    def upload(self, index: int, gallery: Any, request: gr.Request) -> list[Any]:
        """The status and the gallery of a class, to which the visitor has added photos."""
        with self.locked(request) as (session, base, translate):
            new = [file for file in dict.fromkeys(_gallery_files(gallery, translate)) if not session.owns(file)]
            message = _added(*add_photos(session, base, _name_at(session, index), new), translate)
            return _class_photos(session, index, translate, message)

    def delete(self, index: int, gallery: Any, request: gr.Request) -> list[Any]:
        """The status and the gallery of a class, from which the visitor has removed photos."""
        with self.locked(request) as (session, _, translate):
            keep_photos(session, _name_at(session, index), _gallery_files(gallery, translate))
            return _class_photos(session, index, translate)

    def remove(self, index: int, request: gr.Request) -> list[Any]:
        """The form without a class."""
        with self.locked(request) as (session, _, translate):
            session.dataset = session.dataset.without_class(_name_at(session, index))
            fill_up(session, translate)
            return _form(session, translate)

    def unzip(self, upload: Any, request: gr.Request, progress: gr.Progress = gr.Progress()) -> list[Any]:
        """The form with the photos of a zip."""
        with self.locked(request) as (session, base, translate):
            step = translate("teach.looking")
            language = str(request.headers.get("accept-language", ""))
            count, zipped = add_zip(session, base, uploaded(upload), lambda share, _: progress(share, step), language)
            message = _added(count, zipped.skipped, translate) + _names_read(zipped.names, translate)
            return _form(session, translate, message)

    def correct(self, upload: Any, truth: str | None, request: gr.Request) -> list[Any]:
        """The form with the photo of the Classify tab in its true class."""
        with self.locked(request) as (session, base, translate):
            photo = photo_of(upload, translate)
            if photo is None or not truth:
                raise FewShotError(translate("teach.which"))
            count = add_correction(session, base, truth, photo)
            gr.Info(translate("teach.corrected", name=in_toast(truth), count=count))
            return _form(session, translate)

    def train(self, upload: Any, request: gr.Request, progress: gr.Progress = gr.Progress()) -> list[Any]:
        """The accuracy, the download, and the prediction for the photo that is there to try."""
        with self.locked(request) as (session, base, translate):
            step = translate("teach.learning")
            result = fit_few_shot(base, session.dataset, progress=lambda fraction, _: progress(fraction, step))
            session.result, path = result, session.path_of(ZIP_NAME)
            write_zip(result.classifier, path)
            outputs = [result_sentence(result, translate), gr.DownloadButton(value=str(path), interactive=True)]
            try:
                return [*outputs, *_prediction(session, upload, translate)]
            except gr.Error as error:  # the photo was deleted meanwhile, which is no reason to lose the result
                gr.Warning(error.message)
                return [*outputs, *_prediction(session, None, translate)]

    def predict(self, upload: Any, request: gr.Request) -> list[Any]:
        """The prediction for a photo."""
        with self.locked(request) as (session, _, translate):
            return _prediction(session, upload, translate)

    def push(
        self, repo_id: str, typed: str, private: bool, request: gr.Request, signed_in: gr.OAuthToken | None
    ) -> list[str]:
        """The URL of the pushed model, and an empty string for the token's field."""
        with self.locked(request) as (session, _, translate):
            token = typed.strip() or (signed_in.token if signed_in else "")
            if session.result is None:
                raise FewShotError(translate("teach.untrained"))
            if not token:  # huggingface_hub would use the token of the account that runs this page
                raise FewShotError(translate("teach.no_token"))
            url = session.result.classifier.push_to_hub(repo_id.strip(), private=private, token=token)
            return [translate("teach.pushed", address=url), ""]

    def leave(self, request: gr.Request) -> None:
        """Deletes the session."""
        self.sessions.leave(request.session_hash or "")


def _form(session: Session, translate: Translator, message: str = "") -> list[Any]:
    """The values of `TeachLayout.form`."""
    values: list[Any] = [_status(session, translate, message)]
    for one in session.dataset.classes:
        values += [gr.Column(visible=True), one.name, _thumbnails(session, one)]
    return values + [gr.Column(visible=False), "", []] * (MOST_CLASSES - len(session.dataset.classes))


def _class_photos(session: Session, index: int, translate: Translator, message: str = "") -> list[Any]:
    return [_status(session, translate, message), _thumbnails(session, session.dataset.classes[index])]


def _prediction(session: Session, upload: Any, translate: Translator) -> list[Any]:
    """The values of `TeachLayout.prediction`; nothing is visible without a photo."""
    photo = photo_of(upload, translate)
    if photo is None:
        return ["", gr.Label(visible=False), gr.Gallery(visible=False)]
    session.uploads.add(uploaded(upload))
    verdict, probabilities, neighbours = predict(session, photo, translate)
    return [verdict, gr.Label(probabilities, visible=True), gr.Gallery(neighbours, visible=bool(neighbours))]


def _session_id(request: gr.Request) -> str:
    """Gradio's session hash. Raises FewShotError without one: all such visitors would share a session."""
    if not request.session_hash:
        raise FewShotError("no session came: open the page in a browser, which starts one")
    return request.session_hash


def _name_at(session: Session, index: int) -> str:
    """The name of a class. Raises FewShotError where it was removed meanwhile."""
    names = session.dataset.label_names
    if index >= len(names):
        raise FewShotError("this class is gone already: go on with one of the others")
    return names[index]


def _status(session: Session, translate: Translator, message: str = "") -> str:
    classes = len(session.dataset.classes)
    count = translate("teach.count", photos=len(session.dataset), classes=classes, most=MOST_PHOTOS)
    return f"{message}\n\n{count}" if message else count


def _thumbnails(session: Session, one: FewShotClass) -> list[str]:
    return [str(session.thumbnail_path(example)) for example in one.examples]


def _gallery_files(gallery: Any, translate: Translator) -> list[Path]:
    """The files of a gallery's value, in the form that the browser sends."""
    items = gallery if isinstance(gallery, list) else []
    return files_of([item.get("image") if isinstance(item, dict) else None for item in items], translate)


def _added(count: int, skipped: Sequence[SkippedFile], translate: Translator) -> str:
    if not skipped:
        return translate("teach.added", count=count)
    first = {"file": as_text(skipped[0].file), "reason": as_text(skipped[0].reason)}
    return translate("teach.skipped", count=count, skipped=len(skipped), **first)


def _names_read(names: ZipNames, translate: Translator) -> str:
    """How the names in a zip were read, where that had to be guessed, as another paragraph."""
    if names.encoding is None:
        return ""
    sentence = translate("teach.encoding" if names.is_sure else "teach.encoding.unsure", encoding=names.encoding)
    return f"\n\n{sentence}"


def teach_tab(registry: ModelRegistry, choice: Choice, classify_parts: ClassifyParts, page: gr.Blocks) -> None:
    """Adds the tab to the page: classes with their photos, training, prediction, download and push."""
    handlers = FewShotForm(registry, Sessions(Path(get_upload_folder()) / "visitors"))
    layout = teach_layout()
    form = layout.form
    # Not when a visitor chooses other models, although the page does so once when it opens: that changes nothing here,
    # and would overwrite names that are being typed.
    gr.on([choice.changes[0], choice.version.change], handlers.start, None, [layout.intro, *form], **NEWEST)
    layout.add_class.click(handlers.add_class, None, form, **PRIVATE)
    layout.clear.click(handlers.clear, None, [*form, layout.result, layout.download], **PRIVATE)
    layout.zip.upload(handlers.unzip, layout.zip, form, preprocess=False, **PRIVATE)
    correction = [classify_parts.photo, classify_parts.truth]
    classify_parts.correct.click(handlers.correct, correction, form, preprocess=False, **PRIVATE)
    trained = [layout.result, layout.download, *layout.prediction]
    layout.train.click(handlers.train, layout.photo, trained, preprocess=False, **PRIVATE)
    layout.photo.change(handlers.predict, layout.photo, layout.prediction, preprocess=False, **NEWEST)
    layout.push.click(handlers.push, layout.push_inputs, [layout.pushed, layout.push_inputs[1]], **PRIVATE)
    page.unload(handlers.leave)
    for slot in layout.slots:
        typed, shown = [slot.index, slot.name], [slot.index, slot.photos]
        # Without an output: the visitor may have typed on meanwhile.
        gr.on([slot.name.submit, slot.name.blur], handlers.rename, typed, None, show_progress="hidden", **NEWEST)
        slot.remove.click(handlers.remove, slot.index, form, **PRIVATE)
        slot.photos.upload(handlers.upload, shown, [layout.status, slot.photos], preprocess=False, **EACH)
        slot.photos.delete(handlers.delete, shown, [layout.status, slot.photos], preprocess=False, **EACH)
