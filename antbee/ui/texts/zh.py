"""The page's texts in Simplified Chinese, by tab. A key names the place of its text; {fields} are filled in by name."""

TEXTS = {
    # the page
    "page.title": "# antbee\n放入两个照片文件夹，得到一个图像分类器：迁移学习的两种经典做法。",
    "page.models": "模型",
    "page.models.shown": "本页显示的模型",
    "page.models.info": "最多两个，并排显示",
    "page.models.reload": "显示新模型",
    "page.models.changed": "**磁盘上有新的或更改过的模型：**{names}。",
    "page.models.failed": "仍使用当前模型：新模型无法加载，原因见本页程序的输出。",
    "page.drawn": "**绘制的图片。** {names}：用程序绘制的图片训练，不是照片。",
    "page.random": "**随机权重。** {names}：没有预训练，预测会很差。",
    "page.no_model": (
        "## 还没有模型\n先训练两种模式，再重新打开本页：\n```\n{train}\n{app}\n```\n"
        "或者现在就在 Teach 标签页用自己的几张照片训练一个分类器。"
    ),
    "page.no_photos": "## 这里没有照片\n请指定训练模型所用的文件夹：`{app} --data DIR`",
    # what does not reach the page
    "security.large": "一次发送的内容太多：最多接收 {most} MB。请减少后再发。",
    "security.many": "一次发送的文件太多：最多接收 {most} 个。其余请稍后再发。",
    "security.fields": "这里只能上传文件：请连同文件名一起发送。",
    "security.file": (
        "本页只打开已上传到本页的文件：请先上传文件，再使用上传后返回的路径。网址、data: URL 和其他路径一律不会打开。"
    ),
    "security.host": (
        "本页可以在所运行的电脑上训练，因此只供该电脑使用：请用 localhost 或 127.0.0.1 打开，或用 --no-train 启动，"
        "使其能以其他名称访问。"
    ),
    "security.origin": (
        "另一个网站要求本页执行操作，而本页只供所运行的电脑使用：请在该电脑上用 localhost 或 127.0.0.1 打开。"
    ),
    # modes
    "mode.frozen": "frozen（冻结）：只训练分类头",
    "mode.finetune": "finetune（微调）：训练所有权重",
    # Classify
    "classify.tab": "分类",
    "classify.photo": "照片",
    "classify.examples": "示例",
    "classify.crop": "网络的输入",
    "classify.crop.alt": "照片中交给网络的方形区域",
    "classify.probabilities": "概率",
    "classify.map": "照片 | 预测类别的热力图",
    "classify.map.gradient": "（热力图按梯度加权：对这个网络只是近似）",
    "classify.neighbours": "最相近的训练照片",
    "classify.like": "与训练照片相似（距离 {distance}，阈值 {limit}）",
    "classify.neither": "都不是",
    "classify.false_alarms": "（这个模型过于频繁地这样判断：{count} 张验证照片中有 {found} 张；更多训练照片会有帮助）",
    "classify.unlike": "分布外：与所有训练照片都不相似（距离 {distance}，阈值 {limit}）；请不要相信下面的类别",
    "classify.unknown": "未做分布外检测：训练照片太少",
    "classify.bad_photo": "无法使用这个文件：{error}。请换一张 JPEG 或 PNG 照片。",
    "classify.correct": "预测错了？请选择真实类别",
    "classify.correct.info": "照片会加入“教学”标签页，你可以在那里训练自己的分类器",
    "classify.correct.button": "加入教学",
    "classify.several": "一次分类多张照片",
    "classify.several.files": "照片",
    "classify.several.most": "收到 {count} 张照片，一次最多预测 {most} 张：其余请稍后再发。",
    "classify.several.predictions": "预测",
    "classify.several.table": "所有照片的预测",
    "classify.several.csv": "下载 CSV",
    # Batches
    "batches.tab": "批次",
    "batches.intro": (
        "一个批次就是一步中交给网络的照片；标签来自文件夹的名字。**train** 显示训练时增强后的照片：随机裁剪，"
        "并在模型如此训练时随机镜像，每个 epoch 都不同。**val** 显示评估时的裁剪和每个模型的预测。"
        "点击一张照片，可以看到它的八个增强版本。"
    ),
    "batches.split": "数据划分",
    "batches.size": "批次大小",
    "batches.seed": "随机种子",
    "batches.new": "换一批",
    "batches.grid": "{name}：{split} 批次 {seed}",
    "batches.is": "实际：{truth}",
    "batches.draws": "同一张照片的八个增强版本",
    "batches.draw": "第 {epoch} 个 epoch",
    # Report
    "report.tab": "报告",
    "report.measures": "模型的指标",
    "report.measure": "指标",
    "report.accuracy": "准确率，保留的 epoch（95 % 置信区间）",
    "report.cross_validated": "准确率，交叉验证（95 % 置信区间）",
    "report.test": "准确率，测试照片（95 % 置信区间）",
    "report.last": "准确率，最后一个 epoch",
    "report.f1": "F1，各类平均",
    "report.auc": "ROC 曲线下面积",
    "report.loss": "对数损失（奈特）",
    "report.calibration": "校准误差",
    "report.temperature": "温度（已除入分类头）",
    "report.alarms": "误判为“都不是”：验证照片",
    "report.found": "正确判为“都不是”：{kind}",
    "report.zero_shot": "训练之前：起始权重自带的分类头",
    "report.kept": "保留的 epoch",
    "report.chosen_on": "依据什么选择",
    "report.trainable": "训练的权重数",
    "report.seconds": "训练用时（秒）",
    "report.of": "{found} / {count}",
    "report.explained": (
        "依据 val 选择的 epoch，是在同一批照片上得分最高的一个，所以略显乐观；最后一个 epoch 没有经过挑选。区间是 Wilso"
        "n 95 % 置信区间。"
    ),
    "report.apart": (
        "在 {count} 张验证照片中，只有 {first} 答对的有 {first_alone} 张，只有 {second} 答对的有 {second_alone} "
        "张：{verdict}（McNemar 精确检验，p = {p}）。"
    ),
    "report.other_classes": (
        "{names} 的类别名与照片（{classes}）不同，因此这里没有用这些照片测量它。"
        "如果重命名过它的类别，请同样重命名照片文件夹。"
    ),
    "report.apart.chance": "差异不显著",
    "report.apart.real": "差异显著",
    "plots.accuracy": "各 epoch 的准确率",
    "plots.loss": "各 epoch 的损失",
    "report.reliability": "可靠性：80 % 的置信度就是 80 % 的准确率吗？",
    "report.confidence": "置信度",
    "report.right": "准确率",
    "report.perfect": "理想",
    "report.photos": "学习曲线：数据够不够？",
    "report.photos.x": "每类训练照片数",
    "report.photos.mean": "随机子集的平均",
    "report.photos.lowest": "最低",
    "report.photos.highest": "最高",
    "report.confusion": "{name}：行是真实类别，列是预测类别",
    "report.confusion.hint": "点击数字可查看对应的照片。",
    "report.true_class": "真实类别",
    "report.cell": "{name}：{truth} 被预测为 {predicted}，{count} 张",
    "report.errors": "{name}：按置信度排列的错误，各附热力图",
    "report.error": "实际 {truth}，预测 {predicted} {probability}",
    "report.faults": "可能有问题的照片",
    "report.faults.info": (
        "与最相近的照片矛盾的标签、重复或同时出现在两个划分中的照片，以及空白、过暗、模糊或太小的照片，依据冻结主干网络"
        "的特征找出。不会改动任何文件。"
    ),
    "report.faults.check": "开始检查",
    "report.faults.kind": "类型",
    "report.faults.file": "文件",
    "report.faults.reason": "原因",
    "report.faults.none": "没有发现问题。",
    "report.faults.no_backbone": (
        "需要一个冻结模式的模型和它的照片：微调过的主干网络已用这些标签训练过，不能再来检查它们。"
    ),
    "report.faults.progress": "正在检查照片",
    "report.predicting": "正在预测验证照片",
    "report.card": "{name}：模型卡",
    # Inside
    "inside.tab": "网络内部",
    "inside.model": "模型",
    "inside.intro": "网络如何处理“分类”标签页中的照片，共六步。所有数字都来自模型本身。",
    "inside.no_photo": "## 还没有照片\n请先在“分类”标签页选择一张照片，再回到这里。",
    "inside.unknown": "未知",
    "inside.from_to": "{smallest} 到 {largest}",
    "inside.photo": "1 · 照片",
    "inside.photo.explanation": (
        "## 照片与标签\n标签不用手写：`ImageFolder` 直接从文件夹的名字读取。类别按名字排序后依次编号：{classes}。这个编"
        "号叫*类别索引*，网络用它训练，预测的也是它。\n\n`DataLoader` 把多张照片组成一个批次。这里的批次只有一张照片：B"
        " = 1。标签不是网络输入的一部分。"
    ),
    "inside.photo.title": "照片",
    "inside.photo.size": "{width} × {height} 像素",
    "inside.tensor": "2 · 张量",
    "inside.tensor.explanation": (
        "## 从照片到张量\n{square}图片按 (H, W, C) 存储：行、列、颜色，数值是 0 到 255 的整数。网络需要的张量是 (C, H, "
        "W)：通道在前，数值是 0 到 1 的小数。显示张量时，用 `tensor.permute(1, 2, 0)` 把它变回 (H, W, "
        "C)；右边的图片就是这样得到的。"
    ),
    "inside.tensor.crop": "先缩放照片，使短边为 {resize} 像素，再从中心裁剪出 {crop} × {crop} 的正方形。",
    "inside.tensor.squash": "把照片的两边都缩放到 {resize} 像素（不保持长宽比），保留中心的 {crop} × {crop}。",
    "inside.tensor.pad": "先缩放照片，使长边为 {resize} 像素，用平均颜色填充成正方形，保留中心的 {crop} × {crop}。",
    "inside.tensor.title": "照片与张量",
    "inside.tensor.cut": "网络看到的部分",
    "inside.tensor.shown": "调换维度后显示的张量",
    "inside.tensor.picture": "图片 (H, W, C)",
    "inside.tensor.tensor": "张量 (C, H, W)",
    "inside.form": "形式",
    "inside.shape": "形状",
    "inside.type": "数据类型",
    "inside.range": "取值范围",
    "inside.middle": "正中像素",
    "inside.normalised": "3 · 标准化",
    "inside.normalised.explanation": (
        "## 标准化\n每个通道先减去固定的均值，再除以固定的标准差：(x − 均值) / 标准差。这个模型所用的数值见下表，训练时"
        "和预测时必须相同。结果分布在 0 附近，幅度约为 1，训练因此更平稳。信息没有丢失：x · 标准差 + 均值就能还原图片。"
        "\n\n白色是 0，即均值；橙色更亮，紫色更暗。"
    ),
    "inside.normalised.title": "三个通道",
    "inside.red": "红",
    "inside.green": "绿",
    "inside.blue": "蓝",
    "inside.spread": "{name}通道：{spread}",
    "inside.channel": "通道",
    "inside.mean": "均值",
    "inside.std": "标准差",
    "inside.before": "标准化前",
    "inside.after": "标准化后",
    "inside.stages": "4 · 各阶段",
    "inside.stages.explanation": (
        "## 逐个阶段\n**迁移学习**沿用 {architecture} 在其他图片上学习过的主干网络，即最后一层以外的所有阶段"
        "（这里的权重：{weights}），再换上新的分类头。*frozen*（冻结）只训练分类头，*finetune*（微调）训练所有参数。"
        "`network.state_dict()` 按名字列出模型的全部内容：{tensors} 个张量，即下表中的参数和 BatchNorm 的滑动统计量。"
    ),
    "inside.stages.residual": (
        "它是一个**残差网络**，有 {blocks} 个残差块，每个块把自己的计算结果加到输入上：x + F(x)。"
        "这样每个块只需学习一个修正量，梯度也能顺利穿过很多层。"
    ),
    "inside.stages.maps": (
        "下面是每个阶段中均值最大的八个通道。黄色是该通道自己的最大值，深色是 0。靠前的特征图还能看出边缘、"
        "颜色和位置；越往后特征图越小，越少说明“在哪里”，越多说明“是什么”。"
    ),
    "inside.stages.title": "{stage}：{count} 个通道中的 {shown} 个，{height} × {width}",
    "inside.stages.channel": "通道 {channel}，最大 {largest}",
    "inside.stage": "阶段",
    "inside.shape.batch": "输出，批次在前",
    "inside.parameters": "参数量",
    "inside.frozen": "冻结时训练",
    "inside.finetune": "微调时训练",
    "inside.does": "作用",
    "inside.does.input": "标准化后的照片",
    "inside.does.pooling": "每个通道变成一个数：得到特征",
    "inside.does.head": "每个类别一个加权和",
    "inside.sum": "合计",
    "inside.features": "5 · 特征",
    "inside.features.explanation": (
        "## {count} 个特征\n池化把最后一个阶段的特征图变成这些数。它们是分类头唯一的输入：照片里有什么，"
        "而不再是在哪里。"
        "同一类照片的特征应当相近。这里最大的是第 {strongest} 号，{value}。"
    ),
    "inside.features.means": "每个特征是最后一个特征图的一个通道在所有位置上的平均值。",
    "inside.features.bars": "各通道的特征",
    "inside.features.number": "特征的编号",
    "inside.features.value": "值",
    "inside.prediction": "6 · 预测",
    "inside.prediction.explanation": (
        "## 从特征到预测\n对每个类别，分类头用一组权重与 {count} 个特征相乘再求和，得到 **logits**：大小不限的得分。**S"
        "oftmax** 把它们变成概率：取 e 的相应次幂，再除以总和。`torch.max(outputs, 1)` 给出最大的 logit 和它的位置：{lo"
        "git}，类别索引 {index}。预测是 **{predicted}**，概率 {probability}。准确率统计预测与标签相等的次数：`torch.sum"
        "(predictions == labels)`。"
    ),
    "inside.prediction.loss": (
        "**交叉熵**是训练要减小的损失：真实类别的概率取负对数。如果照片里是 {truth}，损失为 −log {probability} = "
        "{loss}；如果是 {other_truth}，损失为 −log {other_probability} = {other_loss}。自信地答错，代价最大。"
    ),
    "inside.index": "索引",
    "inside.class": "类别",
    "inside.logit": "logit",
    "inside.softmax": "softmax",
    "inside.loss": "若为真类的损失",
    # Teach
    "teach.tab": "教学",
    "teach.intro": (
        "训练你自己的分类器：给 2 到 10 个类别起名，每类添加几张照片，然后点击训练。**{name}** 的冻结主干网络只计算一次"
        "每张照片的特征，只训练新的分类头，几秒钟就够。别人看不到你的照片、特征和模型，你离开后即被删除。"
    ),
    "teach.class": "类别",
    "teach.default": "类别 {number}",
    "teach.photos": "这一类的照片",
    "teach.add": "添加一个类别",
    "teach.remove": "删除这个类别",
    "teach.zip": "添加压缩包（每类一个文件夹）",
    "teach.clear": "重新开始",
    "teach.train": "训练",
    "teach.count": "{classes} 个类别，共 {photos} 张照片；最多 {most} 张。",
    "teach.added": "已添加 {count} 张照片。",
    "teach.skipped": "已添加 {count} 张照片，{skipped} 个文件未能添加：{file}：{reason}",
    "teach.encoding": "zip 中的名称按 {encoding} 编码读取。",
    "teach.encoding.unsure": "zip 没有说明名称的编码，已按 {encoding} 读取，但不能确定："
    "如果类别名称有误，请在上方改正，或用 UTF-8 名称重新打包。",
    "teach.looking": "正在计算特征",
    "teach.learning": "正在训练",
    "teach.corrected": "已加入“教学”标签页的“{name}”，这一类现在有 {count} 张照片。",
    "teach.which": "请先选择真实类别。",
    "teach.result": "## 正确率 {accuracy}\n共 {count} 张照片，交叉验证（95 % 置信区间 {low} 到 {high}）。",
    "teach.result.unknown": "## 已训练\n准确率未知：交叉验证要求每个类别至少有两张照片。",
    "teach.result.no_limit": "它还不能预测“都不是”：这大约需要 20 张照片。",
    "teach.try": "换一张照片试试",
    "teach.try.prediction": "预测",
    "teach.try.neighbours": "你的照片中最相近的",
    "teach.untrained": "请先训练。",
    "teach.take": "下载或分享",
    "teach.take.info": (
        "压缩包里的文件夹是完整的模型：可用 `python app.py 文件夹` 显示，也能被 timm 和 transformers 加载。"
        "其中不含照片。"
    ),
    "teach.download": "下载模型（zip）",
    "teach.repository": "Hub 仓库",
    "teach.repository.info": "如果还不存在，会新建。",
    "teach.token": "你的 Hub 令牌（需要写权限）",
    "teach.token.info": "只用于这一次推送，不会保存：huggingface.co/settings/tokens",
    "teach.private": "私有",
    "teach.push": "推送到 Hub",
    "teach.pushed": "已推送到 Hub：{address}",
    "teach.no_token": "推送需要你自己的令牌：请在 huggingface.co/settings/tokens 创建一个有写权限的令牌。",
    "teach.failed": "没有成功：{error}",
    # Train
    "publish.title": "发布照片",
    "publish.info": (
        "把上面的文件夹做成 Hugging Face Hub 上的数据集，供他人训练。"
        "除非设为私有，否则所有人可见。请只发布你有权发布的照片。"
    ),
    "publish.repository.info": "那里已有的旧版照片会被替换。",
    "publish.license": "许可证",
    "publish.license.info": "使用 Hub 的名称；留空：未知。",
    "publish.token.info": "需有写入权限。留空：使用 `hf auth login` 的令牌。",
    "publish.look": "会发布什么？",
    "publish.push": "发布",
    "publish.photos": "{count} 张照片（{splits}），{megabytes} MB，以及一张说明卡。",
    "publish.left_out": "不包含：{what}",
    "publish.positions": (
        "**{count} 张照片的 EXIF 数据含有 GPS 拍摄位置**，会被所有人看到。"
        "如需保密，请先删除，例如 `exiftool -gps:all= FOLDER -r`。"
    ),
    "publish.pushed": "数据集在 <{address}>。",
    "train.tab": "训练",
    "train.intro": (
        "在这台电脑上用你的文件夹训练，期间页面仍可使用。完成后，这里显示的模型会被替换。"
        "只有在本机运行本页的人才能看到这个标签页。"
    ),
    "train.folder": "照片文件夹",
    "train.folder.info": "包含 train/ 和 val/，或每类一个文件夹，或 hf://datasets/user/name。留空：经典的蚂蚁和蜜蜂；drawn：程序绘制的图片。",
    "train.recipe": "训练方案",
    "train.recipe.info": "fast：约一分钟。tutorial：完全照教程进行，慢很多倍。",
    "train.mode": "模式",
    "train.start": "开始训练",
    "train.cancel": "取消",
    "train.log": "输出",
    "train.idle": "当前没有训练任务。",
    "train.running": "已训练 {seconds} 秒，完成 {epochs} 个 epoch。",
    "train.stopping": "正在停止。",
    "train.cancelled": "已停止。显示的仍是之前的模型。",
    "train.finished": "完成。已显示新模型。",
    "train.not_placed": "完成。新模型更差，因此仍使用原来的模型；日志中有具体数字。新模型保存在 {folder}。",
    "train.versions": "其他版本",
    "train.versions.info": "不是当前使用的模型，会一直保留，直到你自己删除。",
    "train.restore": "恢复",
    "train.restored": "已恢复 {name} 的模型。原来的模型已保存为一个版本。",
    "train.failed": "训练失败：{error}",
    "train.not_shown": "完成，保存在 {folder}，但本页无法加载模型：{error}",
}
