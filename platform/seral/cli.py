"""The command line: the verbs of `jobs/` for a person at a terminal. Holds no logic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seral.errors import SeralError

SUMMARY = """Active learning for speech emotion recognition, on Ray.

**pool** imports speech, **loop** decides what deserves a label and trains on the answers, **report** shows what it was
worth, **predict** uses the model. **pretrain** adapts an encoder, **distil** makes a small
one of it; **select** picks what to label next without a loop, by one of the **strategies**;
**compare**, **two-stage** and **local-attributes** are studies of how to train, **layers** looks into an encoder;
**sweep** looks for the best options of a training; **jobs** sends any of it to a cluster.
"""
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help=SUMMARY,
)
pool_app = typer.Typer(no_args_is_help=True, help="Make, check and describe pools of speech.")
loop_app = typer.Typer(no_args_is_help=True, help="Run and watch the active-learning loop.")
app.add_typer(pool_app, name="pool")
app.add_typer(loop_app, name="loop")
layers_app = typer.Typer(no_args_is_help=True, help="Look into the layers of an encoder.")
app.add_typer(layers_app, name="layers")
sweep_app = typer.Typer(no_args_is_help=True, help="Look for the best options of a training with Ray Tune.")
app.add_typer(sweep_app, name="sweep")
jobs_app = typer.Typer(no_args_is_help=True, help="Send job files to a Ray cluster, and watch them there.")
app.add_typer(jobs_app, name="jobs")

JobName = Annotated[str, typer.Argument(metavar="NAME", help="The submission, as `seral jobs list` names it.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="The cluster's job server, http://HEAD:8265. Else RAY_ADDRESS, or the cluster of this machine.",
        envvar="RAY_API_SERVER_ADDRESS",
    ),
]
PoolPath = Annotated[str, typer.Argument(metavar="POOL", help="The pool: a folder or an object-store address.")]
RunPath = Annotated[str, typer.Argument(metavar="RUN", help="The run folder.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one option; repeatable.")]
StudyPath = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="YAML file of the study; `python jobs/NAME.py --help` lists options.")
]
NewPool = Annotated[str, typer.Option("--out", help="The pool to make; nothing may be there yet.")]
Where = typer.Option("--where", metavar="CONDITION", help="Such as 'snr_db > 10'; repeatable, all have to hold.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Run the command line; a seral error is one clear message and exit status 1."""
    try:
        app()
    except Exception as raised:
        error = getattr(raised, "cause", None) or raised  # Ray wraps what its workers raise
        if not isinstance(error, SeralError):
            raise
        Console(stderr=True, highlight=False).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        raise SystemExit(1) from None


def _reader_help() -> str:
    from seral.pool.readers.keywords import listing

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

    columns = dict(_pair(item, "--column") for item in column or [])
    values = {"reader": reader, "root": path, "out": out, "columns": columns}
    _show(import_corpus(parse(ImportOptions, values, settings or [])))


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
    seed: Annotated[int, typer.Option(help="Another seed, other clips.")] = 0,
) -> None:
    """Utterances, hours, speakers, languages, quality and quarantine of a pool, by corpus.

    Example: `seral pool stats data/pool --html pool.html`, one file that holds its pictures and sounds
    """
    from seral.pool.shards import pool_stats as stats

    if html is None:
        _show(stats(pool), as_json=as_json)
        return
    from seral.options import parse
    from seral.report.pool import PoolReportOptions, write_pool_report

    values = {"pool": pool, "out": html, "gold": gold, "players": players, "seed": seed}
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
    from seral.erase import EraseOptions
    from seral.erase import erase as run_erase
    from seral.options import parse

    values = {"pool": pool, "speaker": speaker, "utterance": utterance, "also": run or []}
    _show(run_erase(parse(EraseOptions, values)))


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
        _show(list_snapshots(pool), as_json=True)
    elif drop:
        drop_snapshot(pool, name)
        typer.echo(f"{pool}: dropped {name}")
    else:
        _show(take_snapshot(pool, name))


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
    _show(summarise(difference), as_json=as_json)


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

    _show(merge_pools(pools, out))


@pool_app.command("filter")
def pool_filter(pool: PoolPath, out: NewPool, where: Annotated[list[str], Where]) -> None:
    """Make a pool of the utterances that fit conditions on what is known of them.

    COLUMN == != < <= > >= VALUE, or COLUMN in (A, B), joined by `and`; `== null` is unknown. An unknown value fits
    nothing else. Gold labels are no columns.

    Example: `seral pool filter data/pool --where "language == de and snr_db > 10" --out data/clean-german`
    """
    from seral.options import parse
    from seral.pool.derive import SelectOptions, select_from_pool

    _show(select_from_pool(parse(SelectOptions, {"pool": pool, "out": out, "where": where})))


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
    _show(select_from_pool(parse(SelectOptions, values)))


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
    from seral.options import parse
    from seral.screen import ScreenOptions
    from seral.screen import screen_pool as screen

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

    _show(degrade_pool(parse(DegradeOptions, {"pool": pool, "out": out}, settings or [])))


@pool_app.command("generate")
def pool_generate(
    out: Annotated[Path, typer.Argument(help="Folder for the audio and its manifest.jsonl.")], settings: Sets = None
) -> None:
    """Generate a demonstration corpus: several languages and speakers, four emotions, noise, junk.

    For trying out and for tests, never for claims. Import it with `seral pool import manifest OUT --out POOL`.
    """
    from seral.options import parse
    from seral.pool.synthesis import SynthesisOptions, synthesise
    from seral.progress import track

    options = parse(SynthesisOptions, {}, settings or [])
    with track("generating", options.utterances) as advance:
        typer.echo(synthesise(out, options, advance))


@loop_app.command("run")
def loop_run(
    config: Annotated[Path, typer.Argument(help="YAML file of the run; `--options` lists what may stand in it.")],
    settings: Sets = None,
) -> None:
    """Run the main job: features, then rounds of select, label, train and score, beside a random arm.

    Run it again after an interruption: it resumes after the last complete round and ends in the same numbers.

    Example: `seral loop run jobs/configs/emodb-lora.yaml --set seeds=[0]`
    """
    from seral.active.loop import LoopOptions, run_loop
    from seral.options import load
    from seral.report import write_run_report

    run = run_loop(load(LoopOptions, config, settings or []))
    typer.echo(f"report: {write_run_report(run)}")


@loop_app.command("options")
def loop_options() -> None:
    """List every option of `loop run` with its default and meaning."""
    from seral.active.loop import LoopOptions
    from seral.options import describe

    typer.echo(describe(LoopOptions))


@loop_app.command("status")
def loop_status(run: RunPath, as_json: AsJson = False) -> None:
    """Rounds done, labels used and UAR on dev of every trajectory of a run."""
    from seral.active.loop import loop_status as status

    rows = status(run)
    if as_json or not rows:
        _show(rows, as_json=True)
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)


@app.command()
def pretrain(
    pool: PoolPath,
    out: Annotated[str, typer.Option("--out", help="Folder of the result: the encoder is in `encoder/`.")],
    encoder: Annotated[str, typer.Option(help="A hub id, a folder, or an embedded encoder.")] = "seral-tiny",
    settings: Sets = None,
) -> None:
    """Adapt an encoder to the speech of a pool without labels (TAPT). Run it again: it goes on where it stopped.

    The objective is the encoder's own: contrastive for wav2vec 2.0, masked prediction of clusters for all others.
    `tapt.json` and `tapt.png` show how it went. `--set fold=0` hears the training part of a fold only.

    Example: `seral pretrain data/pool --encoder facebook/hubert-base-ls960 --out runs/tapt --set tapt.steps=500`
    """
    from seral.options import parse
    from seral.train.tapt import TaptJobOptions
    from seral.train.tapt import pretrain as run_pretrain

    typer.echo(run_pretrain(parse(TaptJobOptions, {"pool": pool, "out": out, "encoder": encoder}, settings or [])))


@app.command()
def distil(
    pool: Annotated[list[str], typer.Argument(metavar="POOL", help="Pools of speech; no label is read.")],
    teacher: Annotated[str, typer.Option(help="A hub id or a folder of an encoder.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the result: the student is in `encoder/`.")],
    layers: Annotated[int, typer.Option(min=1, help="Depth of the student; it starts as its teacher's bottom.")] = 2,
    settings: Sets = None,
) -> None:
    """Make a small encoder from a large one (DistilHuBERT). Run it again: it goes on where it stopped.

    The student learns what the teacher makes of the speech, layer by layer. `distil.json` and `distil.png` show how it
    went, `python jobs/probe.py` what the student is worth.

    Example: `seral distil data/pool --teacher microsoft/wavlm-base-plus --layers 4 --out runs/student`
    """
    from seral.options import parse
    from seral.train.distill import DistilOptions
    from seral.train.distill import distil as run_distil

    values = {"pools": pool, "teacher": teacher, "out": out, "layers": layers}
    typer.echo(run_distil(parse(DistilOptions, values, settings or [])))


@app.command()
def train(config: StudyPath, settings: Sets = None) -> None:
    """Train on all labels of a pool: a model for every fold and seed, tested on speakers it has not heard.

    The options are those of `seral loop` without strategy and budget. A training that is run again computes what is
    missing; `seral predict RUN` takes its model with the best dev score.

    Example: `seral train run.yaml --set finetune.adapter=lora --set folds=[0]`
    """
    from seral.options import load
    from seral.train.supervised import run_train
    from seral.train.training import TrainingOptions

    typer.echo(run_train(load(TrainingOptions, config, settings or [])))


@app.command()
def compare(config: StudyPath, settings: Sets = None) -> None:
    """Compare variants of training (adapters, pretraining, shares of the labels) on the same folds and seeds.

    Prints the table and writes it to the run folder as Markdown and CSV. Run it again: it goes on where it stopped.

    Example: `seral compare jobs/configs/adapters-emodb.yaml --set seeds=[0]`
    """
    from seral.options import load
    from seral.train.compare import CompareOptions, run_compare

    typer.echo(run_compare(load(CompareOptions, config, settings or [])))


@app.command()
def select(
    features: Annotated[
        str, typer.Argument(help="Folder of Parquet files: `utterance_id` and `embedding`, or `mean`.")
    ],
    out: Annotated[str, typer.Option(help="Parquet file of the picks, in order.")],
    count: Annotated[int | None, typer.Option(help="How many utterances to pick.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Or how many minutes of an annotator to spend.")] = None,
    strategy: Annotated[str, typer.Option(help="By which strategy: see `seral strategies`.")] = "auto",
    predictions: Annotated[str | None, typer.Option(help="Class probabilities `p_<class>`: file or folder.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A pool's `utterances` folder: speakers, quality.")] = None,
    labelled: Annotated[str | None, typer.Option(help="What is labelled already: file or folder.")] = None,
    parts: Annotated[int, typer.Option(help="Processes to keep the features in, at most one a file.")] = 1,
    settings: Sets = None,
) -> None:
    """Pick what to label next from Parquet files, on one machine or many, outside a loop.

    The picks do not depend on the order of the files, nor on how many parts they are kept in, but for strategies that
    cluster the whole pool (k_means, alps, typiclust, prob_cover, and auto without predictions): in parts, theirs are
    merged, and `exact` says so.

    Example: `seral select features/ --predictions p.parquet --strategy badge --count 500 --out picks.parquet --set
    'strategy.wrappers=[{name: quota, by: speaker, share: 0.05}]' --metadata data/pool/utterances`
    """
    from seral.active.batch import BatchOptions, run_batch
    from seral.options import parse

    source = {"features": features, "predictions": predictions, "metadata": metadata, "labelled": labelled}
    values: dict[str, Any] = {"source": source, "strategy": {"name": strategy}, "out": out, "parts": parts}
    values |= {name: value for name, value in {"count": count, "minutes": minutes}.items() if value is not None}
    _show(run_batch(parse(BatchOptions, values, settings or [])))


@app.command()
def strategies() -> None:
    """List every strategy and wrapper with its options and their defaults."""
    from seral.active.selection import describe_strategies

    for line in describe_strategies():
        typer.echo(line)


@app.command()
def protocols() -> None:
    """List the named protocols: corpora, classes or dimensions, and how speakers are kept apart.

    A run takes one by `protocol: emodb-7c-loso@v1` in the place of corpora, classes, class_map and split.
    """
    from seral.protocols import PROTOCOLS

    for name, protocol in PROTOCOLS.items():
        typer.echo(f"{name:28s} {protocol}")


@app.command("compare-strategies")
def compare_strategies(config: StudyPath, settings: Sets = None) -> None:
    """Learning curves of every strategy on frozen features, many seeds, on clean speech or with junk mixed in.

    Prints UAR at every budget and the gain on random choice. Run it again: it goes on where it stopped.

    Example: `seral compare-strategies jobs/configs/strategies.yaml --set corpora=[emodb]`
    """
    from seral.active.study import StrategyStudyOptions, run_strategy_study
    from seral.options import load

    typer.echo(run_strategy_study(load(StrategyStudyOptions, config, settings or [])))


@app.command("two-stage")
def two_stage(config: StudyPath, settings: Sets = None) -> None:
    """Adapt from acted to natural speech in two stages, beside source only, target only and joint training.

    Example: `seral two-stage jobs/configs/two-stage-urdu.yaml`
    """
    from seral.options import load
    from seral.train.two_stage import TwoStageOptions, run_two_stage

    typer.echo(run_two_stage(load(TwoStageOptions, config, settings or [])))


@app.command("local-attributes")
def local_attributes(config: StudyPath, settings: Sets = None) -> None:
    """Train the local-attribute adapter without labels, fine-tune it, and compare it with each of its ablations.

    Example: `seral local-attributes jobs/configs/local-attributes-emodb.yaml`
    """
    from seral.options import load
    from seral.train.local_attributes_study import LocalAttributesOptions, run_local_attributes

    typer.echo(run_local_attributes(load(LocalAttributesOptions, config, settings or [])))


@sweep_app.command("run")
def sweep_run(config: StudyPath, settings: Sets = None) -> None:
    """Try points of a space of options side by side, stop the worse ones early, test the best; resumes after a kill.

    Example: `seral sweep run jobs/configs/sweep-heads.yaml --set trials=50`
    """
    from seral.options import load
    from seral.sweep.plan import SweepOptions
    from seral.sweep.run import run_sweep

    typer.echo(run_sweep(load(SweepOptions, config, settings or [])))


@sweep_app.command("best")
def sweep_best(
    run: Annotated[str, typer.Argument(metavar="SWEEP", help="The folder of the sweep.")],
    as_config: Annotated[Path | None, typer.Option(help="Write the training at the best point to this file.")] = None,
) -> None:
    """Show the training at the best point so far, as `seral loop run` and `seral sweep run` take it.

    Example: `seral sweep best runs/sweep-heads --as-config run.yaml; seral loop run run.yaml`
    """
    from seral.sweep.run import best_config

    text = best_config(run)
    if as_config is None:
        typer.echo(text, nl=False)
    else:
        as_config.write_text(text, encoding="utf-8")
        typer.echo(f"{as_config}: seral loop run {as_config}")


@jobs_app.command("submit")
def jobs_submit(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A file in jobs/, without .py: loop, sweep, features, ...")],
    config: Annotated[Path | None, typer.Option(help="YAML file of its options, on this machine.")] = None,
    settings: Sets = None,
    address: Address = None,
    wait: Annotated[bool, typer.Option(help="Print what it prints until it has ended.")] = True,
    again: Annotated[bool, typer.Option(help="Submit although this run has come to its end.")] = False,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Environment variable of the job; repeatable.")
    ] = None,
    cpus: Annotated[
        float | None, typer.Option(help="CPUs of the job's own process, which may then leave the head.")
    ] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs of the job's own process.")] = None,
    memory_gb: Annotated[float | None, typer.Option(help="Memory of the job's own process.")] = None,
    folder: Annotated[Path, typer.Option(help="The job files: yours, or those of seral's repository.")] = Path("jobs"),
    python: Annotated[str, typer.Option(help="The interpreter on the cluster.")] = "python",
) -> None:
    """Send a job file with its options to a cluster, and follow it to its end; exit status 0 if that was good.

    The options are checked here first. The code of this seral and the folder of job files travel along, so the cluster
    needs seral's dependencies, not seral. Submitting a run twice is harmless: it is followed, not started again; one
    that failed or was stopped is submitted anew, and resumes. Interrupting this command leaves the job running.

    Example: `seral jobs submit loop --config jobs/configs/emodb-frozen.yaml --set pool=s3://speech/pool`
    """
    from seral.jobs.submit import Jobs, SubmitOptions
    from seral.progress import say

    options = SubmitOptions(
        job=job,
        config=None if config is None else str(config),
        overrides=settings or [],
        folder=str(folder),
        cpus=cpus,
        gpus=gpus,
        memory_gb=memory_gb,
        env=dict(_pair(item, "--env") for item in env or []),
        python=python,
        again=again,
    )
    jobs = Jobs(address)
    submission = jobs.submit(options)
    say(
        f"{submission.name}: {'submitted' if submission.is_new else submission.state.lower() + ', not submitted again'}"
    )
    if not wait:
        typer.echo(submission.name)
        return
    _follow(jobs, submission.name)


@jobs_app.command("manifest")
def jobs_manifest(
    job: Annotated[str, typer.Argument(metavar="JOB", help="A file in jobs/, without .py.")],
    config: Annotated[Path | None, typer.Option(help="YAML file of its options.")] = None,
    settings: Sets = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", metavar="KEY=VALUE", help="The cluster: image=..., workers=4, ...; repeatable."),
    ] = None,
    options: Annotated[bool, typer.Option("--options", help="List what `--on` takes, and end.")] = False,
) -> None:
    """Print a job as manifests for Kubernetes with the KubeRay operator: its options, and a RayJob with its cluster.

    Example: `seral jobs manifest loop --config run.yaml --on image=me/seral:1 --on claim=speech | kubectl apply -f -`
    """
    from seral.jobs.manifest import ManifestOptions, manifest
    from seral.options import describe, parse

    if options:
        typer.echo(describe(ManifestOptions))
        return
    values = {"job": job, "config": None if config is None else str(config), "overrides": settings or []}
    typer.echo(manifest(parse(ManifestOptions, values, on or [])), nl=False)


def _follow(jobs: Any, name: str) -> None:
    from seral.jobs.submit import exit_code
    from seral.progress import say

    try:
        status = jobs.follow(name, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        say(f"\n{name} goes on; `seral jobs logs {name} --follow` to see more, `seral jobs stop {name}` to end it")
        raise typer.Exit(130) from None
    say(f"{name}: {status['state'].lower()} after {status['seconds']} s. {status['message']}".strip())
    raise typer.Exit(exit_code(status))


@jobs_app.command("status")
def jobs_status(name: JobName, address: Address = None, as_json: AsJson = False) -> None:
    """State, run, time and last message of a submission. Exit status 1 if it ended badly."""
    from seral.jobs.submit import Jobs

    status = Jobs(address).status(name)
    _show(status, as_json=as_json)
    raise typer.Exit(1 if status["state"] in ("FAILED", "STOPPED") else 0)


@jobs_app.command("logs")
def jobs_logs(
    name: JobName,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
) -> None:
    """What a submission has printed; with `--follow` until its end, whose exit status it returns."""
    from seral.jobs.submit import Jobs

    jobs = Jobs(address)
    if follow:
        _follow(jobs, name)
    typer.echo(jobs.logs(name), nl=False)


@jobs_app.command("stop")
def jobs_stop(name: JobName, address: Address = None) -> None:
    """End a submission and all its workers. What is complete of its run stays: submit it again, and it resumes."""
    from seral.jobs.submit import Jobs

    typer.echo(f"{name}: {Jobs(address).stop(name).lower()}")


@jobs_app.command("list")
def jobs_list(address: Address = None, as_json: AsJson = False) -> None:
    """All submissions the cluster remembers, the newest first."""
    from seral.jobs.submit import Jobs

    found = Jobs(address).all()
    if as_json:
        _show(found, as_json=True)
        return
    table = Table(box=None, pad_edge=False)
    columns = ("name", "state", "started", "seconds", "run")
    for name in columns:
        table.add_column(name, no_wrap=name != "run", overflow="fold")
    for job in found:
        table.add_row(*(str(job[name] or "") for name in columns))
    Console().print(table if found else "nothing was submitted yet")


@layers_app.command("relevance")
def layers_relevance(config: StudyPath, settings: Sets = None) -> None:
    """What every hidden state knows of emotions and dimensions: learned weights, single states, truncated encoders.

    Prints the centres of mass; `relevance.png` and `relevance.csv` in the run folder show the layers.

    Example: `seral layers relevance jobs/configs/relevance-whisper.yaml --set corpora=[emodb]`
    """
    from seral.options import load
    from seral.train.layer_relevance import RelevanceOptions, run_relevance

    typer.echo(run_relevance(load(RelevanceOptions, config, settings or [])))


@layers_app.command("probe")
def layers_probe(
    pool: PoolPath,
    classes: Annotated[str, typer.Option(help="Emotions to tell apart, joined by commas.")],
    encoder: Annotated[
        list[str] | None, typer.Option(help="A hub id, a folder, or an embedded encoder; repeatable.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder for the table and a picture.")] = None,
    settings: Sets = None,
) -> None:
    """What encoders are worth: a linear probe of every hidden state on unseen speakers, beside log-mel statistics.

    Prints UAR, size and speed of each encoder and of its network with untrained weights.

    Example: `seral layers probe data/pool --classes anger,neutral,sadness --encoder runs/student/encoder --out runs/p`
    """
    from seral.options import parse
    from seral.train.layer_probe import ProbeOptions, probe_layers

    values = {"pool": pool, "classes": classes.split(","), "encoders": encoder or ["seral-tiny"], "out": out}
    typer.echo(probe_layers(parse(ProbeOptions, values, settings or [])))


@layers_app.command("similarity")
def layers_similarity(
    pool: PoolPath,
    out: Annotated[str, typer.Option("--out", help="Folder of the table and the heat map.")],
    encoder: Annotated[str, typer.Option(help="A hub id, a folder, or an embedded encoder.")] = "seral-tiny",
    settings: Sets = None,
) -> None:
    """How alike every hidden state is in the languages (or corpora) of a pool, label-free by default.

    Prints the similarities, larger is more alike; `similarity.png` is a heat map, `similarity.csv` the table.

    Example: `seral layers similarity data/pool --out runs/similarity --set by=corpus --set measures=[coral,mmd]`
    """
    from seral.options import parse
    from seral.train.layer_similarity import SimilarityOptions, compare_layers

    typer.echo(compare_layers(parse(SimilarityOptions, {"pool": pool, "out": out, "encoder": encoder}, settings or [])))


@layers_app.command("anchor")
def layers_anchor(config: StudyPath, settings: Sets = None) -> None:
    """Carry a labelled language over to an unlabelled one, anchored in the layers that are alike in both.

    Prints UAR of every anchor set for every pair of languages, beside source only and the target's own labels.

    Example: `seral layers anchor jobs/configs/anchors-whisper.yaml --set groups=[en,de]`
    """
    from seral.options import load
    from seral.train.anchoring import TransferOptions, run_transfer

    typer.echo(run_transfer(load(TransferOptions, config, settings or [])))


@app.command()
def report(run: RunPath) -> None:
    """Write the report of a run: one HTML file, with the figures as PNG and the tables as CSV beside it."""
    from seral.report import write_run_report

    typer.echo(write_run_report(run))


@app.command()
def predict(
    run: RunPath,
    source: Annotated[list[str], typer.Argument(metavar="POOL_OR_FILES", help="A pool, audio files, or folders.")],
    out: Annotated[str, typer.Option("--out", help="Parquet file to write.")],
    trajectory: Annotated[
        str | None, typer.Option(help="Which trajectory's model; default: the best on dev among the strategy's.")
    ] = None,
    settings: Sets = None,
) -> None:
    """Predict emotions with the model of a run, for a whole pool or for files.

    Files that cannot be read are named and get a row with an error instead of a prediction.
    """
    from seral.infer import PredictOptions
    from seral.infer import predict as run_predict
    from seral.options import parse

    values = {"run": run, "source": source, "out": out, "trajectory": trajectory}
    _show(run_predict(parse(PredictOptions, values, settings or [])))


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(help="A run's YAML file, to check what it needs.")] = None,
) -> None:
    """Check versions, Ray, devices, codecs, storage, and that the encoder loads and its adapters learn."""
    from seral.doctor import examine

    ok = True
    for finding in examine(config):
        ok = ok and finding.ok
        typer.echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.subject:<22} {finding.detail}")
    raise typer.Exit(0 if ok else 1)


@app.command()
def demo(out: Annotated[Path, typer.Option(help="Folder for the generated pool, the run and the report.")]) -> None:
    """Generate a small multilingual pool and run the main job on it, start to finish, in a few minutes."""
    from seral.demo import run_demo

    typer.echo(run_demo(out))


def _pair(text: str, option: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"expected two names or values joined by =, got {text!r}", param_hint=option)
    return left, right


def _show(value: Any, *, as_json: bool = False) -> None:
    """Plain values for people, or JSON."""
    if as_json or not isinstance(value, dict):
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, item in value.items():
        for name, entry in _flat(key, item):
            table.add_row(name, entry)
    Console().print(table)


def _flat(key: str, item: Any) -> list[tuple[str, str]]:
    if isinstance(item, dict):
        return [row for name, inner in item.items() for row in _flat(f"{key}.{name}", inner)]
    return [(key, ", ".join(map(str, item)) if isinstance(item, list) else str(item))]


if __name__ == "__main__":
    main()
