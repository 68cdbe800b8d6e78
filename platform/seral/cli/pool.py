"""Commands about pools."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ser_models.registry import allow
from seral.cli.arguments import EncoderName, PoolPath, Sets
from seral.cli.completion import of_table
from seral.cli.configured import command_of
from seral.cli.corpus import OfReader, ReaderName, reads_corpus
from seral.cli.display import show, show_lines, show_outcome, show_rows

if TYPE_CHECKING:
    from seral.options import Options

app = typer.Typer(name="pool", no_args_is_help=True, help="Make, check and describe pools of speech.")

NewPool = Annotated[str, typer.Option("--out", help="The pool to make; nothing may be there yet.")]
Where = typer.Option("--where", metavar="CONDITION", help="Such as 'snr_db > 10'; repeatable, all have to hold.")


@command_of(app, "pool-import", cls=OfReader)
@reads_corpus
def pool_import(
    reader: ReaderName,
    path: Annotated[str, typer.Argument(help="The corpus folder, or a manifest file (JSONL, CSV, Parquet).")],
    out: Annotated[str, typer.Option("--out", help="The pool to make or add to.")],
    choices: dict[str, Any],
    settings: Sets = None,
    screen: Annotated[bool, typer.Option("--screen", help="Look for near-duplicates in the whole pool then.")] = False,
) -> tuple[Options, Callable[[Any], None]]:
    """Options of an import, whose counts are printed, and what a screening says."""
    from seral.options import parse
    from seral.pool.options import ImportOptions
    from seral.pool.screened import screen_offer
    from seral.progress import say

    allow(reader)
    values = {"reader": reader, "root": path, "out": out, **choices}
    options = parse(ImportOptions, values, settings or [])

    def present(counts: dict[str, Any]) -> None:
        summary = None
        if screen:
            from seral.features.options import ScreenOptions
            from seral.features.screen import screen_pool

            summary = screen_pool(ScreenOptions(pool=options.out, cluster=options.cluster))
        elif offer := screen_offer(options.out, new=counts["utterances"]):
            say(offer)
        show(counts | ({"screening": summary} if summary else {}))

    return options, present


@command_of(app, "features-import")
def pool_import_features(
    tables: Annotated[list[str], typer.Argument(metavar="TABLE", help="Parquet or .npz files, or folders of them.")],
    pools: Annotated[
        list[str], typer.Option("--pool", metavar="POOL", help="Whose utterances the rows are about; repeatable.")
    ],
    made_by: Annotated[str, typer.Option("--made-by", metavar="NAME", help="What computed the features.")],
    out: Annotated[str, typer.Option("--out", help="A new folder, which is then an encoder.")],
    settings: Sets = None,
) -> Options:
    """Options of an import of features."""
    from seral.features.options import ImportFeaturesOptions
    from seral.options import parse

    values = {"tables": tables, "pools": pools, "made_by": made_by, "out": out}
    return parse(ImportFeaturesOptions, values, settings or [])


@command_of(app, "cut")
def pool_cut(
    root: Annotated[str, typer.Argument(help="Folder of recordings of any length.")],
    out: Annotated[str, typer.Option("--out", help="Folder for manifest.jsonl; its name becomes the corpus.")],
    settings: Sets = None,
) -> Options:
    """Options of a cutting."""
    from seral.options import parse
    from seral.pool.options import CutOptions

    return parse(CutOptions, {"root": root, "out": out}, settings or [])


@command_of(app, "audit", cls=OfReader)
@reads_corpus
def pool_audit(
    reader: ReaderName,
    path: Annotated[str, typer.Argument(help="The corpus folder, or a manifest file.")],
    choices: dict[str, Any],
    pool: Annotated[str | None, typer.Option(help="A pool it was imported into: its quarantine is told too.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Write everything to this JSON file.")] = None,
    settings: Sets = None,
) -> tuple[Options, Callable[[Any], None]]:
    """Options of an audit, which is printed in words."""
    from seral.options import parse
    from seral.pool.audit import AuditOptions, render

    allow(reader)
    values = {"reader": reader, "root": path, "pool": pool, "out": out, **choices}
    return parse(AuditOptions, values, settings or []), lambda audit: show_lines([render(audit)], audit)


@command_of(app, "guess")
def pool_guess(
    root: Annotated[str, typer.Argument(metavar="PATH", help="The folder, or the table.")],
    audio_root: Annotated[
        str | None, typer.Option(metavar="DIR", help="The folder of a table's audio, where it is not near the table.")
    ] = None,
) -> tuple[Options, Callable[[Any], None]]:
    """Options of a guess, which is printed with its command."""
    from seral.options import parse
    from seral.pool.guess import GuessOptions, render_guess

    options = parse(GuessOptions, {"root": root, "audio_root": audio_root})
    return options, lambda guess: show_lines([render_guess(guess)], guess)


@app.command("check")
def pool_check(pool: PoolPath) -> None:
    """Read every row of a pool: counts, ids, checksums, and whether the audio decodes. Exit status 1 on a problem."""
    from seral.pool.check import check_pool

    problems = check_pool(pool)
    verdict = f"{pool}: {'sound' if not problems else f'{len(problems)} problems'}"
    show_lines([*problems, verdict], {"pool": pool, "problems": problems})
    raise typer.Exit(1 if problems else 0)


@app.command("repair")
def pool_repair(
    pool: PoolPath,
    sources: Annotated[
        list[str] | None, typer.Option("--from", metavar="POOL", help="A backup to take tables from; repeatable.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    ids: Annotated[str | None, typer.Option(metavar="FILE", help="Write the ids of what is gone, one a line.")] = None,
) -> None:
    """Make a damaged pool sound again: restore what can be, and name what is gone. Exit status 1 if anything is.

    Tables come from backups (--from) and from pools that were made of this one; nothing is deleted, damaged files are
    moved to POOL/damaged/.
    Example: `seral pool repair data/calls --from /backup/calls`
    """
    from seral import storage
    from seral.pool.repair import in_words, repair_pool

    report = repair_pool(pool, sources or [], dry_run=dry_run)
    show_lines(in_words(report, dry_run=dry_run), report)
    if ids is not None:
        storage.write_bytes(ids, "".join(f"{name}\n" for one in report["gone"] for name in one["ids"]).encode())
    raise typer.Exit(1 if report["gone"] else 0)


@app.command("stats")
def pool_stats(
    pool: PoolPath,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write a page with pictures and players.")] = None,
    gold: Annotated[bool, typer.Option("--gold", help="On the page, count the gold labels too.")] = False,
    players: Annotated[int, typer.Option(help="On the page, clips to hear at random, and half as many bad ones.")] = 8,
    hear: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE", help="Instead those a table names, such as RUN/filtered.parquet, up to --players."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other clips.")] = 0,
) -> None:
    """Show utterances, hours, speakers, languages, quality and quarantine of a pool, by corpus.

    Example: `seral pool stats data/pool --html pool.html`, one file that holds its pictures and sounds

    What a run left out: `seral pool stats data/pool --html out.html --hear runs/calls/filtered.parquet --players 50`
    """
    from seral.pool.stats import pool_stats as stats

    if html is None:
        if hear is not None:
            raise typer.BadParameter("clips are heard on a page; give --html FILE too", param_hint="--hear")
        show(stats(pool))
        return
    from seral.options import parse
    from seral.report.pool import PoolReportOptions, write_pool_report

    values = {"pool": pool, "out": html, "gold": gold, "players": players, "seed": seed, "hear": hear}
    show_outcome(write_pool_report(parse(PoolReportOptions, values)))


@command_of(app, "erase")
def pool_erase(
    pool: PoolPath,
    speaker: Annotated[str | None, typer.Option(metavar="CORPUS/NAME", help="Every utterance of this speaker.")] = None,
    utterance: Annotated[str | None, typer.Option(metavar="ID", help="Or this utterance alone.")] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="What was made of the pool and moved since: a run, predictions; repeatable."),
    ] = None,
    models: Annotated[
        str, typer.Option(metavar="name|mark|delete", help="What to do with models that learnt from the erased.")
    ] = "name",
) -> Options:
    """Options of an erasure."""
    from seral.erase.erase import EraseOptions
    from seral.options import parse

    values = {"pool": pool, "speaker": speaker, "utterance": utterance, "also": run or [], "models": models}
    return parse(EraseOptions, values)


@app.command("snapshot")
def pool_snapshot(
    pool: PoolPath,
    name: Annotated[str | None, typer.Argument(help="What to call the newest revision; none = list snapshots.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Forget this snapshot, and delete what only it held.")] = False,
) -> None:
    """Name the newest revision of a pool, so that it stays readable as POOL@NAME while the pool goes on changing.

    Example: `seral pool snapshot data/pool march`, then `pool: data/pool@march` in a run
    """
    from seral.pool.snapshots import drop_snapshot, list_snapshots, take_snapshot

    if name is None:
        show_rows(list_snapshots(pool), empty="no snapshot yet")
    elif drop:
        drop_snapshot(pool, name)
        show_lines([f"{pool}: dropped {name}"], {"pool": pool, "dropped": name})
    else:
        show(take_snapshot(pool, name))


@app.command("diff")
def pool_diff(
    pool: PoolPath,
    old: Annotated[str | None, typer.Argument(help="A revision's number, or a snapshot's name.")] = None,
    new: Annotated[str | None, typer.Argument(help="Another one; none = the newest.")] = None,
    other: Annotated[str | None, typer.Option("--with", metavar="POOL", help="Compare with this pool instead.")] = None,
    out: Annotated[str | None, typer.Option(help="Parquet file for every id and what happened to it.")] = None,
) -> None:
    """Count the utterances that came, went, or were marked as duplicates from one revision to another.

    Example: `seral pool diff data/pool 3 5 --out changes.parquet` or `seral pool diff data/pool --with data/other`
    """
    from seral.pool.snapshots import diff_pools, diff_revisions, summarise
    from seral.storage import write_table

    if (old is None) == (other is None):
        raise typer.BadParameter("give a revision to compare with, or another pool by --with")
    difference = diff_revisions(pool, old, new) if old is not None else diff_pools(pool, str(other))
    if out is not None:
        write_table(out, difference)
    show(summarise(difference))


@app.command("merge")
def pool_merge(
    pools: Annotated[list[str], typer.Argument(metavar="POOL...", help="Pools, or snapshots: POOL@NAME.")],
    out: Annotated[str, typer.Option("--out", help="The pool to make or add to.")],
) -> None:
    """Put the utterances of several pools into one. Run it again after an interruption: it goes on.

    An utterance that several hold stands in it once; the same audio under two ids is marked as a duplicate; what was
    erased from any of them stays out.

    Example: `seral pool merge data/calls data/radio --out data/all`
    """
    from seral.pool.derive import merge_pools

    show(merge_pools(pools, out))


@app.command("filter")
def pool_filter(pool: PoolPath, out: NewPool, where: Annotated[list[str], Where]) -> None:
    """Make a pool of the utterances that fit conditions on what is known of them.

    COLUMN == != < <= > >= VALUE, or COLUMN in (A, B), joined by `and`; `== null` is unknown. An unknown value fits
    nothing else. Gold labels are no columns.

    Example: `seral pool filter data/pool --where "language == de and snr_db > 10" --out data/clean-german`
    """
    from seral.options import parse
    from seral.pool.derive import SelectOptions, select_from_pool

    show(select_from_pool(parse(SelectOptions, {"pool": pool, "out": out, "where": where})))


@app.command("sample")
def pool_sample(
    pool: PoolPath,
    out: NewPool,
    count: Annotated[int | None, typer.Option(help="How many utterances to draw.")] = None,
    hours: Annotated[float | None, typer.Option(help="Or how many hours.")] = None,
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="Keep the share of every value of this.")] = None,
    where: Annotated[list[str] | None, Where] = None,
    seed: Annotated[int, typer.Option(help="Another seed, another draw.")] = 0,
) -> None:
    """Make a pool of utterances drawn at random, duplicates aside; the same seed draws the same.

    Example: `seral pool sample data/pool --hours 2 --by language --out data/two-hours`
    """
    from seral.options import parse
    from seral.pool.derive import SelectOptions, select_from_pool

    if (count is None) == (hours is None):
        raise typer.BadParameter("give --count or --hours, one of the two")
    values = {"pool": pool, "out": out, "count": count, "hours": hours, "by": by, "where": where or [], "seed": seed}
    show(select_from_pool(parse(SelectOptions, values)))


@command_of(app, "screen")
def pool_screen(
    pool: PoolPath,
    encoder: EncoderName = "seral-tiny",
    settings: Sets = None,
) -> Options:
    """Options of a screening."""
    from seral.features.options import ScreenOptions
    from seral.options import parse

    return parse(ScreenOptions, {"pool": pool, "encoder": encoder}, settings or [])


@command_of(app, "degrade")
def pool_degrade(
    pool: PoolPath,
    out: Annotated[str, typer.Option("--out", help="The pool to make.")],
    settings: Sets = None,
) -> Options:
    """Options of a noisy pool."""
    from seral.options import parse
    from seral.pool.options import DegradeOptions

    return parse(DegradeOptions, {"pool": pool, "out": out}, settings or [])


@command_of(app, "pool-export")
def pool_export(
    pool: PoolPath,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="hf, webdataset, lhotse, kaldi, audformat or audiofolder.",
            autocompletion=of_table("format"),
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="The folder to make; nothing may be there yet.")],
    labels: Annotated[
        str | None, typer.Option(help="A run or a table whose labels go instead of the gold ones.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="The licence of the speech, such as CC-BY-4.0.")] = None,
    settings: Sets = None,
) -> Options:
    """Options of an export."""
    from seral.exports.options import ExportOptions
    from seral.options import parse

    values = {"pool": pool, "format": format, "out": out, "labels": labels, "licence": licence}
    return parse(ExportOptions, values, settings or [])


@command_of(app, "generate")
def pool_generate(
    out: Annotated[str, typer.Argument(help="Folder for the audio and its manifest.jsonl.")], settings: Sets = None
) -> Options:
    """Options of a made-up corpus."""
    from seral.options import parse
    from seral.synthesis.generate import GenerateOptions

    return parse(GenerateOptions, {"out": out}, settings or [])
