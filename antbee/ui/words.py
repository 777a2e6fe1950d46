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
    "report.tab": ("Report", "报告"),
    "report.measures": ("How good the modes are", "两种模式有多好"),
    "report.measure": ("measure", "指标"),
    "report.accuracy": ("accuracy, kept epoch (95 % interval)", "准确率，保留的 epoch（95 % 置信区间）"),
    "report.cross_validated": ("accuracy, cross-validated (95 % interval)", "准确率，交叉验证（95 % 置信区间）"),
    "report.last": ("accuracy, last epoch", "准确率，最后一个 epoch"),
    "report.f1": ("F1, mean of the classes", "F1，各类平均"),
    "report.auc": ("area under the ROC curve", "ROC 曲线下面积"),
    "report.loss": ("log loss, in nats", "对数损失（奈特）"),
    "report.calibration": ("calibration error", "校准误差"),
    "report.temperature": ("temperature, divided into the head", "温度（已除入分类头）"),
    "report.alarms": ("“neither” said wrongly of validation photos", "把验证照片误判为“都不是”"),
    "report.found": ("“neither” said rightly of {kind}", "正确判为“都不是”：{kind}"),
    "report.zero_shot": ("before any training: the starting weights' own head", "训练之前：起始权重自带的分类头"),
    "report.kept": ("kept epoch", "保留的 epoch"),
    "report.chosen_on": ("chosen on", "依据什么选择"),
    "report.trainable": ("weights that learned", "参与学习的权重数"),
    "report.seconds": ("seconds of training", "训练用时（秒）"),
    "report.of": ("{found} of {count}", "{found} / {count}"),
    "report.explained": (
        "An epoch chosen on val is the best of its run on the very photos it is scored on here; the last epoch was not"
        " chosen. The interval says how far chance alone could move the result (Wilson, 95 %).",
        "依据 val 选择的 epoch，是在同一批照片上得分最高的一个，所以略显乐观；最后一个 epoch 没有经过挑选。"
        "区间说明仅凭偶然性结果会变动多少（Wilson，95 %）。",
    ),
    "report.apart": (
        "Of {count} validation photos {first_alone} are right with {first} alone and {second_alone} with {second}"
        " alone: {verdict} (McNemar's exact test, p = {p}).",
        "在 {count} 张验证照片中，只有 {first} 答对的有 {first_alone} 张，只有 {second} 答对的有 {second_alone} 张："
        "{verdict}（McNemar 精确检验，p = {p}）。",
    ),
    "report.apart.chance": ("no more than chance explains", "偶然性即可解释"),
    "report.apart.real": ("a difference that chance hardly explains", "很难用偶然性解释的差异"),
    "report.accuracy_curve": ("Accuracy by epoch", "各 epoch 的准确率"),
    "report.loss_curve": ("Loss by epoch", "各 epoch 的损失"),
    "report.reliability": ("Does 80 % mean 80 %?", "说 80 %，就真是 80 % 吗？"),
    "report.confidence": ("probability of the answer", "答案的概率"),
    "report.right": ("share of right answers", "答对的比例"),
    "report.perfect": ("perfect", "理想"),
    "report.photos": ("Is this enough data?", "数据够不够？"),
    "report.photos.x": ("photos of each class", "每类照片数"),
    "report.photos.mean": ("mean of the draws", "多次抽取的平均"),
    "report.photos.lowest": ("lowest", "最低"),
    "report.photos.highest": ("highest", "最高"),
    "report.confusion": ("{name}: true classes in rows, answers in columns", "{name}：行是真实类别，列是回答"),
    "report.confusion.hint": ("Click a number to see its photos.", "点击数字可查看对应的照片。"),
    "report.true_class": ("true class", "真实类别"),
    "report.cell": ("{name}: {truth} taken for {answer}, {count}", "{name}：{truth} 被认作 {answer}，{count} 张"),
    "report.mistakes": (
        "{name}: worst mistakes first, each with what spoke for the answer",
        "{name}：最严重的错误在前，各附支持该答案的位置",
    ),
    "report.mistake": ("is {truth}, answered {answer} {probability}", "实际 {truth}，回答 {answer} {probability}"),
    "report.faults": ("Photos that may be wrong", "可能有问题的照片"),
    "report.faults.info": (
        "Labels that the neighbours doubt, photos that are there twice or in both splits, and pictures that are blank,"
        " dark, blurred or tiny. Judged by what the frozen backbone sees. Nothing is changed.",
        "被相似照片质疑的标签、重复或同时出现在两个划分中的照片，以及空白、过暗、模糊或太小的图片。"
        "依据冻结主干网络所见来判断，不会改动任何文件。",
    ),
    "report.faults.look": ("Look for them", "开始检查"),
    "report.faults.kind": ("kind", "类型"),
    "report.faults.file": ("file", "文件"),
    "report.faults.reason": ("reason", "原因"),
    "report.faults.none": ("Nothing was found.", "没有发现问题。"),
    "report.faults.no_backbone": (
        "This needs a frozen model beside its photos: a fine-tuned backbone has learned the labels it would judge.",
        "需要一个冻结模式的模型和它的照片：微调过的主干网络已经学过这些标签，不能再来评判。",
    ),
    "report.faults.progress": ("measuring photos", "正在检查照片"),
    "report.answering": ("answering the validation photos", "正在回答验证照片"),
    "report.card": ("{name}: model card", "{name}：模型卡"),
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
