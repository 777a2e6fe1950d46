"""The page's texts in English, by tab. A key names the place of its text; {fields} are filled in by name."""

TEXTS = {
    # the page
    "page.title": "# antbee\nTwo folders of photos in, an image classifier out: transfer learning, both classic ways.",
    "page.models": "Models",
    "page.models.shown": "Shown on this page",
    "page.models.info": "Two at most, side by side",
    "page.models.renew": "Show the new models",
    "page.models.changed": "**There is something new on the disk:** {names}.",
    "page.models.failed": "The models shown stay: the new ones can't be used, and the page's own output says why.",
    "page.drawn": "**Drawn pictures.** {names} learned from pictures that a program drew, not photos.",
    "page.random": "**Random weights.** {names} started knowing nothing, so expect poor answers.",
    "page.no_model": "## No model yet\nTrain both modes, then start this page again:\n```\n{train}\n{app}\n```",
    "page.no_photos": "## No photos here\nName the folder the models learned from: `{app} --data DIR`",
    # what does not reach the page
    "security.large": "Too much came at once: {most} MB at most are taken. Send less.",
    "security.many": "Too many files came at once: {most} at most are taken. Send the rest afterwards.",
    "security.fields": "Nothing but files can be uploaded here: send each with its name.",
    "security.file": (
        "Only files that were uploaded to this page are opened: upload the file first, then name it as the "
        "upload's answer does. Addresses, data: URLs and other paths are never followed."
    ),
    "security.host": (
        "This page is for the computer that it runs on, since it can train there: open it as localhost or "
        "127.0.0.1, or start it with --no-train to have it answer under other names."
    ),
    "security.origin": (
        "Another site asked this page to do something, and this page is for the computer that it runs on: open it "
        "there, as localhost or 127.0.0.1."
    ),
    # modes
    "mode.frozen": "frozen: only the head learned",
    "mode.finetune": "finetune: every weight learned",
    # Classify
    "classify.tab": "Classify",
    "classify.photo": "Photo",
    "classify.examples": "Examples",
    "classify.crop": "What the network sees",
    "classify.crop.alt": "The square crop of the photo that the network is given",
    "classify.probabilities": "Probabilities",
    "classify.map": "Photo | what speaks for the answer",
    "classify.neighbours": "It looks like these training photos",
    "classify.like": "a photo like those learned from (distance {distance}, limit {limit})",
    "classify.neither": "Neither",
    "classify.unlike": (
        "it is like none that was learned from (distance {distance}, limit {limit}): believe no class below"
    ),
    "classify.unknown": "too little is known to tell whether it is any of the classes",
    "classify.bad_photo": "This file can't be used: {error}. Try a JPEG or PNG photo.",
    "classify.correct": "Wrong? Say what the photo shows",
    "classify.correct.info": "The photo then joins the Teach tab, where a classifier of your own learns from it",
    "classify.correct.button": "Teach it",
    "classify.several": "Several photos at once",
    "classify.several.files": "Photos",
    "classify.several.most": "{count} photos came, {most} at once are answered: send the rest afterwards.",
    "classify.several.answers": "Answers",
    "classify.several.table": "Every photo's answers",
    "classify.several.csv": "Download as CSV",
    # Batches
    "batches.tab": "Batches",
    "batches.intro": (
        "A batch is what the network is given at a time; labels come from the folders' names. **train** shows "
        "photos as the network learns from them: cropped and mirrored at random, other crops in every epoch. "
        "**val** shows the evaluation crop and what each model answers. Click a photo to see eight draws of its "
        "augmentation."
    ),
    "batches.split": "Split",
    "batches.size": "Batch size",
    "batches.seed": "Seed",
    "batches.new": "New batch",
    "batches.grid": "{name}: {split} batch {seed}",
    "batches.is": "is: {truth}",
    "batches.draws": "Eight draws of the augmentation of one photo",
    "batches.draw": "epoch {epoch}",
    # Report
    "report.tab": "Report",
    "report.measures": "How good the modes are",
    "report.measure": "measure",
    "report.accuracy": "accuracy, kept epoch (95 % interval)",
    "report.cross_validated": "accuracy, cross-validated (95 % interval)",
    "report.last": "accuracy, last epoch",
    "report.f1": "F1, mean of the classes",
    "report.auc": "area under the ROC curve",
    "report.loss": "log loss, in nats",
    "report.calibration": "calibration error",
    "report.temperature": "temperature, divided into the head",
    "report.alarms": "“neither” said wrongly of validation photos",
    "report.found": "“neither” said rightly of {kind}",
    "report.zero_shot": "before any training: the starting weights' own head",
    "report.kept": "kept epoch",
    "report.chosen_on": "chosen on",
    "report.trainable": "weights that learned",
    "report.seconds": "seconds of training",
    "report.of": "{found} of {count}",
    "report.explained": (
        "An epoch chosen on val is the best of its run on the very photos it is scored on here; the last epoch was "
        "not chosen. The interval says how far chance alone could move the result (Wilson, 95 %)."
    ),
    "report.apart": (
        "Of {count} validation photos {first_alone} are right with {first} alone and {second_alone} with {second} "
        "alone: {verdict} (McNemar's exact test, p = {p})."
    ),
    "report.apart.chance": "no more than chance explains",
    "report.apart.real": "a difference that chance hardly explains",
    "plots.accuracy": "Accuracy by epoch",
    "plots.loss": "Loss by epoch",
    "report.reliability": "Does 80 % mean 80 %?",
    "report.confidence": "probability of the answer",
    "report.right": "share of right answers",
    "report.perfect": "perfect",
    "report.photos": "Is this enough data?",
    "report.photos.x": "photos of each class",
    "report.photos.mean": "mean of the draws",
    "report.photos.lowest": "lowest",
    "report.photos.highest": "highest",
    "report.confusion": "{name}: true classes in rows, answers in columns",
    "report.confusion.hint": "Click a number to see its photos.",
    "report.true_class": "true class",
    "report.cell": "{name}: {truth} taken for {answer}, {count}",
    "report.mistakes": "{name}: worst mistakes first, each with what spoke for the answer",
    "report.mistake": "is {truth}, answered {answer} {probability}",
    "report.faults": "Photos that may be wrong",
    "report.faults.info": (
        "Labels that the neighbours doubt, photos that are there twice or in both splits, and pictures that are "
        "blank, dark, blurred or tiny. Judged by what the frozen backbone sees. Nothing is changed."
    ),
    "report.faults.look": "Look for them",
    "report.faults.kind": "kind",
    "report.faults.file": "file",
    "report.faults.reason": "reason",
    "report.faults.none": "Nothing was found.",
    "report.faults.no_backbone": (
        "This needs a frozen model beside its photos: a fine-tuned backbone has learned the labels it would judge."
    ),
    "report.faults.progress": "measuring photos",
    "report.answering": "answering the validation photos",
    "report.card": "{name}: model card",
    # Inside
    "inside.tab": "Inside",
    "inside.model": "Model",
    "inside.intro": (
        "The way of the photo on the tab Classify through the network, in six steps. Every number is the model's own."
    ),
    "inside.no_photo": "## No photo yet\nChoose one on the tab Classify, then come back.",
    "inside.unknown": "unknown",
    "inside.from_to": "{smallest} to {largest}",
    "inside.photo": "1 · Photo",
    "inside.photo.told": (
        "## A photo and its label\nNobody writes labels down: `ImageFolder` reads them from the folders' names. "
        "Sorted by name, the classes get the numbers {classes}. This number, the *class index*, is what the "
        "network learns and what it answers.\n\nA `DataLoader` joins photos to a batch. Here the batch is one "
        "photo: B = 1. What the photo shows, the network is not told."
    ),
    "inside.photo.title": "The photo",
    "inside.photo.size": "{width} × {height} pixels",
    "inside.tensor": "2 · Tensor",
    "inside.tensor.told": (
        "## From the photo to a tensor\nThe photo is resized until its shorter side has {resize} pixels, and a "
        "square of {crop} × {crop} is cut from its centre. A picture is stored as (H, W, C): rows, columns, "
        "colours, in whole numbers from 0 to 255. The network takes a tensor (C, H, W): channels first, in "
        "fractions from 0 to 1. To show a tensor, `tensor.permute(1, 2, 0)` makes it (H, W, C) again; the picture "
        "on the right was made so."
    ),
    "inside.tensor.title": "Photo and tensor",
    "inside.tensor.cut": "the square that is cut",
    "inside.tensor.shown": "the tensor, permuted to be shown",
    "inside.tensor.picture": "picture (H, W, C)",
    "inside.tensor.tensor": "tensor (C, H, W)",
    "inside.form": "form",
    "inside.shape": "shape",
    "inside.type": "type",
    "inside.range": "values",
    "inside.middle": "middle pixel",
    "inside.normalised": "3 · Normalisation",
    "inside.normalised.told": (
        "## Normalisation\nFrom each channel a fixed mean is subtracted, and what is left is divided by a fixed "
        "standard deviation: (x − mean) / std. This model's numbers are in the table, and have to be the same in "
        "training and in every answer. The values now lie around 0 and spread by about 1, which makes learning "
        "steady. Nothing is lost: x · std + mean gives the picture back.\n\nWhite is 0, the mean; orange is "
        "brighter, purple darker."
    ),
    "inside.normalised.title": "The three channels",
    "inside.red": "red",
    "inside.green": "green",
    "inside.blue": "blue",
    "inside.spread": "{name}: {spread}",
    "inside.channel": "channel",
    "inside.mean": "mean",
    "inside.std": "std",
    "inside.before": "before",
    "inside.after": "after",
    "inside.stages": "4 · Stages",
    "inside.stages.told": (
        "## Stage by stage\n{architecture} is a **residual network** of {depth} layers with weights. Most are in "
        "its {blocks} blocks, and each block adds what it computes to what it was given: x + F(x). So a block need "
        "only learn a correction, and gradients find their way through many layers.\n\n**Transfer learning** takes "
        "over a backbone, conv1 to layer4, that has learned on other pictures (the weights here: {weights}), and "
        "gives it a new head, `fc`. *Frozen* trains `fc` alone, *finetune* trains everything. "
        "`network.state_dict()` names all that the model is: {tensors} tensors, the parameters below and "
        "BatchNorm's running statistics."
    ),
    "inside.stages.maps": (
        "Below are the eight channels of each stage with the largest mean. Yellow is a channel's own largest "
        "value, dark is 0. Early maps still show edges and colours, and where they are; later ones are smaller, "
        "and say less where something is and more what it is."
    ),
    "inside.stages.title": "{stage}: {shown} of {count} channels, {height} × {width}",
    "inside.stages.channel": "channel {channel}, up to {largest}",
    "inside.stage": "stage",
    "inside.shape.batch": "output (B, C, H, W)",
    "inside.parameters": "parameters",
    "inside.frozen": "learn in frozen",
    "inside.finetune": "learn in finetune",
    "inside.does": "what it does",
    "inside.does.input": "the normalised photo",
    "inside.does.conv1": "convolution 7 × 7, BatchNorm, ReLU; half the size",
    "inside.does.maxpool": "the largest of 3 × 3; half the size",
    "inside.does.layer1": "residual blocks",
    "inside.does.layer2": "residual blocks; half the size",
    "inside.does.layer3": "residual blocks; half the size",
    "inside.does.layer4": "residual blocks; half the size",
    "inside.does.avgpool": "the mean of each channel: the features",
    "inside.does.fc": "the head: a weighted sum for each class",
    "inside.sum": "all",
    "inside.features": "5 · Features",
    "inside.features.told": (
        "## {count} features\nAverage pooling keeps one number of each of layer4's {count} channels: its mean over "
        "{height} × {width} places. These numbers are all that the head is told: what is in the photo, no longer "
        "where. Photos of one class should have similar ones. The largest here is number {strongest}, {value}: the "
        "first of layer4's channels on the step before."
    ),
    "inside.features.bars": "The features, by channel",
    "inside.features.number": "channel of layer4",
    "inside.features.value": "mean",
    "inside.answer": "6 · Answer",
    "inside.answer.told": (
        "## From the features to the answer\nFor each class the head multiplies the {count} features by weights of "
        "their own and adds them up: the **logits**, scores of any size. **Softmax** makes them probabilities: e "
        "to the power of each, divided by the sum. `torch.max(outputs, 1)` gives the largest logit and its place: "
        "{logit} at class index {index}. The answer is **{answer}**, with {probability}. Accuracy counts how often "
        "it equals the label: `torch.sum(predictions == labels)`."
    ),
    "inside.answer.loss": (
        "**Cross-entropy** is what training makes small: −log of the probability of the true class. If this photo "
        "shows {truth}, its loss is −log {probability} = {loss}; if it shows {other_truth}, it is −log "
        "{other_probability} = {other_loss}. Being sure and wrong costs most."
    ),
    "inside.index": "index",
    "inside.class": "class",
    "inside.logit": "logit",
    "inside.softmax": "softmax",
    "inside.loss": "loss if true",
    # Teach
    "teach.tab": "Teach",
    "teach.intro": (
        "Make a classifier of your own: name 2 to 10 classes, give each a handful of photos, press Train. The "
        "frozen backbone of **{name}** computes each photo's features once, and only a new head learns, in "
        "seconds. Your photos, their features and the model are yours alone: nobody else sees them, and they go "
        "when you leave."
    ),
    "teach.class": "Class",
    "teach.default": "class {number}",
    "teach.photos": "Photos of this class",
    "teach.add": "Add a class",
    "teach.remove": "Remove this class",
    "teach.zip": "Add a zip of folders, one a class",
    "teach.clear": "Start again",
    "teach.train": "Train",
    "teach.count": "{photos} photos of {classes} classes; at most {most} photos.",
    "teach.added": "{count} photos were added.",
    "teach.skipped": "{count} photos were added, {skipped} files were not: {file}: {reason}",
    "teach.looking": "looking at the photos",
    "teach.learning": "learning",
    "teach.corrected": "It joined “{name}” in the Teach tab (photos there now: {count}).",
    "teach.which": "Say first what the photo shows.",
    "teach.result": (
        "## {accuracy} right\nof {count} photos, each asked of a head that had not seen it (95 % interval {low} to "
        "{high})."
    ),
    "teach.result.unknown": "## It has learned\nbut how well is unknown: that takes two photos of every class or more.",
    "teach.result.no_limit": "It can't say “neither” yet: that takes about 20 photos.",
    "teach.try": "Try it with another photo",
    "teach.try.answer": "Its answer",
    "teach.try.neighbours": "It looks like these photos of yours",
    "teach.untrained": "Train it first.",
    "teach.take": "Take it with you",
    "teach.take.info": (
        "The folder in the zip is a whole model: `python app.py FOLDER` shows it, timm and transformers load it. "
        "It holds no photo."
    ),
    "teach.download": "Download the model (zip)",
    "teach.repository": "Hub repository",
    "teach.token": "Your Hub token, with the right to write",
    "teach.token.info": "Used for this one push and kept nowhere: huggingface.co/settings/tokens",
    "teach.private": "Private",
    "teach.push": "Push to the Hub",
    "teach.pushed": "It is on the Hub: {address}",
    "teach.no_token": (
        "A token of your own is needed to push: make one with the right to write at huggingface.co/settings/tokens."
    ),
    "teach.failed": "That did not work: {error}",
    # Train
    "train.tab": "Train",
    "train.intro": (
        "Trains on this computer, on a folder of yours; the page stays usable meanwhile. When it is done, the "
        "models shown here are replaced. Only whoever runs this page locally sees this tab."
    ),
    "train.folder": "Folder of photos",
    "train.folder.info": "With train/ and val/, or with a folder for each class. Empty: the classic ants and bees.",
    "train.recipe": "Recipe",
    "train.recipe.info": "fast: a minute or so. tutorial: the classic tutorial to the letter, many times slower.",
    "train.mode": "Mode",
    "train.start": "Train",
    "train.cancel": "Cancel",
    "train.log": "What it says",
    "train.idle": "Nothing is being trained.",
    "train.running": "Training for {seconds} s: {epochs} epochs done.",
    "train.cancelling": "Stopping.",
    "train.cancelled": "Stopped. The models shown are those of before.",
    "train.done": "Done. The new models are shown.",
    "train.not_placed": (
        "Done. The models in place stay, because the new ones are worse; the log says by how much. The new ones "
        "are in {folder}."
    ),
    "train.versions": "Other versions",
    "train.versions.info": "Models that are not in place. They are kept until you delete them.",
    "train.restore": "Put in place",
    "train.restored": "The models of {name} are in place. Those that were there before are now a version.",
    "train.failed": "It stopped: {error}",
    "train.not_shown": "Done, in {folder}, but this page can't show it: {error}",
}
