"""Commands for the people who label: the page, and who may open it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from seral.cli.arguments import LedgerUrl, Sets
from seral.cli.configured import listing
from seral.cli.display import show_lines, show_rows

if TYPE_CHECKING:
    from seral.labels.audit import Action
    from seral.labels.ledger import Ledger
    from seral.options import Options

people_app = typer.Typer(no_args_is_help=True, help="Who may label, and who leads: personal links to the page.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The person, as answers will name them.")]


def _page_options() -> type[Options]:
    from seral.web.options import PageOptions

    return PageOptions


@listing(_page_options)
def labels_serve(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="The run folder, with its config.yaml.")] = None,
    ledger: Annotated[str | None, typer.Option(help="A ledger of its own, without a run or in place of its.")] = None,
    pool: Annotated[str | None, typer.Option(help="The pool with the audio, without a run or in place of its.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; only this machine unless told otherwise.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8800,
    url: Annotated[str | None, typer.Option(help="Where people reach the page, if a proxy is in front.")] = None,
    tls_cert: Annotated[str | None, typer.Option(help="Certificate, PEM: serve by https.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="The certificate's key, PEM.")] = None,
    trusted_host: Annotated[
        list[str] | None, typer.Option(help="A further name by which people reach the server; repeatable.")
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address of a proxy in front, whose X-Forwarded-For is believed; repeatable."),
    ] = None,
    user_header: Annotated[
        str | None, typer.Option(help="Header in which the proxy says who is signed in, such as X-Remote-User.")
    ] = None,
    settings: Sets = None,
) -> None:
    """Serve the page on which people label, until stopped. `--options` lists what goes through --set.

    Example: `seral labels serve runs/calls --set check_every=20`
    """
    from seral.options import parse
    from seral.web.options import PageOptions
    from seral.web.server import serve

    values = {"host": host, "port": port, "url": url, "tls_cert": tls_cert, "tls_key": tls_key}
    doors = {"trusted_hosts": trusted_host or [], "proxies": proxy or [], "user_header": user_header}
    options = parse(PageOptions, values | doors, settings or [])
    serve(run, options, ledger=ledger, pool=pool)


def labels_audit(
    ledger: LedgerUrl,
    person: Annotated[str | None, typer.Option(help="Only what this person did.")] = None,
    clip: Annotated[str | None, typer.Option(help="Only what was done about this utterance.")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only from this time on, UTC.")] = None,
    count: Annotated[int, typer.Option(help="The newest so many lines.", min=1)] = 100,
    forget_before: Annotated[
        datetime | None, typer.Option(help="Delete the lines from before this time (UTC), for good, and end.")
    ] = None,
) -> None:
    """Show who came in, was shown, sent and played which clip, and answered what, when and from which address.

    Example: `seral labels audit runs/calls/labels.sqlite --person ada`
    """
    from contextlib import closing
    from dataclasses import asdict

    from seral.labels.audit import forget_events, read_events
    from seral.labels.ledger import Ledger

    def seconds(time: datetime | None) -> float | None:
        return None if time is None else time.replace(tzinfo=UTC).timestamp()

    with closing(Ledger(ledger)) as store:
        if (before := seconds(forget_before)) is not None:
            count = forget_events(store.database, before)
            show_lines([f"{count} lines deleted"], {"deleted": count})
            return
        about = {"person": person, "utterance_id": clip, "since": seconds(since)}
        events = read_events(store.database, count=count, **about)  # type: ignore[arg-type]
    rows = [
        {"at": datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        | {name: value for name, value in asdict(event).items() if name != "at"}
        for event in events
    ]
    show_rows(rows, empty="nothing is logged")


def _log(store: Ledger, action: Action, name: str) -> None:
    from seral.labels.audit import Event, log

    log(store.database, Event(action=action, address="command line", detail=name))


@people_app.command("add")
def people_add(
    ledger: LedgerUrl,
    name: Name,
    lead: Annotated[bool, typer.Option("--lead", help="They lead: progress, agreement, adjudication, people.")] = False,
    url: Annotated[str, typer.Option(help="Where people reach the page.")] = "http://127.0.0.1:8800",
) -> None:
    """Let somebody in and print their personal link, or a new one in place of the last. It is kept nowhere.

    Example: `seral labels people add runs/calls/labels.sqlite ada`
    """
    from contextlib import closing

    from seral.labels.ledger import Ledger

    with closing(Ledger(ledger)) as store:
        token = store.add_person(name, "lead" if lead else "annotator")
        _log(store, "let-in", name)
        link = f"{url.rstrip('/')}/in/{token}"
        show_lines([link], {"person": name, "link": link})


@people_app.command("list")
def people_list(ledger: LedgerUrl) -> None:
    """List the people of a ledger: name, role, and whether their link opens the page."""
    from contextlib import closing

    from seral.labels.ledger import Ledger

    with closing(Ledger(ledger)) as store:
        rows = [{"person": p.name, "role": p.role, "may_come_in": bool(p.token_hash)} for p in store.people()]
    words = (f"{r['person']}\t{r['role']}\t{'may come in' if r['may_come_in'] else 'no link'}" for r in rows)
    show_lines(words, rows)


@people_app.command("revoke")
def people_revoke(ledger: LedgerUrl, name: Name) -> None:
    """Make a person's link worthless, at once. What they have said stays."""
    from contextlib import closing

    from seral.labels.ledger import Ledger

    with closing(Ledger(ledger)) as store:
        store.revoke(name)
        _log(store, "revoked", name)
