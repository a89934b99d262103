"""The students of `finetune_small.py`: compressed, recovered or not, kept in a folder; and the data of its tasks."""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import minilm
import numpy as np
import recover as recovery

TASKS = ("sst2", "cola", "stsb")
STARTS = ("fitted", "recovered", "random")  # and "random" is recovered too
STUDENTS = {  # form, fraction of the kernels that stays, learning rate of recovery
    "low_rank 50 %": ("low_rank", 0.5, 3e-4),
    "expand_condense 50 %": ("expand_condense", 0.5, 5e-4),
    "allocated 50 %": ("allocated", 0.5, 3e-4),
    "low_rank 28 %": ("low_rank", 0.28, 3e-4),
    "expand_condense 28 %": ("expand_condense", 0.28, 5e-4),
    "allocated 28 %": ("allocated", 0.28, 3e-4),
}
RANDOM_RATE = 1e-3  # of recovery from random kernels
CALIBRATION = 3000  # sentences
PER_TASK = 5000  # sentences of each task to recover with


class Maker:
    """Makes students, or takes them from the cache, with what is to be known of them."""

    def __init__(self, args: argparse.Namespace, encoder, tokenizer, sentences: list[str]):
        self.args, self.encoder, self.tokenizer, self.sentences = args, encoder, tokenizer, sentences
        self._moments = None
        self._fitted = ("", None)

    def student(self, name: str, start: str):
        """The student, and a dict about it."""
        import keras

        if name == "dense":
            return self.encoder, {"params": self.encoder.count_params(), "kept": 1.0, "recovery_seconds": 0.0}
        place = self.args.cache and Path(self.args.cache, f"{name} {start}".replace(" ", "_").replace("_%", ""))
        if place and (about := place.with_suffix(".json")).is_file():
            return keras.saving.load_model(place.with_suffix(".keras")), json.loads(about.read_text())
        student, about = self.made(name, start)
        if place:
            place.parent.mkdir(parents=True, exist_ok=True)
            student.save(place.with_suffix(".keras"))
            place.with_suffix(".json").write_text(json.dumps(about))
        return student, about

    def made(self, name: str, start: str):
        """Fitted to what the layers do to sentence embeddings, then recovered or not."""
        import tncompress

        small, rate = self.fitted(name), STUDENTS[name][2]
        kept, begun = tncompress.report(small).keep, time.process_time()
        if start == "random":
            small, rate = with_random_kernels(small, seed=0), RANDOM_RATE
        if start != "fitted":
            small = tncompress.recover(
                small,
                self.encoder,
                minilm.batches(self.tokenizer, self.sentences, 32),
                objective=minilm.sentence_embedding,
                learning_rate=rate,
                epochs=9,
                minutes=self.args.minutes,
                dtype=self.args.dtype,
                clock=time.process_time,
            )
        seconds = time.process_time() - begun if start != "fitted" else 0.0
        return small, {"params": small.count_params(), "kept": kept, "recovery_seconds": seconds}

    def fitted(self, name: str):
        """The student as it was fitted; the last one is kept."""
        if self._fitted[0] != name:
            self._fitted = (name, compressed(self.encoder, name, self.moments()))
        return self._fitted[1]

    def moments(self):
        """What all students are fitted to, gathered once."""
        import tncompress

        if self._moments is None:
            batches = minilm.batches(self.tokenizer, self.sentences[:CALIBRATION])
            paths = kernels(self.encoder)
            self._moments = tncompress.calibrate(self.encoder, paths, batches, objective=minilm.sentence_embedding)
        return self._moments


def kernels(model) -> list[str]:
    """Paths of the kernels that are compressed."""
    import tncompress

    return [site.path for site in tncompress.find_sites(model, "feed_forward") if not site.reason]


def compressed(model, name: str, moments):
    """An encoder, or a model with one, with the networks of a student."""
    import tncompress
    from tncompress.forms import expand_condense

    form, keep, _ = STUDENTS[name]
    forms = {"expand_condense": expand_condense.form(blocks=6), "allocated": ("narrow", "low_rank")}
    return tncompress.replace_dense(
        model,
        keep,
        form=forms.get(form, form),
        include="feed_forward",
        calibration=moments,
        allocation="global" if form == "allocated" else "uniform",
    )


def with_random_kernels(student, seed: int):
    """A copy with everything but the biases of its compressed layers drawn as for a new model."""
    import keras

    import tncompress
    from tncompress.conversion.surgery import copy_model
    from tncompress.conversion.walking import locate

    small = copy_model(student)
    keras.utils.set_random_seed(seed)
    paths = [row.layer for row in tncompress.report(student).replaced]
    for layer in locate(small, paths).values():
        fresh = type(layer).from_config(layer.get_config())
        fresh.build((None, layer.spec.in_dim if hasattr(layer, "spec") else layer.kernel.shape[0]))
        for variable, drawn in zip(layer.trainable_variables, fresh.trainable_variables, strict=True):
            if not variable.name.endswith("bias"):
                variable.assign(drawn)
    return small


# -- data ------------------------------------------------------------------------------------------


def task_data(name: str, args: argparse.Namespace) -> dict[str, list]:
    """Split -> examples, from files in the layouts of their sources."""
    from bert_models.finetuning.reading import read_task
    from bert_models.finetuning.tasks import TASKS, Example

    folder = Path(getattr(args, name))
    if name == "stsb":
        files = {split: folder / f"stsb-en-{split}.csv" for split in ("train", "dev")}
        return {split: [Example(*pair) for pair in minilm.read_pairs(str(file))] for split, file in files.items()}
    layouts = {
        "sst2": {"columns": ("sentence", "label")},
        "cola": {"splits": {split: f"in_domain_{split}.tsv" for split in ("train", "dev")}},
    }
    return read_task(replace(TASKS[name], **layouts[name]), folder)


def unlabelled(splits: dict[str, dict]) -> list[str]:
    """Sentences of the training parts, mixed, each once, none of which is in a dev part."""
    held_back = {recovery.normal(text) for data in splits.values() for text in texts_of(data["dev"])}
    draw = np.random.default_rng(0)
    found = [text for data in splits.values() for text in draw.permutation(texts_of(data["train"]))[:PER_TASK].tolist()]
    sentences = list({recovery.normal(text): text for text in found if recovery.normal(text) not in held_back}.values())
    return [sentences[i] for i in draw.permutation(len(sentences))]


def texts_of(examples: list) -> list[str]:
    """First and second texts."""
    return [text for example in examples for text in (example.first, example.second) if text is not None]
