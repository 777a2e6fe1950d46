"""What the page says, in English and in Simplified Chinese."""

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
        "The models shown stay: the new ones can't be used, and the page's own output says why.",
        "仍显示原来的模型：新模型无法使用，原因见本页程序的输出。",
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
        "## No model yet\nTrain both modes, then start this page again:\n```\n{train}\n{app}\n```",
        "## 还没有模型\n先训练两种模式，再重新打开本页：\n```\n{train}\n{app}\n```",
    ),
    "page.no_photos": (
        "## No photos here\nName the folder the models learned from: `{app} --data DIR`",
        "## 这里没有照片\n请指定模型学习时所用的文件夹：`{app} --data DIR`",
    ),
    # ---- what does not reach the page ----
    "gate.large": (
        "Too much came at once: {most} MB at most are taken. Send less.",
        "一次发送的内容太多：最多接收 {most} MB。请减少后再发。",
    ),
    "gate.many": (
        "Too many files came at once: {most} at most are taken. Send the rest afterwards.",
        "一次发送的文件太多：最多接收 {most} 个。其余请稍后再发。",
    ),
    "gate.fields": (
        "Nothing but files can be uploaded here: send each with its name.",
        "这里只能上传文件：请连同文件名一起发送。",
    ),
    "gate.file": (
        "Only files that were uploaded to this page are opened: upload the file first, then name it as the upload's"
        " answer does. Addresses, data: URLs and other paths are never followed.",
        "本页只打开已上传到本页的文件：请先上传文件，再使用上传后返回的路径。网址、data: URL 和其他路径一律不会打开。",
    ),
    "gate.host": (
        "This page is for the computer that it runs on, since it can train there: open it as localhost or 127.0.0.1, or"
        " start it with --no-train to have it answer under other names.",
        "本页可以在所运行的电脑上训练，因此只供该电脑使用：请用 localhost 或 127.0.0.1 打开，"
        "或用 --no-train 启动，使其能以其他名称访问。",
    ),
    "gate.origin": (
        "Another site asked this page to do something, and this page is for the computer that it runs on: open it"
        " there, as localhost or 127.0.0.1.",
        "另一个网站要求本页执行操作，而本页只供所运行的电脑使用：请在该电脑上用 localhost 或 127.0.0.1 打开。",
    ),
    # ---- modes ----
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
    "plots.accuracy": ("Accuracy by epoch", "各 epoch 的准确率"),
    "plots.loss": ("Loss by epoch", "各 epoch 的损失"),
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
    "inside.tab": ("Inside", "网络内部"),
    "inside.model": ("Model", "模型"),
    "inside.intro": (
        "The way of the photo on the tab Classify through the network, in six steps. Every number is the model's own.",
        "“分类”标签页中的照片在网络里走过的路，共六步。每个数字都来自模型本身。",
    ),
    "inside.no_photo": (
        "## No photo yet\nChoose one on the tab Classify, then come back.",
        "## 还没有照片\n请先在“分类”标签页选择一张照片，再回到这里。",
    ),
    "inside.unknown": ("unknown", "未知"),
    "inside.from_to": ("{smallest} to {largest}", "{smallest} 到 {largest}"),
    "inside.photo": ("1 · Photo", "1 · 照片"),
    "inside.photo.told": (
        "## A photo and its label\nNobody writes labels down: `ImageFolder` reads them from the folders' names. Sorted"
        " by name, the classes get the numbers {classes}. This number, the *class index*, is what the network learns"
        " and what it answers.\n\nA `DataLoader` joins photos to a batch. Here the batch is one photo: B = 1. What the"
        " photo shows, the network is not told.",
        "## 照片与标签\n标签不用手写：`ImageFolder` 直接从文件夹的名字读取。类别按名字排序后依次编号：{classes}。"
        "这个编号叫*类别索引*，网络学习的是它，回答的也是它。\n\n`DataLoader` 把多张照片组成一个批次。"
        "这里的批次只有一张照片：B = 1。照片里是什么，网络事先并不知道。",
    ),
    "inside.photo.title": ("The photo", "照片"),
    "inside.photo.size": ("{width} × {height} pixels", "{width} × {height} 像素"),
    "inside.tensor": ("2 · Tensor", "2 · 张量"),
    "inside.tensor.told": (
        "## From the photo to a tensor\nThe photo is resized until its shorter side has {resize} pixels, and a square"
        " of {crop} × {crop} is cut from its centre. A picture is stored as (H, W, C): rows, columns, colours, in whole"
        " numbers from 0 to 255. The network takes a tensor (C, H, W): channels first, in fractions from 0 to 1. To"
        " show a tensor, `tensor.permute(1, 2, 0)` makes it (H, W, C) again; the picture on the right was made so.",
        "## 从照片到张量\n先缩放照片，使短边为 {resize} 像素，再从中心裁剪出 {crop} × {crop} 的正方形。"
        "图片按 (H, W, C) 存储：行、列、颜色，数值是 0 到 255 的整数。网络需要的张量是 (C, H, W)：通道在前，"
        "数值是 0 到 1 的小数。显示张量时，用 `tensor.permute(1, 2, 0)` 把它变回 (H, W, C)；右边的图片就是这样得到的。",
    ),
    "inside.tensor.title": ("Photo and tensor", "照片与张量"),
    "inside.tensor.cut": ("the square that is cut", "裁剪出的正方形"),
    "inside.tensor.shown": ("the tensor, permuted to be shown", "调换维度后显示的张量"),
    "inside.tensor.picture": ("picture (H, W, C)", "图片 (H, W, C)"),
    "inside.tensor.tensor": ("tensor (C, H, W)", "张量 (C, H, W)"),
    "inside.form": ("form", "形式"),
    "inside.shape": ("shape", "形状"),
    "inside.type": ("type", "数据类型"),
    "inside.range": ("values", "取值范围"),
    "inside.middle": ("middle pixel", "正中像素"),
    "inside.normalised": ("3 · Normalisation", "3 · 标准化"),
    "inside.normalised.told": (
        "## Normalisation\nFrom each channel a fixed mean is subtracted, and what is left is divided by a fixed"
        " standard deviation: (x − mean) / std. This model's numbers are in the table, and have to be the same in"
        " training and in every answer. The values now lie around 0 and spread by about 1, which makes learning steady."
        " Nothing is lost: x · std + mean gives the picture back.\n\nWhite is 0, the mean; orange is brighter, purple"
        " darker.",
        "## 标准化\n每个通道先减去固定的均值，再除以固定的标准差：(x − 均值) / 标准差。这个模型所用的数值见下表，"
        "训练时和每次回答时必须相同。结果分布在 0 附近，幅度约为 1，学习因此更平稳。"
        "信息没有丢失：x · 标准差 + 均值就能还原图片。\n\n白色是 0，即均值；橙色更亮，紫色更暗。",
    ),
    "inside.normalised.title": ("The three channels", "三个通道"),
    "inside.red": ("red", "红"),
    "inside.green": ("green", "绿"),
    "inside.blue": ("blue", "蓝"),
    "inside.spread": ("{name}: {spread}", "{name}通道：{spread}"),
    "inside.channel": ("channel", "通道"),
    "inside.mean": ("mean", "均值"),
    "inside.std": ("std", "标准差"),
    "inside.before": ("before", "标准化前"),
    "inside.after": ("after", "标准化后"),
    "inside.stages": ("4 · Stages", "4 · 各阶段"),
    "inside.stages.told": (
        "## Stage by stage\n{architecture} is a **residual network** of {depth} layers with weights. Most are in its"
        " {blocks} blocks, and each block adds what it computes to what it was given: x + F(x). So a block need only"
        " learn a correction, and gradients find their way through many layers.\n\n**Transfer learning** takes over a"
        " backbone, conv1 to layer4, that has learned on other pictures (the weights here: {weights}), and gives it"
        " a new head, `fc`. *Frozen* trains `fc` alone, *finetune* trains everything. `network.state_dict()` names"
        " all that the model is: {tensors} tensors, the parameters below and BatchNorm's running statistics.",
        "## 逐个阶段\n{architecture} 是一个**残差网络**，有 {depth} 个带权重的层。它们大多位于 {blocks} 个残差块中，"
        "每个块把自己的计算结果加到输入上：x + F(x)。这样每个块只需学习一个修正量，梯度也能顺利穿过很多层。\n\n"
        "**迁移学习**沿用在其他图片上学习过的主干网络（conv1 到 layer4，这里的权重：{weights}），"
        "再换上新的分类头 `fc`。*frozen*（冻结）只训练 `fc`，*finetune*（微调）训练所有参数。"
        "`network.state_dict()` 按名字列出模型的全部内容："
        "{tensors} 个张量，即下表中的参数和 BatchNorm 的滑动统计量。",
    ),
    "inside.stages.maps": (
        "Below are the eight channels of each stage with the largest mean. Yellow is a channel's own largest value,"
        " dark is 0. Early maps still show edges and colours, and where they are; later ones are smaller, and say less"
        " where something is and more what it is.",
        "下面是每个阶段中均值最大的八个通道。黄色是该通道自己的最大值，深色是 0。靠前的特征图还能看出边缘、颜色和位置；"
        "越往后特征图越小，越少说明“在哪里”，越多说明“是什么”。",
    ),
    "inside.stages.title": (
        "{stage}: {shown} of {count} channels, {height} × {width}",
        "{stage}：{count} 个通道中的 {shown} 个，{height} × {width}",
    ),
    "inside.stages.channel": ("channel {channel}, up to {largest}", "通道 {channel}，最大 {largest}"),
    "inside.stage": ("stage", "阶段"),
    "inside.shape.batch": ("output (B, C, H, W)", "输出 (B, C, H, W)"),
    "inside.parameters": ("parameters", "参数量"),
    "inside.frozen": ("learn in frozen", "冻结时可学习"),
    "inside.finetune": ("learn in finetune", "微调时可学习"),
    "inside.does": ("what it does", "作用"),
    "inside.does.input": ("the normalised photo", "标准化后的照片"),
    "inside.does.conv1": ("convolution 7 × 7, BatchNorm, ReLU; half the size", "7 × 7 卷积、BatchNorm、ReLU；尺寸减半"),
    "inside.does.maxpool": ("the largest of 3 × 3; half the size", "最大池化 3 × 3；尺寸减半"),
    "inside.does.layer1": ("residual blocks", "残差块"),
    "inside.does.layer2": ("residual blocks; half the size", "残差块；尺寸减半"),
    "inside.does.layer3": ("residual blocks; half the size", "残差块；尺寸减半"),
    "inside.does.layer4": ("residual blocks; half the size", "残差块；尺寸减半"),
    "inside.does.avgpool": ("the mean of each channel: the features", "每个通道取平均：得到特征"),
    "inside.does.fc": ("the head: a weighted sum for each class", "分类头：每个类别一个加权和"),
    "inside.sum": ("all", "合计"),
    "inside.features": ("5 · Features", "5 · 特征"),
    "inside.features.told": (
        "## {count} features\nAverage pooling keeps one number of each of layer4's {count} channels: its mean over"
        " {height} × {width} places. These numbers are all that the head is told: what is in the photo, no longer"
        " where. Photos of one class should have similar ones. The largest here is number {strongest}, {value}: the"
        " first of layer4's channels on the step before.",
        "## {count} 个特征\n平均池化把 layer4 的 {count} 个通道各变成一个数：{height} × {width} 个位置的平均值。"
        "分类头只看到这些数：照片里有什么，而不再是在哪里。同一类照片的特征应当相近。"
        "这里最大的是第 {strongest} 号，{value}：就是上一步中 layer4 的第一个通道。",
    ),
    "inside.features.bars": ("The features, by channel", "各通道的特征"),
    "inside.features.number": ("channel of layer4", "layer4 的通道"),
    "inside.features.value": ("mean", "平均值"),
    "inside.answer": ("6 · Answer", "6 · 回答"),
    "inside.answer.told": (
        "## From the features to the answer\nFor each class the head multiplies the {count} features by weights of"
        " their own and adds them up: the **logits**, scores of any size. **Softmax** makes them probabilities: e to"
        " the power of each, divided by the sum. `torch.max(outputs, 1)` gives the largest logit and its place:"
        " {logit} at class index {index}. The answer is **{answer}**, with {probability}. Accuracy counts how often it"
        " equals the label: `torch.sum(predictions == labels)`.",
        "## 从特征到回答\n对每个类别，分类头用一组权重与 {count} 个特征相乘再求和，得到 **logits**：大小不限的得分。"
        "**Softmax** 把它们变成概率：取 e 的相应次幂，再除以总和。`torch.max(outputs, 1)` 给出最大的 logit 和它的位置："
        "{logit}，类别索引 {index}。回答是 **{answer}**，概率 {probability}。"
        "准确率统计回答与标签相等的次数：`torch.sum(predictions == labels)`。",
    ),
    "inside.answer.loss": (
        "**Cross-entropy** is what training makes small: −log of the probability of the true class. If this photo shows"
        " {truth}, its loss is −log {probability} = {loss}; if it shows {other_truth}, it is −log {other_probability} ="
        " {other_loss}. Being sure and wrong costs most.",
        "**交叉熵**是训练要减小的损失：真实类别的概率取负对数。如果照片里是 {truth}，损失为"
        " −log {probability} = {loss}；如果是 {other_truth}，损失为 −log {other_probability} = {other_loss}。"
        "自信地答错，代价最大。",
    ),
    "inside.index": ("index", "索引"),
    "inside.class": ("class", "类别"),
    "inside.logit": ("logit", "logit"),
    "inside.softmax": ("softmax", "softmax"),
    "inside.loss": ("loss if true", "若为真类的损失"),
    # ---- Teach ----
    "teach.tab": ("Teach", "教学"),
    "teach.intro": (
        "Make a classifier of your own: name 2 to 10 classes, give each a handful of photos, press Train. The frozen"
        " backbone of **{name}** computes each photo's features once, and only a new head learns, in seconds. Your"
        " photos, their features and the model are yours alone: nobody else sees them, and they go when you leave.",
        "制作你自己的分类器：给 2 到 10 个类别起名，每类放几张照片，然后点击训练。**{name}** 的冻结主干网络只计算一次"
        "每张照片的特征，只有新的分类头学习，几秒钟就够。照片、特征和模型只属于你：别人看不到，"
        "你离开后即被删除。",
    ),
    "teach.class": ("Class", "类别"),
    "teach.default": ("class {number}", "类别 {number}"),
    "teach.photos": ("Photos of this class", "这一类的照片"),
    "teach.add": ("Add a class", "添加一个类别"),
    "teach.remove": ("Remove this class", "删除这个类别"),
    "teach.zip": ("Add a zip of folders, one a class", "添加压缩包（每类一个文件夹）"),
    "teach.clear": ("Start again", "重新开始"),
    "teach.train": ("Train", "训练"),
    "teach.count": (
        "{photos} photos of {classes} classes; at most {most} photos.",
        "{classes} 个类别，共 {photos} 张照片；最多 {most} 张。",
    ),
    "teach.added": ("{count} photos were added.", "已添加 {count} 张照片。"),
    "teach.skipped": (
        "{count} photos were added, {skipped} files were not: {file}: {reason}",
        "已添加 {count} 张照片，{skipped} 个文件未能添加：{file}：{reason}",
    ),
    "teach.looking": ("looking at the photos", "正在查看照片"),
    "teach.learning": ("learning", "正在学习"),
    "teach.corrected": (
        "It joined “{name}” in the Teach tab (photos there now: {count}).",
        "已加入“教学”标签页的“{name}”，这一类现在有 {count} 张照片。",
    ),
    "teach.which": ("Say first what the photo shows.", "请先选择照片里是什么。"),
    "teach.result": (
        "## {accuracy} right\nof {count} photos, each asked of a head that had not seen it (95 % interval {low} to"
        " {high}).",
        "## 答对 {accuracy}\n共 {count} 张照片，每张都由没有见过它的分类头回答（95 % 置信区间 {low} 到 {high}）。",
    ),
    "teach.result.unknown": (
        "## It has learned\nbut how well is unknown: that takes two photos of every class or more.",
        "## 已经学会\n但不知道有多好：每个类别至少要有两张照片才能评估。",
    ),
    "teach.result.no_limit": (
        "It can't say “neither” yet: that takes about 20 photos.",
        "它还不能回答“都不是”：这大约需要 20 张照片。",
    ),
    "teach.try": ("Try it with another photo", "换一张照片试试"),
    "teach.try.answer": ("Its answer", "它的回答"),
    "teach.try.neighbours": ("It looks like these photos of yours", "与你的这些照片相似"),
    "teach.untrained": ("Train it first.", "请先训练。"),
    "teach.take": ("Take it with you", "带走它"),
    "teach.take.info": (
        "The folder in the zip is a whole model: `python app.py FOLDER` shows it, timm and transformers load it. It"
        " holds no photo.",
        "压缩包里的文件夹是完整的模型：可用 `python app.py 文件夹` 显示，也能被 timm 和 transformers 加载。"
        "其中不含照片。",
    ),
    "teach.download": ("Download the model (zip)", "下载模型（zip）"),
    "teach.repository": ("Hub repository", "Hub 仓库"),
    "teach.token": ("Your Hub token, with the right to write", "你的 Hub 令牌（需要写权限）"),
    "teach.token.info": (
        "Used for this one push and kept nowhere: huggingface.co/settings/tokens",
        "只用于这一次推送，不会保存：huggingface.co/settings/tokens",
    ),
    "teach.private": ("Private", "私有"),
    "teach.push": ("Push to the Hub", "推送到 Hub"),
    "teach.pushed": ("It is on the Hub: {address}", "已推送到 Hub：{address}"),
    "teach.no_token": (
        "A token of your own is needed to push: make one with the right to write at huggingface.co/settings/tokens.",
        "推送需要你自己的令牌：请在 huggingface.co/settings/tokens 创建一个有写权限的令牌。",
    ),
    "teach.failed": ("That did not work: {error}", "没有成功：{error}"),
    # ---- Train ----
    "train.tab": ("Train", "训练"),
    "train.intro": (
        "Trains on this computer, on a folder of yours; the page stays usable meanwhile. When it is done, the models"
        " shown here are replaced. Only whoever runs this page locally sees this tab.",
        "在这台电脑上用你的文件夹训练，期间页面仍可使用。完成后，这里显示的模型会被替换。"
        "只有在本机运行本页的人才能看到这个标签页。",
    ),
    "train.folder": ("Folder of photos", "照片文件夹"),
    "train.folder.info": (
        "With train/ and val/, or with a folder for each class. Empty: the classic ants and bees.",
        "包含 train/ 和 val/，或每类一个文件夹。留空：经典的蚂蚁和蜜蜂。",
    ),
    "train.recipe": ("Recipe", "训练方案"),
    "train.recipe.info": (
        "fast: a minute or so. tutorial: the classic tutorial to the letter, many times slower.",
        "fast：约一分钟。tutorial：完全照教程进行，慢很多倍。",
    ),
    "train.mode": ("Mode", "模式"),
    "train.start": ("Train", "开始训练"),
    "train.cancel": ("Cancel", "取消"),
    "train.log": ("What it says", "输出"),
    "train.idle": ("Nothing is being trained.", "当前没有训练任务。"),
    "train.running": (
        "Training for {seconds} s: {epochs} epochs done.",
        "已训练 {seconds} 秒，完成 {epochs} 个 epoch。",
    ),
    "train.cancelling": ("Stopping.", "正在停止。"),
    "train.cancelled": (
        "Stopped. The models shown are those of before.",
        "已停止。显示的仍是之前的模型。",
    ),
    "train.done": ("Done. The new models are shown.", "完成。已显示新模型。"),
    "train.not_placed": (
        "Done. The models in place stay, because the new ones are worse; the log says by how much. "
        "The new ones are in {folder}.",
        "完成。新模型更差，因此仍使用原来的模型；日志中有具体数字。新模型保存在 {folder}。",
    ),
    "train.versions": ("Other versions", "其他版本"),
    "train.versions.info": (
        "Models that are not in place. They are kept until you delete them.",
        "当前未使用的模型，会一直保留，直到您自己删除。",
    ),
    "train.restore": ("Put in place", "换回此版本"),
    "train.restored": (
        "The models of {name} are in place. Those that were there before are now a version.",
        "已换回 {name} 的模型。原来的模型已保存为一个版本。",
    ),
    "train.failed": ("It stopped: {error}", "训练中断：{error}"),
    "train.not_shown": (
        "Done, in {folder}, but this page can't show it: {error}",
        "完成，保存在 {folder}，但本页无法显示：{error}",
    ),
}
