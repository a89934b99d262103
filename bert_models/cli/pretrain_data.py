"""`pretrain-data`: text files to shards of masked examples."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bert_models.cli import bars, options, places
from bert_models.cli.running import Command, Result
from bert_models.pretraining.sentences import LAYOUTS
from bert_models.pretraining.settings import MASKINGS, PACKINGS, RECIPES, DataSettings
from tncompress.commands import told_if_full

FIELDS = {
    "packing": (click.Choice(PACKINGS), "Pairs of sentences with labels (BERT), or rows full of sentences (Lambert)."),
    "layout": (click.Choice(list(LAYOUTS)), "What a line of text is, and where documents end; see below."),
    "max_length": (int, "Tokens in a row, special ones included."),
    "masking": (click.Choice(MASKINGS), "Masks in the records, or drawn anew whenever they are read."),
    "mask_rate": (float, "Share of a row's tokens that are predicted."),
    "max_predictions": (int, "Most predicted tokens in a row."),
    "whole_words": (bool, "Mask all pieces of a word or none."),
    "duplicates": (int, "How often the text is gone through, with other masks each time."),
    "short_rate": (float, "Share of documents that are cut into shorter pairs."),
    "fill_rows": (bool, "With full_sentences: cut the last sentence of a row, so that rows are full."),
    "seed": (int, "For everything that is drawn."),
    "num_shards": (int, "Files that are written."),
    "block_bytes": (int, "About how much text is handled together."),
}


def _files(ctx: click.Context, param: click.Parameter, typed: tuple[str, ...]) -> tuple[str, ...]:
    found = typed or tuple((ctx.default_map or {}).get(param.name, ()))
    if not found:
        raise click.UsageError("give one text file or more: pretrain-data FILES... --out FOLDER --tokenizer PATH.")
    return found


@click.command("pretrain-data", cls=Command, short_help="Make shards of masked examples of text files.")
@click.argument("files", nargs=-1, required=False, callback=_files)
@click.option("--out", required=True, metavar="FOLDER", help="New folder for the shards.")
@click.option(
    "--tokenizer", required=True, metavar="PATH", help="Folder with tokenizer.json or vocab.txt, or a vocab.txt."
)
@click.option("--recipe", type=click.Choice(list(RECIPES)), default="bert", show_default=True, help="Where to start.")
@options.fields(FIELDS, "bert", RECIPES["bert"])
@click.option("--workers", default=1, show_default=True, help="Processes; the shards are the same for any number.")
@click.option("--beam", is_flag=True, help="Run as an Apache Beam pipeline (pip install 'tncompress[beam]').")
@click.option(
    "--beam-option", multiple=True, metavar="OPTION", help="For Beam, e.g. --beam-option=--runner=DataflowRunner."
)
@options.joined(*options.COMMON)
def command(files, out, tokenizer, recipe, workers, beam, beam_option, quiet, **values) -> Result:
    """Make pretraining data of text files: shards of rows of tokens, some of them masked.

    FILES are UTF-8 text. The same files and options always give the same shards, byte for byte.

    \b
    Layouts:
      sentences   a sentence in each line, an empty line between documents
      paragraphs  a paragraph in each line, an empty line between documents
      prose       an empty line between paragraphs, one document in a file
      wikitext    a paragraph in each line, documents begin with "= Title ="

    \b
    Examples:
      python -m bert_models pretrain-data corpus.txt --tokenizer vocab.txt --out data
      python -m bert_models pretrain-data wiki/*.txt --tokenizer vocab.txt --out data-512 \\
          --recipe lambert --layout wikitext --workers 8
    """
    settings = DataSettings(**{**asdict(RECIPES[recipe]), **options.given(values, FIELDS)})
    read = places.open_tokenizer(tokenizer)
    if beam_option and not beam:
        raise click.UsageError("--beam-option needs --beam.")
    info = (
        _with_beam(files, out, read, settings, beam_option)
        if beam
        else _here(files, out, read, settings, workers, bars.wanted(quiet))
    )
    if info is None:  # on a file system that only Beam reads
        return Result({"out": out, "settings": settings.to_dict()}, f"{out} is written")
    counts, shards = info["counts"], len(info["shards"])
    text = (
        f"{out}: {counts['examples']:,} examples of up to {settings.max_length} tokens in {shards} shards, "
        f"from {counts['documents']:,} documents of {counts['bytes']:,} bytes"
    )
    return Result({"out": out, "settings": info["settings"], "counts": counts, "shards": shards}, text)


def _here(files, out: str, tokenizer: Any, settings: DataSettings, workers: int, shown: bool) -> dict[str, Any]:
    from bert_models.pretraining.pipeline import write_pretraining_data

    full = told_if_full(Path(out), "While it is written the records need their room twice; nothing is left of it.")
    with bars.bar("Writing", 1, shown) as update, full:
        return write_pretraining_data(
            files,
            out,
            tokenizer,
            settings,
            workers=workers,
            progress=lambda done, total: update(done / max(total, 1), f"{done / 1e6:,.0f} MB of text"),
        )


def _with_beam(files, out: str, tokenizer: Any, settings: DataSettings, beam_options) -> dict[str, Any] | None:
    from bert_models.pretraining import beam
    from bert_models.pretraining.info import read_info

    if beam.beam is None:
        raise ImportError("--beam needs Apache Beam: pip install 'tncompress[beam]'.")
    from apache_beam.options.pipeline_options import PipelineOptions

    beam.write_pretraining_data(files, out, tokenizer, settings, options=PipelineOptions(list(beam_options)))
    return read_info(out) if Path(out).is_dir() else None
