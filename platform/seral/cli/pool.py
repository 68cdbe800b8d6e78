"""Commands about pools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seral.cli.arguments import AsJson, PoolPath, Sets, pair
from seral.cli.display import show

pool_app = typer.Typer(no_args_is_help=True, help="Make, check and describe pools of speech.")

NewPool = Annotated[str, typer.Option("--out", help="The pool to make; nothing may be there yet.")]
Where = typer.Option("--where", metavar="CONDITION", help="Such as 'snr_db > 10'; repeatable, all have to hold.")


def _reader_help() -> str:
    from seral.corpora.keywords import listing

    return f"What it is: {listing()}."


@pool_app.command("import")
def pool_import(
    reader: Annotated[str, typer.Argument(help=_reader_help())],
    path: Annotated[str, typer.Argument(help="The corpus folder, or a manifest file (JSONL, CSV, Parquet).")],
    out: Annotated[str, typer.Option("--out", help="The pool to make or add to.")],
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OURS=THEIRS", help="For readers of tables: name a column, e.g. emotion=label; repeatable."
        ),
    ] = None,
    settings: Sets = None,
) -> None:
    """Import a corpus into a pool. Run it again after an interruption: it goes on where it stopped.

    Files that cannot be used end in the pool's quarantine with the reason; they never stop the import. What a reader
    takes besides the folder stands behind its name in brackets: `--set reader_options.NAME=VALUE`.

    Example: `seral pool import emodb ~/corpora/emodb --out data/pool`
    """
    from seral.options import parse
    from seral.pool.ingest import ImportOptions, import_corpus

    columns = dict(pair(item, "--column") for item in column or [])
    values = {"reader": reader, "root": path, "out": out, "columns": columns}
    show(import_corpus(parse(ImportOptions, values, settings or [])))


@pool_app.command("cut")
def pool_cut(
    root: Annotated[str, typer.Argument(help="Folder of recordings of any length.")],
    out: Annotated[str, typer.Option("--out", help="Folder for manifest.jsonl; its name becomes the corpus.")],
    settings: Sets = None,
) -> None:
    """Find the utterances of long recordings by voice activity, and list where each begins and ends.

    No audio is copied. Import the list with `seral pool import manifest OUT --out POOL`. With `--set clip_s=5` it cuts
    clips of one length instead, for the reader `folder`.

    Example: `seral pool cut recordings/ --out calls --set max_s=10`
    """
    from seral.options import parse
    from seral.pool.cut import CutOptions, cut_recordings

    typer.echo(cut_recordings(parse(CutOptions, {"root": root, "out": out}, settings or [])))


@pool_app.command("audit")
def pool_audit(
    reader: Annotated[str, typer.Argument(help=_reader_help())],
    path: Annotated[str, typer.Argument(help="The corpus folder, or a manifest file.")],
    pool: Annotated[str | None, typer.Option(help="A pool it was imported into: its quarantine is told too.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Write everything to this JSON file.")] = None,
    settings: Sets = None,
) -> None:
    """Tell what a corpus folder holds: labels without audio, audio without label, conflicts, counts, what is missing.

    No audio is decoded. A copy that looks complete but has another count than the release is remarked upon.

    Example: `seral pool audit crema-d ~/corpora/CREMA-D --set reader_options.labels=voice --out crema-d.json`
    """
    from seral.options import parse
    from seral.pool.audit import AuditOptions, audit_corpus, render

    values = {"reader": reader, "root": path, "pool": pool, "out": out}
    typer.echo(render(audit_corpus(parse(AuditOptions, values, settings or []))))


@pool_app.command("check")
def pool_check(pool: PoolPath) -> None:
    """Read every row of a pool: counts, ids, checksums, and whether the audio decodes. Exit status 1 on a problem."""
    from seral.pool.shards import check_pool

    problems = check_pool(pool)
    for problem in problems:
        typer.echo(problem)
    typer.echo(f"{pool}: {'sound' if not problems else f'{len(problems)} problems'}")
    raise typer.Exit(1 if problems else 0)


@pool_app.command("stats")
def pool_stats(
    pool: PoolPath,
    as_json: AsJson = False,
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
    """Utterances, hours, speakers, languages, quality and quarantine of a pool, by corpus.

    Example: `seral pool stats data/pool --html pool.html`, one file that holds its pictures and sounds

    What a run left out: `seral pool stats data/pool --html out.html --hear runs/calls/filtered.parquet --players 50`
    """
    from seral.pool.shards import pool_stats as stats

    if html is None:
        if hear is not None:
            raise typer.BadParameter("clips are heard on a page; give --html FILE too", param_hint="--hear")
        show(stats(pool), as_json=as_json)
        return
    from seral.options import parse
    from seral.report.pool import PoolReportOptions, write_pool_report

    values = {"pool": pool, "out": html, "gold": gold, "players": players, "seed": seed, "hear": hear}
    typer.echo(write_pool_report(parse(PoolReportOptions, values)))


@pool_app.command("erase")
def pool_erase(
    pool: PoolPath,
    speaker: Annotated[str | None, typer.Option(metavar="CORPUS/NAME", help="Every utterance of this speaker.")] = None,
    utterance: Annotated[str | None, typer.Option(metavar="ID", help="Or this utterance alone.")] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="A run, a feature cache or predictions made of the pool; repeatable."),
    ] = None,
) -> None:
    """Erase one speaker or one utterance: audio, features, gold labels, votes; in runs picks, labels and predictions.

    What stays is a tombstone in POOL/erased/: when, how many rows of which tables, and salted hashes, by which imports
    keep the erased out. Models that learnt from it are named, since weights cannot be unlearned. Interrupted, or with
    another run to clear: give the same command again. See docs/pools.md.

    Example: `seral pool erase data/pool --speaker emodb/03 --run runs/mine`
    """
    from seral.erase.erase import EraseOptions
    from seral.erase.erase import erase as run_erase
    from seral.options import parse

    values = {"pool": pool, "speaker": speaker, "utterance": utterance, "also": run or []}
    show(run_erase(parse(EraseOptions, values)))


@pool_app.command("snapshot")
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
        show(list_snapshots(pool), as_json=True)
    elif drop:
        drop_snapshot(pool, name)
        typer.echo(f"{pool}: dropped {name}")
    else:
        show(take_snapshot(pool, name))


@pool_app.command("diff")
def pool_diff(
    pool: PoolPath,
    old: Annotated[str | None, typer.Argument(help="A revision's number, or a snapshot's name.")] = None,
    new: Annotated[str | None, typer.Argument(help="Another one; none = the newest.")] = None,
    other: Annotated[str | None, typer.Option("--with", metavar="POOL", help="Compare with this pool instead.")] = None,
    out: Annotated[str | None, typer.Option(help="Parquet file for every id and what happened to it.")] = None,
    as_json: AsJson = False,
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
    show(summarise(difference), as_json=as_json)


@pool_app.command("merge")
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


@pool_app.command("filter")
def pool_filter(pool: PoolPath, out: NewPool, where: Annotated[list[str], Where]) -> None:
    """Make a pool of the utterances that fit conditions on what is known of them.

    COLUMN == != < <= > >= VALUE, or COLUMN in (A, B), joined by `and`; `== null` is unknown. An unknown value fits
    nothing else. Gold labels are no columns.

    Example: `seral pool filter data/pool --where "language == de and snr_db > 10" --out data/clean-german`
    """
    from seral.options import parse
    from seral.pool.derive import SelectOptions, select_from_pool

    show(select_from_pool(parse(SelectOptions, {"pool": pool, "out": out, "where": where})))


@pool_app.command("sample")
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


@pool_app.command("screen")
def pool_screen(
    pool: PoolPath,
    encoder: Annotated[str, typer.Option(help="A hub id, a folder, or an embedded encoder.")] = "seral-tiny",
    settings: Sets = None,
) -> None:
    """Find near-duplicates, and utterances far from all others, by the features of an encoder.

    The table is kept in POOL/screen; a run's `split.near_duplicates` may name it, and then refuses folds that have such
    a pair in two parts.

    Example: `seral pool screen data/pool --set similarity=0.97`
    """
    from seral.features.screen import ScreenOptions
    from seral.features.screen import screen_pool as screen
    from seral.options import parse

    typer.echo(screen(parse(ScreenOptions, {"pool": pool, "encoder": encoder}, settings or [])))


@pool_app.command("degrade")
def pool_degrade(
    pool: PoolPath,
    out: Annotated[str, typer.Option("--out", help="The pool to make.")],
    settings: Sets = None,
) -> None:
    """Make a noisy variant of a pool for studies: rooms, noise, level, band, codec; the ids stay the same.

    Example: `seral pool degrade data/pool --out data/noisy --set noise=data/noises --set snr_db=[5,15]`
    """
    from seral.options import parse
    from seral.pool.degrade import DegradeOptions, degrade_pool

    show(degrade_pool(parse(DegradeOptions, {"pool": pool, "out": out}, settings or [])))


@pool_app.command("generate")
def pool_generate(
    out: Annotated[Path, typer.Argument(help="Folder for the audio and its manifest.jsonl.")], settings: Sets = None
) -> None:
    """Generate a demonstration corpus: several languages and speakers, four emotions, noise, junk.

    For trying out and for tests, never for claims. Import it with `seral pool import manifest OUT --out POOL`.
    """
    from seral.options import parse
    from seral.progress import track
    from seral.synthesis.corpus import SynthesisOptions, synthesise

    options = parse(SynthesisOptions, {}, settings or [])
    with track("generating", options.utterances) as advance:
        typer.echo(synthesise(out, options, advance))
