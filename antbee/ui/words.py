"""What the page says, in English and in Simplified Chinese.

What stands there from the start is translated in the browser (`label`), by the browser's language; what a handler says
comes translated (`Speech`), in the language that the browser asks for. Class names and file names stay as they are.
"""

from dataclasses import dataclass

import gradio as gr
from gradio.i18n import I18nData

# By tab; a text's name says where it stands. {names in braces} are filled by whoever speaks.
TEXTS: dict[str, tuple[str, str]] = {
    # ---- the page ----
    "page.title": (
        "# antbee\nTwo folders of photos in, an image classifier out: transfer learning, both classic ways.",
        "# antbee\n放入两个照片文件夹，得到一个图像分类器：迁移学习的两种经典做法。",
    ),
    "page.models": ("Models", "模型"),
    "page.models.shown": ("Shown on this page", "本页显示的模型"),
    "page.models.info": ("Two at most, side by side", "最多两个，并排显示"),
    "page.models.renew": ("Show the new models", "显示新模型"),
    "page.models.changed": (
        "**There is something new on the disk:** {names}.",
        "**磁盘上有新内容：**{names}。",
    ),
    "page.models.failed": (
        "The models shown stay: {error}",
        "仍显示原来的模型：{error}",
    ),
    "page.drawn": (
        "**Drawn pictures.** {names} learned from pictures that a program drew, not photos.",
        "**绘制的图片。** {names} 学习的是程序绘制的图片，不是照片。",
    ),
    "page.random": (
        "**Random weights.** {names} started knowing nothing, so expect poor answers.",
        "**随机权重。** {names} 从零开始学习，回答会很差。",
    ),
    "page.no_model": (
        "### No model yet\nTrain both modes, then start this page again:\n```\n{train}\n{app}\n```",
        "### 还没有模型\n先训练两种模式，再重新打开本页：\n```\n{train}\n{app}\n```",
    ),
    "page.no_photos": (
        "### No photos here\nName the folder the models learned from: `{app} --data DIR`",
        "### 这里没有照片\n请指定模型学习时所用的文件夹：`{app} --data DIR`",
    ),
    "mode.frozen": ("frozen: only the head learned", "frozen（冻结）：只有分类头学习"),
    "mode.finetune": ("finetune: every weight learned", "finetune（微调）：所有权重都学习"),
    # ---- Classify ----
    "classify.tab": ("Classify", "分类"),
    "classify.photo": ("Photo", "照片"),
    "classify.examples": ("Examples", "示例"),
    "classify.crop": ("What the network sees", "网络看到的部分"),
    "classify.crop.alt": (
        "The square crop of the photo that the network is given",
        "照片中交给网络的方形区域",
    ),
    "classify.probabilities": ("Probabilities", "概率"),
    "classify.map": ("Photo | what speaks for the answer", "照片 | 支持该答案的位置"),
    "classify.neighbours": ("It looks like these training photos", "与这些训练照片相似"),
    "classify.like": (
        "a photo like those learned from (distance {distance}, limit {limit})",
        "与学习过的照片相似（距离 {distance}，上限 {limit}）",
    ),
    "classify.neither": ("Neither", "都不是"),
    "classify.unlike": (
        "it is like none that was learned from (distance {distance}, limit {limit}): believe no class below",
        "与学习过的照片都不相似（距离 {distance}，上限 {limit}）：请不要相信下面的类别",
    ),
    "classify.unknown": (
        "too little is known to tell whether it is any of the classes",
        "已知信息太少，无法判断它是否属于这些类别",
    ),
    "classify.bad_photo": (
        "This file can't be used: {error}. Try a JPEG or PNG photo.",
        "无法使用这个文件：{error}。请换一张 JPEG 或 PNG 照片。",
    ),
    "classify.correct": ("Wrong? Say what the photo shows", "答错了？请说出照片里是什么"),
    "classify.correct.info": (
        "The photo then joins the Teach tab, where a classifier of your own learns from it",
        "照片会加入“教学”标签页，供你自己的分类器学习",
    ),
    "classify.correct.button": ("Teach it", "教给它"),
    "classify.several": ("Several photos at once", "一次分类多张照片"),
    "classify.several.files": ("Photos", "照片"),
    "classify.several.most": (
        "{count} photos came, {most} at once are answered: send the rest afterwards.",
        "收到 {count} 张照片，一次最多回答 {most} 张：其余请稍后再发。",
    ),
    "classify.several.answers": ("Answers", "回答"),
    "classify.several.table": ("Every photo's answers", "每张照片的回答"),
    "classify.several.csv": ("Download as CSV", "下载 CSV"),
    # ---- Batches ----
    "batches.tab": ("Batches", "批次"),
    "batches.intro": (
        "A batch is what the network is given at a time; labels come from the folders' names. **train** shows photos as"
        " the network learns from them: cropped and mirrored at random, other crops in every epoch. **val** shows the"
        " evaluation crop and what each model answers. Click a photo to see eight draws of its augmentation.",
        "一个批次就是一次交给网络的照片；标签来自文件夹的名字。**train** 显示网络学习时的样子：随机裁剪和镜像，"
        "每个 epoch 都不同。**val** 显示评估时的裁剪和每个模型的回答。点击一张照片，可以看到它的八次随机增强。",
    ),
    "batches.split": ("Split", "数据划分"),
    "batches.size": ("Batch size", "批次大小"),
    "batches.seed": ("Seed", "随机种子"),
    "batches.new": ("New batch", "换一批"),
    "batches.grid": ("{name}: {split} batch {seed}", "{name}：{split} 批次 {seed}"),
    "batches.is": ("is: {truth}", "实际：{truth}"),
    "batches.draws": (
        "Eight draws of the augmentation of one photo",
        "同一张照片的八次随机增强",
    ),
    "batches.draw": ("epoch {epoch}", "第 {epoch} 个 epoch"),
    # ---- Report ----
    # ---- Inside ----
    # ---- Teach ----
    # ---- Train ----
}


@dataclass(frozen=True)
class Speech:
    """One language of the page: `speech("batches.grid", name=...)` gives a text with its names filled in."""

    language: str
    place: int  # in the tuples of TEXTS

    def __call__(self, key: str, **values: object) -> str:
        """The text of this name. Raises KeyError where there is none, or where a value is missing."""
        return TEXTS[key][self.place].format(**values)


ENGLISH, CHINESE = Speech("en", 0), Speech("zh-CN", 1)


def speech_of(request: gr.Request | None) -> Speech:
    """The language that a browser asks for first; English where it asks for another one, or where nobody asks."""
    accepted = "" if request is None else str(request.headers.get("accept-language", ""))
    return CHINESE if accepted.strip().lower().startswith("zh") else ENGLISH


def label(key: str) -> I18nData:
    """A text that the browser puts into its own language. Raises KeyError where there is none of this name."""
    if key not in TEXTS:
        raise KeyError(key)
    return I18nData(key)


def translations() -> gr.I18n:
    """What the browser is given to translate with."""
    texts = [{key: text[speech.place] for key, text in TEXTS.items()} for speech in (ENGLISH, CHINESE)]
    return gr.I18n(en=texts[0], zh=texts[1], **{"zh-CN": texts[1]})
