"""The page's texts in English, by tab. A key names the place of its text; {fields} are filled in by name."""

TEXTS = {
    # the page
    "page.title": "# antbee\nTwo folders of photos in, an image classifier out: transfer learning, both classic ways.",
    "page.models": "Models",
    "page.models.shown": "Shown on this page",
    "page.models.info": "Two at most, side by side",
    "page.models.reload": "Show the new models",
    "page.models.changed": "**New or changed models on the disk:** {names}.",
    "page.models.failed": "The current models stay: the new ones can't be loaded. The page's own output says why.",
    "page.drawn": "**Drawn pictures.** {names}: trained on pictures that a program drew, not on photos.",
    "page.random": "**Random weights.** {names}: not pretrained, so expect poor predictions.",
    "page.no_model": (
        "## No model yet\nTrain both modes, then start this page again:\n```\n{train}\n{app}\n```\n"
        "Or train a classifier on a few photos of your own right now, on the tab Teach."
    ),
    "page.no_photos": "## No photos here\nName the folder the models were trained on: `{app} --data DIR`",
    # what does not reach the page
    "security.large": "The request is too large: at most {most} MB are accepted. Send less.",
    "security.many": "Too many files at once: at most {most} are accepted. Send the rest afterwards.",
    "security.fields": "Only files can be uploaded here: send each with its file name.",
    "security.file": (
        "Only files that were uploaded to this page are opened: upload the file first, then use the path that the "
        "upload returns. Addresses, data: URLs and other paths are never opened."
    ),
    "security.host": (
        "This page can train on the computer that it runs on, so it serves that computer only: open it as localhost or "
        "127.0.0.1, or start it with --no-train to serve it under other names."
    ),
    "security.origin": (
        "Another site sent this request, and this page serves the computer that it runs on only: open it there, as "
        "localhost or 127.0.0.1."
    ),
    # modes
    "mode.frozen": "frozen: only the head was trained",
    "mode.finetune": "finetune: all weights were trained",
    # Classify
    "classify.tab": "Classify",
    "classify.photo": "Photo",
    "classify.examples": "Examples",
    "classify.crop": "Input of the network",
    "classify.crop.alt": "The square that the network is given of the photo",
    "classify.probabilities": "Probabilities",
    "classify.map": "Photo | heat map of the predicted class",
    "classify.map.gradient": "(heat map weighted by gradients: an approximation for this network)",
    "classify.neighbours": "Nearest training photos",
    "classify.like": "similar to the training photos (distance {distance}, threshold {limit})",
    "classify.neither": "Neither",
    "classify.false_alarms": (
        "(this model calls photos so far too often: {found} of {count} validation photos; more training photos help)"
    ),
    "classify.unlike": (
        "out-of-distribution: unlike all training photos (distance {distance}, threshold {limit}); don't trust the "
        "classes below"
    ),
    "classify.unknown": "not checked for out-of-distribution: too few training photos",
    "classify.bad_photo": "This file can't be used: {error}. Try a JPEG or PNG photo.",
    "classify.correct": "Wrong? Choose the true class",
    "classify.correct.info": "The photo is added to the Teach tab, where you can train a classifier of your own",
    "classify.correct.button": "Add to Teach",
    "classify.several": "Several photos at once",
    "classify.several.files": "Photos",
    "classify.several.most": "{count} photos came, at most {most} are predicted at once: send the rest afterwards.",
    "classify.several.predictions": "Predictions",
    "classify.several.table": "Predictions for all photos",
    "classify.several.csv": "Download as CSV",
    # Batches
    "batches.tab": "Batches",
    "batches.intro": (
        "A batch is what the network is given in one step; labels come from the folders' names. **train** shows photos "
        "as training augments them: cropped and, if the models were trained so, mirrored at random, differently in "
        "every epoch. **val** shows the evaluation crop and each model's prediction. Click a photo to see eight "
        "augmented versions of it."
    ),
    "batches.split": "Split",
    "batches.size": "Batch size",
    "batches.seed": "Seed",
    "batches.new": "New batch",
    "batches.grid": "{name}: {split} batch {seed}",
    "batches.is": "is: {truth}",
    "batches.draws": "Eight augmented versions of one photo",
    "batches.draw": "epoch {epoch}",
    # Report
    "report.tab": "Report",
    "report.measures": "Metrics of the models",
    "report.measure": "metric",
    "report.accuracy": "accuracy, kept epoch (95 % interval)",
    "report.cross_validated": "accuracy, cross-validated (95 % interval)",
    "report.test": "accuracy, test photos (95 % interval)",
    "report.last": "accuracy, last epoch",
    "report.f1": "F1, mean of the classes",
    "report.auc": "area under the ROC curve",
    "report.loss": "log loss, in nats",
    "report.calibration": "calibration error",
    "report.temperature": "temperature, divided into the head",
    "report.alarms": "wrongly called “neither”: validation photos",
    "report.found": "correctly called “neither”: {kind}",
    "report.zero_shot": "before any training: the starting weights' own head",
    "report.kept": "kept epoch",
    "report.chosen_on": "chosen on",
    "report.trainable": "trained weights",
    "report.seconds": "training time in seconds",
    "report.of": "{found} of {count}",
    "report.explained": (
        "An epoch chosen on val is the best of its run on the very photos it is scored on here; the last epoch was not "
        "chosen. The interval is Wilson's 95 % confidence interval."
    ),
    "report.apart": (
        "Of {count} validation photos {first_alone} are right with {first} only, {second_alone} with {second} only: "
        "{verdict} (McNemar's exact test, p = {p})."
    ),
    "report.other_classes": (
        "{names} has classes of other names than the photos ({classes}), so it is not measured on them here. Where its"
        " classes were renamed, rename the folders of the photos too."
    ),
    "report.apart.chance": "no significant difference",
    "report.apart.real": "a significant difference",
    "plots.accuracy": "Accuracy by epoch",
    "plots.loss": "Loss by epoch",
    "report.reliability": "Reliability: is 80 % confidence 80 % accuracy?",
    "report.confidence": "confidence",
    "report.right": "accuracy",
    "report.perfect": "perfect",
    "report.photos": "Learning curve: is this enough data?",
    "report.photos.x": "training photos per class",
    "report.photos.mean": "mean of random subsets",
    "report.photos.lowest": "lowest",
    "report.photos.highest": "highest",
    "report.confusion": "{name}: true classes in rows, predicted ones in columns",
    "report.confusion.hint": "Click a number to see its photos.",
    "report.true_class": "true class",
    "report.cell": "{name}: {truth} predicted as {predicted}, {count}",
    "report.errors": "{name}: errors by confidence, each with its heat map",
    "report.error": "is {truth}, predicted {predicted} {probability}",
    "report.faults": "Photos that may be wrong",
    "report.faults.info": (
        "Labels that contradict the nearest photos, photos that are there twice or in both splits, and photos that are "
        "blank, dark, blurred or tiny, found with the features of the frozen backbone. Nothing is changed."
    ),
    "report.faults.check": "Check the photos",
    "report.faults.kind": "kind",
    "report.faults.file": "file",
    "report.faults.reason": "reason",
    "report.faults.none": "Nothing was found.",
    "report.faults.no_backbone": (
        "This needs a frozen model and its photos: a fine-tuned backbone was trained on the labels it would check."
    ),
    "report.faults.progress": "checking photos",
    "report.predicting": "predicting the validation photos",
    "report.card": "{name}: model card",
    # Inside
    "inside.tab": "Inside",
    "inside.model": "Model",
    "inside.intro": (
        "How the network processes the photo of the tab Classify, in six steps. All numbers are the model's own."
    ),
    "inside.no_photo": "## No photo yet\nChoose one on the tab Classify, then come back.",
    "inside.unknown": "unknown",
    "inside.from_to": "{smallest} to {largest}",
    "inside.photo": "1 · Photo",
    "inside.photo.explanation": (
        "## A photo and its label\nNobody writes labels down: `ImageFolder` reads them from the folders' names. Sorted "
        "by name, the classes get the numbers {classes}. This number, the *class index*, is what the network is "
        "trained on and what it predicts.\n\nA `DataLoader` joins photos to a batch. Here the batch is one photo: B = "
        "1. The label is not part of the network's input."
    ),
    "inside.photo.title": "The photo",
    "inside.photo.size": "{width} × {height} pixels",
    "inside.tensor": "2 · Tensor",
    "inside.tensor.explanation": (
        "## From the photo to a tensor\n{square} A picture is stored as (H, W, C): rows, columns, colours, in whole "
        "numbers from 0 to 255. The network takes a tensor (C, H, W): channels first, in fractions from 0 to 1. To "
        "show a tensor, `tensor.permute(1, 2, 0)` makes it (H, W, C) again; the picture on the right was made so."
    ),
    "inside.tensor.crop": (
        "The photo is resized until its shorter side has {resize} pixels, and a square of {crop} × {crop} is cut from "
        "its centre."
    ),
    "inside.tensor.squash": (
        "Both sides of the photo are resized to {resize} pixels, whatever its aspect ratio, and the central {crop} × "
        "{crop} are kept."
    ),
    "inside.tensor.pad": (
        "The photo is resized until its longer side has {resize} pixels, padded with the mean colour to a square, and "
        "the central {crop} × {crop} are kept."
    ),
    "inside.tensor.title": "Photo and tensor",
    "inside.tensor.cut": "what the network sees",
    "inside.tensor.shown": "the tensor, permuted to be shown",
    "inside.tensor.picture": "picture (H, W, C)",
    "inside.tensor.tensor": "tensor (C, H, W)",
    "inside.form": "form",
    "inside.shape": "shape",
    "inside.type": "type",
    "inside.range": "values",
    "inside.middle": "middle pixel",
    "inside.normalised": "3 · Normalisation",
    "inside.normalised.explanation": (
        "## Normalisation\nFrom each channel a fixed mean is subtracted, and what is left is divided by a fixed "
        "standard deviation: (x − mean) / std. This model's numbers are in the table, and have to be the same in "
        "training and in prediction. The values now lie around 0 and spread by about 1, which makes training steady. "
        "Nothing is lost: x · std + mean gives the picture back.\n\nWhite is 0, the mean; orange is brighter, purple "
        "darker."
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
    "inside.stages.explanation": (
        "## Stage by stage\n**Transfer learning** takes over the backbone of {architecture}, all stages but the last, "
        "that was trained on other pictures (the weights here: {weights}), and gives it a new head. *Frozen* trains "
        "the head alone, *finetune* trains everything. `network.state_dict()` names all that the model is: {tensors} "
        "tensors, the parameters below and BatchNorm's running statistics."
    ),
    "inside.stages.residual": (
        "It is a **residual network** of {blocks} blocks, and each block adds what it computes to its input: x + F(x). "
        "So a block need only learn a correction, and gradients find their way through many layers."
    ),
    "inside.stages.maps": (
        "Below are the eight channels of each stage with the largest mean. Yellow is a channel's own largest value, "
        "dark is 0. Early maps still show edges and colours, and where they are; later ones are smaller, and say less "
        "where something is and more what it is."
    ),
    "inside.stages.title": "{stage}: {shown} of {count} channels, {height} × {width}",
    "inside.stages.channel": "channel {channel}, up to {largest}",
    "inside.stage": "stage",
    "inside.shape.batch": "output, the batch first",
    "inside.parameters": "parameters",
    "inside.frozen": "trained in frozen",
    "inside.finetune": "trained in finetune",
    "inside.does": "what it does",
    "inside.does.input": "the normalised photo",
    "inside.does.pooling": "one number of each channel: the features",
    "inside.does.head": "a weighted sum for each class",
    "inside.sum": "all",
    "inside.features": "5 · Features",
    "inside.features.explanation": (
        "## {count} features\nPooling makes them of the last stage's feature maps. These numbers are the head's only "
        "input: what is in the photo, no longer where. Photos of one class should have similar ones. The largest here "
        "is number {strongest}, {value}."
    ),
    "inside.features.means": "Each is the mean of one channel of the last feature map over all its places.",
    "inside.features.bars": "The features, by channel",
    "inside.features.number": "number of the feature",
    "inside.features.value": "value",
    "inside.prediction": "6 · Prediction",
    "inside.prediction.explanation": (
        "## From the features to the prediction\nFor each class the head multiplies the {count} features by weights of "
        "their own and adds them up: the **logits**, scores of any size. **Softmax** makes them probabilities: e to "
        "the power of each, divided by the sum. `torch.max(outputs, 1)` gives the largest logit and its place: {logit} "
        "at class index {index}. The prediction is **{predicted}**, with {probability}. Accuracy counts how often it "
        "equals the label: `torch.sum(predictions == labels)`."
    ),
    "inside.prediction.loss": (
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
        "Train a classifier of your own: name 2 to 10 classes, add a handful of photos to each, and press Train. The "
        "frozen backbone of **{name}** computes each photo's features once, and only a new head is trained, in "
        "seconds. Nobody else sees your photos, their features or the model, and they are deleted when you leave."
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
    "teach.encoding": "The names in the zip were read as {encoding}.",
    "teach.encoding.unsure": "The zip does not say how its names are encoded. They were read as {encoding}, which is"
    " not sure: where a class name is wrong, type it again above, or make the zip again with names in UTF-8.",
    "teach.looking": "computing features",
    "teach.learning": "training",
    "teach.corrected": "Added to “{name}” in the Teach tab (photos there now: {count}).",
    "teach.which": "Choose the true class first.",
    "teach.result": "## {accuracy} right\nof {count} photos, cross-validated (95 % interval {low} to {high}).",
    "teach.result.unknown": (
        "## Trained\nThe accuracy is unknown: cross-validation takes two photos of every class or more."
    ),
    "teach.result.no_limit": "It can't predict “neither” yet: that takes about 20 photos.",
    "teach.try": "Try it with another photo",
    "teach.try.prediction": "Prediction",
    "teach.try.neighbours": "Nearest of your photos",
    "teach.untrained": "Train it first.",
    "teach.take": "Download or share",
    "teach.take.info": (
        "The folder in the zip is a whole model: `python app.py FOLDER` shows it, timm and transformers load it. "
        "It holds no photo."
    ),
    "teach.download": "Download the model (zip)",
    "teach.repository": "Hub repository",
    "teach.repository.info": "It is made if it is not there yet.",
    "teach.token": "Your Hub token, with write access",
    "teach.token.info": "Used for this one push and kept nowhere: huggingface.co/settings/tokens",
    "teach.private": "Private",
    "teach.push": "Push to the Hub",
    "teach.pushed": "Pushed to the Hub: {address}",
    "teach.no_token": (
        "A token of your own is needed to push: create one with write access at huggingface.co/settings/tokens."
    ),
    "teach.failed": "That did not work: {error}",
    # Train
    "publish.title": "Publish the photos",
    "publish.info": (
        "Makes a data set of the Hugging Face Hub of the folder above, which others can train on. Everybody can see it"
        " unless it is private. Publish only photos that you may."
    ),
    "publish.repository.info": "An earlier version of the photos there is replaced.",
    "publish.license": "Licence",
    "publish.license.info": "As the Hub names it; empty: unknown.",
    "publish.token.info": "With permission to write. Empty: that of `hf auth login`.",
    "publish.look": "What would be published?",
    "publish.push": "Publish",
    "publish.photos": "{count} photos ({splits}), {megabytes} MB, and a card.",
    "publish.left_out": "Left out: {what}",
    "publish.positions": (
        "**{count} photos say where they were taken**, by a GPS position in their EXIF data. Remove it first to keep it"
        " private, for instance with `exiftool -gps:all= FOLDER -r`."
    ),
    "publish.pushed": "The data set is at <{address}>.",
    "train.tab": "Train",
    "train.intro": (
        "Trains on this computer, on a folder of yours; the page stays usable meanwhile. When it is done, the "
        "models shown here are replaced. Only whoever runs this page locally sees this tab."
    ),
    "train.folder": "Folder of photos",
    "train.folder.info": (
        "train/ and val/, a folder a class, or hf://datasets/user/name. Empty: the classic ants and bees; drawn: drawn"
        " ones."
    ),
    "train.recipe": "Recipe",
    "train.recipe.info": "fast: a minute or so. tutorial: the classic tutorial to the letter, many times slower.",
    "train.mode": "Mode",
    "train.start": "Train",
    "train.cancel": "Cancel",
    "train.log": "Output",
    "train.idle": "Nothing is being trained.",
    "train.running": "Training for {seconds} s: {epochs} epochs done.",
    "train.stopping": "Stopping.",
    "train.cancelled": "Stopped. The models shown are those of before.",
    "train.finished": "Done. The new models are shown.",
    "train.not_placed": (
        "Done. The previous models stay, because the new ones are worse; the output says by how much. The new ones are "
        "in {folder}."
    ),
    "train.versions": "Other versions",
    "train.versions.info": "Models that are not the current ones. They are kept until you delete them.",
    "train.restore": "Restore",
    "train.restored": "The models of {name} are restored. The previous ones are now a version.",
    "train.failed": "The training failed: {error}",
    "train.not_shown": "Done, in {folder}, but this page can't load the models: {error}",
}
