"""Commands about clusters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seral.cli.arguments import Sets, pair
from seral.cli.configured import listing
from seral.cli.display import show, show_lines, show_outcome, show_rows, wants_json
from seral.verbs import VERBS

if TYPE_CHECKING:
    from seral.options import Options
    from seral.submit.submit import Jobs

app = typer.Typer(
    name="jobs",
    no_args_is_help=True,
    help="Send jobs to a Ray cluster, and watch them there; manifests for Kubernetes.",
)

LISTED = ("name", "state", "started", "seconds", "run")
"""Columns of the table of submissions."""
JOBS = ", ".join(verb.name for verb in VERBS.values() if verb.job)
Job = Annotated[str, typer.Argument(metavar="JOB", help=f"{JOBS}; or a file of your own in --folder, without .py.")]
JobName = Annotated[str, typer.Argument(metavar="NAME", help="The submission, as `seral jobs list` names it.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="The cluster's job server, http://HEAD:8265. Else RAY_ADDRESS, or the cluster of this machine.",
        envvar="RAY_API_SERVER_ADDRESS",
    ),
]


Folder = Annotated[
    Path | None, typer.Option(help="Job files and modules of your own, which travel along as the working directory.")
]
On = Annotated[
    list[str] | None,
    typer.Option("--on", metavar="KEY=VALUE", help="The cluster: image=..., workers=4, ...; repeatable."),
]


@app.command("submit")
def jobs_submit(
    job: Job,
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
    folder: Folder = None,
    python: Annotated[str, typer.Option(help="The interpreter on the cluster.")] = "python",
) -> None:
    """Send a job with its options to a cluster, and follow it to its end; exit status 0 if that was good.

    Status 75 says that it awaits labels: the same command goes on once people have answered.

    The options are checked here first. The code of this seral travels along, so the cluster needs seral's
    dependencies, not seral. Submitting a run twice is harmless: it is followed, not started again; one
    that failed or was stopped is submitted anew, and resumes. Interrupting this command leaves the job running.

    Example: `seral jobs submit loop --config run.yaml --set pool=s3://speech/pool --set run=s3://speech/runs/mine`
    """
    from seral.options import parse
    from seral.progress import say
    from seral.submit.options import SubmitOptions
    from seral.submit.submit import Jobs

    values = {
        **_job(job, config, settings, folder),
        "cpus": cpus,
        "gpus": gpus,
        "memory_gb": memory_gb,
        "env": dict(pair(item, "--env") for item in env or []),
        "python": python,
        "again": again,
    }
    options = parse(SubmitOptions, values)
    jobs = Jobs(address)
    submission = jobs.submit(options)
    say(
        f"{submission.name}: {'submitted' if submission.is_new else submission.state.lower() + ', not submitted again'}"
    )
    if not wait:
        show_lines([submission.name], {"name": submission.name, "state": submission.state})
        return
    _follow(jobs, submission.name)


def _job(job: str, config: Path | None, settings: list[str] | None, folder: Path | None) -> dict[str, Any]:
    """Values of JobOptions."""
    paths = {name: None if path is None else str(path) for name, path in (("config", config), ("folder", folder))}
    return {"job": job, "overrides": settings or [], **paths}


def _options(name: str) -> Callable[[], type[Options]]:
    """A way to a model of seral.submit.options, which is imported when it is needed."""

    def model() -> type[Options]:
        from seral.submit import options

        return getattr(options, name)  # type: ignore[no-any-return]  # a name becomes a type at run time only

    return model


@app.command("manifest")
@listing(_options("ManifestOptions"), of="what `--on` takes")
def jobs_manifest(
    job: Job,
    config: Annotated[Path | None, typer.Option(help="YAML file of its options.")] = None,
    settings: Sets = None,
    on: On = None,
    folder: Folder = None,
) -> None:
    """Print a job as manifests for Kubernetes with the KubeRay operator: its options, and a RayJob with its cluster.

    Job files of your own are in the image, in /opt/seral/jobs.

    Example: `seral jobs manifest loop --config run.yaml --on image=me/seral:1 --on claim=speech | kubectl apply -f -`
    """
    from seral.options import parse
    from seral.submit.manifest import job_manifest
    from seral.submit.options import ManifestOptions

    _show_manifests(job_manifest(parse(ManifestOptions, _job(job, config, settings, folder), on or [])))


@app.command("cluster")
@listing(_options("StandingOptions"), of="what `--on` takes")
def jobs_cluster(on: On = None) -> None:
    """Print a RayCluster for Kubernetes: a cluster that stands, for jobs that are submitted to it.

    Example: `seral jobs cluster --on image=me/seral:1 --on claim=speech --on workers=4 | kubectl apply -f -`
    """
    from seral.options import parse
    from seral.submit.manifest import cluster_manifest
    from seral.submit.options import StandingOptions

    _show_manifests(cluster_manifest(parse(StandingOptions, {}, on or [])))


@app.command("service")
@listing(_options("ServiceOptions"), of="what `--on` takes")
def jobs_service(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run or an export, on storage of the pods.")],
    on: On = None,
) -> None:
    """Print a RayService for Kubernetes: a model that answers requests.

    Example: `seral jobs service s3://speech/models/emodb --on image=me/seral:1 --on secret=s3 | kubectl apply -f -`
    """
    from seral.options import parse
    from seral.submit.manifest import service_manifest
    from seral.submit.options import ServiceOptions

    _show_manifests(service_manifest(parse(ServiceOptions, {"model": model}, on or [])))


def _show_manifests(text: str) -> None:
    """Print manifests as they are, or as JSON."""
    import yaml

    show_lines([text.rstrip("\n")], list(yaml.safe_load_all(text)))


@app.command("status")
def jobs_status(name: JobName, address: Address = None) -> None:
    """Print state, run, time and message of a submission; exit status 1 if it ended badly, 75 if it awaits labels."""
    from seral.submit.submit import PAUSE, Jobs, exit_code

    status = Jobs(address).status(name)
    show(status)
    raise typer.Exit(exit_code(status) if status["state"] in ("FAILED", "STOPPED", PAUSE) else 0)


@app.command("logs")
def jobs_logs(
    name: JobName,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
) -> None:
    """Print what a submission has printed; with `--follow` until its end, whose exit status it returns."""
    from seral.submit.submit import Jobs

    jobs = Jobs(address)
    if follow:
        _follow(jobs, name)
    show_outcome(jobs.logs(name).rstrip("\n"))


@app.command("stop")
def jobs_stop(name: JobName, address: Address = None) -> None:
    """End a submission and all its workers. What is complete of its run stays: submit it again, and it resumes."""
    from seral.submit.submit import Jobs

    state = Jobs(address).stop(name).lower()
    show_lines([f"{name}: {state}"], {"name": name, "state": state})


@app.command("list")
def jobs_list(address: Address = None) -> None:
    """List all submissions the cluster remembers, the newest first."""
    from seral.submit.submit import Jobs

    rows = Jobs(address).all()
    if not wants_json():
        rows = [{name: row[name] for name in LISTED} for row in rows]
    show_rows(rows, empty="nothing was submitted yet")


def _follow(jobs: Jobs, name: str) -> None:
    from seral.process.ending import saying
    from seral.progress import say
    from seral.submit.submit import exit_code

    with saying(f"{name} goes on; `seral jobs logs {name} --follow` to see more, `seral jobs stop {name}` to end it"):
        status = jobs.follow(name, lambda text: typer.echo(text, nl=False))
    say(f"{name}: {status['state'].lower()} after {status['seconds']} s. {status['message']}".strip())
    raise typer.Exit(exit_code(status))
