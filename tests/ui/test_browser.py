"""The page as a visitor meets it: in a real browser, by mouse, keyboard and camera, in both languages, on a phone."""

import re
import shutil
import zipfile
from pathlib import Path

import pytest
from page_helpers import registry_of, serving, write_model

from antbee import Classifier, ui
from antbee.data.drawn import draw
from antbee.data.folder import read_folder
from antbee.data.images import open_photo
from antbee.training.background import BackgroundTraining
from antbee.ui.tabs.batches import AUGMENTED

# Gradio's galleries say each caption twice, beside the picture and as its alternative text.
KNOWN_TO_AXE = {"image-redundant-alt"}
# Nothing is being computed, and what the tab shows last is there.
QUIET = """![...document.querySelectorAll('.progress-text')].some(text => text.checkVisibility())
    && (tab !== 'Report' || document.body.innerText.includes('errors by confidence'))"""
TABS = ("Classify", "Batches", "Report", "Inside", "Teach", "Train")


@pytest.fixture(scope="module")
def address(models, photos, gradio_folder):
    """The page with both models, its owner's tab included."""
    training = BackgroundTraining()
    with serving(ui.build_page(registry_of(models, photos), training)) as url:
        yield url
    training.close()


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium or Chrome that is installed here, with a camera that shows a test picture."""
    playwright = pytest.importorskip("playwright.sync_api")
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((path for name in names if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip("no Chromium or Chrome here: install one to have the page tried in a browser")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=executable, args=arguments + camera)
        yield running
        running.close()


def visitor(browser, **settings):
    """Somebody with a profile of their own in the browser."""
    permissions = ["camera", "clipboard-read", "clipboard-write"]
    context = browser.new_context(**{"locale": "en-GB", "permissions": permissions} | settings)
    context.set_default_timeout(20_000)
    return context


@pytest.fixture(scope="module")
def usual_visitor(browser):
    """Who opens the page most times: what the browser keeps of it need not be fetched and compiled again."""
    with visitor(browser) as context:
        yield context


@pytest.fixture
def visit(browser, usual_visitor, address):
    """Opens the page, as a visitor of certain settings; what goes wrong in the browser fails the test at its end."""
    problems, pages = [], []

    def open_page(path="", at=address, first=verdict, **settings):
        page = (visitor(browser, **settings) if settings else usual_visitor).new_page()
        pages.append(page)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: problems.append(request.url) if is_outside(at, request.url) else None)
        page.goto(at + path)
        first(page).first.wait_for()  # a first example is answered without a click
        return page

    def is_outside(at, url):
        return not url.startswith((at, "data:", "blob:"))

    yield open_page
    for page in pages:
        page.close()
    assert problems == []


def verdict(page):
    """What the models answer, in words."""
    return page.locator(".verdict h2").locator("visible=true")


def files(page):
    """Where files can be dropped in the tab that is open."""
    return page.locator("[role=tabpanel] input[type=file]:visible, [role=tabpanel]:visible input[type=file]")


def open_tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


@pytest.fixture
def drawn_photos(tmp_path):
    """Eight photos of each class, as files."""
    paths = {kind: [tmp_path / kind / f"{number}.png" for number in range(8)] for kind in ("ants", "bees")}
    for kind, files in paths.items():
        (tmp_path / kind).mkdir()
        for number, path in enumerate(files):
            draw(kind, 50 + number, 120).save(path)
    return paths


def test_both_modes_predict_an_uploaded_photo_with_heat_map_and_nearest_photos(visit, models, tmp_path):
    page = visit()
    draw("bees", 9, 200).save(tmp_path / "bee.png")
    page.get_by_label("Remove Image").first.click()
    verdict(page).first.wait_for(state="detached")
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "bee.png")
    expected = models[0].classifier.predict([open_photo(tmp_path / "bee.png")])[0]
    share = f"{expected.probabilities[expected.label]:.0%}"
    page.get_by_role("heading", name=f"{expected.label} · {share}").wait_for()
    page.get_by_role("heading", name="Neither").wait_for()
    nearest = models[0].classifier.explain(open_photo(tmp_path / "bee.png")).neighbours[0]
    page.get_by_text(f"{nearest.label} {nearest.distance:.2f}").first.wait_for()
    assert page.get_by_text("Photo | heat map of the predicted class").count() == 2


def test_the_keyboard_reaches_the_tabs_first_and_chooses_an_example(visit):
    page = visit()
    page.locator("body").press("Tab")
    reached = []
    for _ in range(6):
        reached.append(page.evaluate("document.activeElement.getAttribute('role') || document.activeElement.tagName"))
        page.keyboard.press("Tab")
    assert "tab" in reached
    before = page.locator("#photo img").get_attribute("src")
    page.get_by_label("Thumbnail 2 of 8").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("before => document.querySelector('#photo img').src !== before", arg=before)


def test_a_webcam_photo_is_predicted(visit):
    page = visit()
    page.get_by_label("Remove Image").first.click()
    verdict(page).first.wait_for(state="detached")
    page.locator("#photo").get_by_label("Capture from camera").click()
    page.locator("#photo").get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#photo video')?.readyState >= 3")  # the camera has a picture
    page.locator("#photo").get_by_label("capture photo").click()
    verdict(page).first.wait_for()


def test_a_file_that_is_no_photo_is_an_error_with_a_remedy_and_a_pasted_photo_is_predicted(visit, tmp_path):
    page = visit()
    (tmp_path / "notes.png").write_text("These are notes.")
    page.get_by_label("Remove Image").first.click()
    verdict(page).first.wait_for(state="detached")
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "notes.png")
    page.get_by_text("Try a JPEG or PNG photo").first.wait_for()
    page.get_by_label("Remove Image").first.click()
    page.evaluate(
        """async () => {
            const canvas = new OffscreenCanvas(64, 48);
            canvas.getContext('2d').fillRect(8, 8, 20, 20);
            const picture = await canvas.convertToBlob({type: 'image/png'});
            await navigator.clipboard.write([new ClipboardItem({'image/png': picture})]);
        }"""
    )
    page.locator("#photo").get_by_label("Paste from clipboard").click()
    verdict(page).first.wait_for()


def test_several_photos_give_a_table_and_a_csv_file_and_a_corrected_photo_joins_the_teach_tab(visit, drawn_photos):
    page = visit()
    page.get_by_text("Several photos at once").click()
    page.locator("#several input[type=file]").set_input_files(drawn_photos["ants"][:3])
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    rows = Path(download.value.path()).read_text("utf-8-sig").splitlines()
    assert [row.split(",")[0] for row in rows] == ["file", "0.png", "1.png", "2.png"]
    page.get_by_role("radio", name="bees").check()
    page.get_by_role("button", name="Add to Teach").click()
    page.get_by_text("Added to “bees”").wait_for()
    open_tab(page, "Teach")
    assert page.get_by_label("Class", exact=True).first.input_value() == "bees"


def test_a_new_batch_is_shown_predicted_and_its_photos_augmented(visit):
    page = visit()
    open_tab(page, "Batches")
    page.get_by_text("train batch 0").wait_for()
    page.get_by_role("button", name="New batch").click()
    page.get_by_text("train batch 1").wait_for()
    page.get_by_role("tabpanel").get_by_label("Thumbnail 1 of 8").locator("visible=true").first.click()
    page.get_by_text(f"epoch {AUGMENTED}").locator("visible=true").wait_for()
    page.get_by_label("val", exact=True).click()
    page.get_by_text("finetune: val batch 1").wait_for()


def test_a_cell_of_the_confusion_matrix_opens_its_photos(visit):
    page = visit()
    open_tab(page, "Report")
    page.get_by_text("[51.0%, 90.0%]").locator("visible=true").first.wait_for()
    page.get_by_text("frozen: errors by confidence").wait_for()
    matrix = page.get_by_role("grid", name="frozen: true classes in rows")
    count = matrix.get_by_role("gridcell").nth(1)
    number = int(count.inner_text())
    count.click()
    page.get_by_text(re.compile(f"frozen: ants predicted as ants, {number}$")).wait_for()


def test_the_inside_tab_shows_the_networks_real_shapes(visit, models):
    page = visit()
    open_tab(page, "Inside")
    page.get_by_role("tab", name=re.compile("Stages")).click()
    page.get_by_text("(1, 512, 3, 3)").locator("visible=true").first.wait_for()


def teach_two_classes(page, drawn_photos):
    for place, kind in enumerate(("ants", "bees")):
        name = page.get_by_label("Class", exact=True).nth(place)
        name.fill(f"my {kind}")
        name.press("Enter")
        name.press("Tab")
        files(page).nth(place).set_input_files(drawn_photos[kind])
        page.get_by_text(f"{8 * (place + 1)} photos of 2 classes").wait_for()
    page.get_by_role("button", name="Train", exact=True).locator("visible=true").click()
    page.get_by_text("of 16 photos, cross-validated").wait_for()


def test_without_a_model_the_page_opens_where_two_classes_can_be_taught_and_recognised(
    visit, drawn_photos, gradio_folder, tmp_path
):
    with serving(ui.build_page(registry_of([], None))) as url:
        page = visit(at=url, first=lambda page: page.get_by_label("Class", exact=True))
        page.get_by_text("EfficientNet-Lite0").locator("visible=true").first.wait_for()
        teach_two_classes(page, drawn_photos)
        draw("bees", 99, 200).save(tmp_path / "bee.png")
        page.locator("#try input[type=file]").set_input_files(tmp_path / "bee.png")
        page.get_by_role("heading", name="my bees").wait_for()


def test_a_visitor_trains_two_classes_and_downloads_the_model(visit, drawn_photos, gradio_folder, tmp_path):
    page = visit()
    open_tab(page, "Teach")
    teach_two_classes(page, drawn_photos)
    page.get_by_text("Download or share").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the model").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path)
    taught = Classifier.from_pretrained(tmp_path / "few-shot-model", device="cpu")
    assert taught.config.label_names == ("my ants", "my bees")
    assert taught.detector is not None
    assert len(taught.detector.names) == 16
    own = list((gradio_folder / "visitors").iterdir())
    assert len(own) >= 1
    page.close()
    for folder in own:
        wait_until_gone(folder)


def wait_until_gone(folder):
    import time

    until = time.monotonic() + 20
    while folder.exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not folder.exists()


# As folders may be called, and then those that only somebody else's model can bring.
FOLDERS = (
    "<img src=x onerror=ran=1>",
    "<b onmouseover=ran=1 style=inset:0>",
    "![picture](x) [link](javascript:ran=1)",
    "{{constructor.constructor('ran=1')()}} ${ran=1} {0}",
    "__proto__",
    "quotes \"' onfocus=ran=1 `",
    "caf\u00e9",
)
NAMES = (
    "<script>ran=1</script><svg/onload=ran=1>",
    "<a href=http://outside.example/a>a</a><img src=http://outside.example/b.png>",
    "![picture](http://outside.example/c.png)",
    "\u202eturned\u2066 \x1b[31mred\x07\x00",
    "constructor",
    "cafe\u0301",
    "long " * 4_000,
)


@pytest.fixture(scope="module")
def hostile_address(tmp_path_factory, gradio_folder):
    """A page whose models, classes and files are called what no name should be."""
    root = tmp_path_factory.mktemp("hostile")
    for split in ("train", "val"):
        for folder in FOLDERS:
            (root / split / folder).mkdir(parents=True)
            for number in range(2):
                draw("ants", number, 64).save(root / split / folder / f"{number} {folder}.png")
    photos = read_folder(root)
    models = ui.load_models(
        [
            write_model(root / "models" / FOLDERS[0], label_names=photos.class_names, photos=photos, metrics=None),
            write_model(root / "models" / FOLDERS[2], label_names=NAMES, metrics=None),
        ],
        device="cpu",
    )
    training = BackgroundTraining()
    with serving(ui.build_page(registry_of(models, photos), training)) as url:
        yield url
    training.close()


def test_markup_in_the_name_of_a_class_a_model_or_a_file_is_text(visit, hostile_address, tmp_path):
    page = visit(at=hostile_address)
    page.get_by_text("Several photos at once").click()
    for number, name in enumerate(FOLDERS):
        draw("bees", number, 64).save(tmp_path / f"{name}.png")
    page.locator("#several input[type=file]").set_input_files(list(tmp_path.glob("*.png")))
    page.get_by_role("button", name="Download as CSV").wait_for()
    for name, toast in zip(FOLDERS, (f"Added to “{FOLDERS[0]}”", "That did not work"), strict=False):
        page.get_by_role("radio", name=name).check()
        page.get_by_role("button", name="Add to Teach").click()
        page.get_by_text(toast).wait_for()
    for tab in TABS:
        open_tab(page, tab)
        page.wait_for_function(f"tab => {QUIET}", arg=tab)
        assert (
            page.evaluate("document.querySelectorAll('[role=tabpanel] :is(a[href*=outside], img[src=x])').length") == 0
        )
    open_tab(page, "Teach")
    name = page.get_by_label("Class", exact=True).first
    name.fill(FOLDERS[2])
    name.press("Enter")
    assert page.evaluate("'ran' in window") is False


def test_on_a_phone_in_dark_chinese_no_tab_is_wider_than_the_screen(visit):
    phone = {"width": 390, "height": 844}
    page = visit("?__theme=dark", locale="zh-CN", viewport=phone, device_scale_factor=1, has_touch=True)
    page.get_by_text("与训练照片相似").first.wait_for()
    for tab in ("批次", "报告", "教学"):
        if not page.get_by_role("tab", name=tab, exact=True).is_visible():
            page.locator(".overflow-menu button").first.click()  # tabs that have no room stand in a menu
            page.get_by_role("button", name=tab, exact=True).or_(page.get_by_role("menuitem", name=tab)).first.click()
        else:
            open_tab(page, tab)
        page.locator("[role=tabpanel]:visible").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= phone["width"], tab
        if tab == "报告":
            number = page.locator(".numbers").get_by_text("1,026", exact=True).locator("visible=true").first
            # The number of all weights of ResNet-18, in its column.
            assert number.evaluate("e => { e.textContent = '11,177,538'; return e.getClientRects().length }") == 1
            assert number.evaluate("e => e.parentElement.scrollWidth <= e.parentElement.clientWidth")
            assert number.evaluate("e => e.offsetHeight < 2 * parseFloat(getComputedStyle(e).lineHeight)")
    assert page.locator("body.dark").count() == 1
    assert page.get_by_text("训练", exact=True).count()


def test_axe_finds_no_new_violation_on_any_tab(visit):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit()
    for tab in TABS:
        open_tab(page, tab)
        page.wait_for_function(f"tab => {QUIET}", arg=tab)
        found = axe.run(page).response["violations"]
        assert {
            f"{tab}: {one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["id"] not in KNOWN_TO_AXE
        } == set()


def test_a_version_chosen_in_the_train_tab_is_restored_on_all_tabs(visit, gradio_folder, tmp_path, photos, monkeypatch):
    outputs = tmp_path / "outputs"
    current = write_model(outputs / "frozen", "frozen", seed=1, photos=photos)
    write_model(
        outputs / "versions" / "2026-11-28_17-12-46" / "frozen", "frozen", seed=2, label_names=("bees", "mites")
    )
    monkeypatch.setattr("antbee.ui.page.home", lambda: tmp_path)
    registry = ui.ModelRegistry(lambda: [current], lambda models: photos, device="cpu")
    training = BackgroundTraining()
    with serving(ui.build_page(registry, training)) as address:
        page = visit(at=address)
        open_tab(page, "Train")
        page.get_by_label("Other versions").click()
        page.get_by_role("option", name="2026-11-28_17-12-46").click()
        page.get_by_role("button", name="Restore").click()
        page.get_by_text("The models of 2026-11-28_17-12-46 are restored").wait_for()
        after = registry.snapshot.models[0].classifier.predict([open_photo(photos.val.paths[0])])[0]
        open_tab(page, "Classify")
        page.get_by_role("radio", name="mites").wait_for()
        share = f"{after.probabilities[after.label]:.0%}"
        page.get_by_role("heading", name=f"{after.label} · {share}").wait_for()
        open_tab(page, "Train")
        page.get_by_label("Other versions").click()
        assert page.get_by_role("option").count() == 1, "the version that was in place before"
        page.get_by_role("option").first.click()
        page.get_by_role("button", name="Restore").click()
        page.wait_for_function("() => !document.body.innerText.includes('The models of 2026-11-28_17-12-46')")
        page.close()
    training.close()
