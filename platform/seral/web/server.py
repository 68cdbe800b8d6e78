"""The process that `seral labels serve` starts."""

from __future__ import annotations

from contextlib import closing, suppress
from urllib.parse import urlsplit

import uvicorn
from pydantic import Field, FiniteFloat

from seral import storage
from seral.errors import OptionError
from seral.labels.ledger import Ledger
from seral.labels.sessions import Sessions
from seral.options import Options, read_yaml
from seral.pool.shards import open_pool
from seral.progress import say
from seral.web.app import create_app
from seral.web.limits import Limit
from seral.web.sessions import Site
from seral.web.sockets import PageConfig, SocketLimits
from seral.web.sounds import Sounds
from seral.web.suggestions import Suggestions, no_suggestions

KEEP_ALIVE_S = 120


class PageOptions(Options):
    """Options of the annotation page."""

    host: str = "127.0.0.1"
    """Address to listen on; only this machine unless told otherwise. Beyond it, put a proxy with https in front."""
    port: int = Field(default=8800, ge=1, le=65_535)
    url: str | None = None
    """Address at which people reach the page, such as https://labels.example.org; None = the host and port."""
    lease_min: float = Field(default=15.0, gt=0)
    """Minutes for which a clip is one person's alone."""
    check_every: int = Field(default=0, ge=0)
    """A clip with a known answer after so many others, where such are asked; 0 = never."""
    disputed_spread: float = Field(default=0.5, ge=0, le=1)
    """Ratings are shown to the lead as disputed when the highest and the lowest are further apart than this share of
    the scale: on a scale from 1 to 5, by more than two."""
    show_model_suggestion: bool = False
    """Show what the newest model takes a clip for. It biases people: labels are then no independent evidence."""
    burst: int = Field(default=100, ge=1)
    """Requests that one person may send at once."""
    requests_per_s: float = Field(default=20.0, gt=0)
    """Requests a second that one person may send in the long run."""
    idle_h: FiniteFloat = Field(default=12.0, gt=0)
    """Hours without a request after which a person has to open their link again."""
    session_days: FiniteFloat = Field(default=14.0, gt=0, le=3650)
    """Days after which a person has to open their link again, whatever they did."""
    request_timeout_s: FiniteFloat = Field(default=20.0, gt=0)
    """Seconds in which a request has to arrive, and in which something of an answer has to be read; then its socket is
    closed."""
    max_sockets: int = Field(default=500, ge=1)
    """Sockets open at once; one more closes the one that has been quiet for longest."""

    @property
    def address(self) -> str:
        """The address at which people reach the page, without a slash at the end."""
        return (self.url or f"http://{self.host}:{self.port}").rstrip("/")


def ledger_and_pool(run: str | None, ledger: str | None, pool: str | None) -> tuple[str, str]:
    """Ledger and pool of a run; what is given besides counts instead. Raises OptionError when one is missing."""
    if run is not None:
        values = read_yaml(storage.join(run, "config.yaml"))
        people = values.get("people") or {}
        ledger = ledger or people.get("ledger") or storage.join(run, "labels.sqlite")
        pool = pool or values.get("pool")
    if ledger is None or pool is None:
        raise OptionError("give a run, or both --ledger and --pool")
    return ledger, pool


def make_site(ledger: Ledger, pool: str, options: PageOptions, run: str | None = None) -> Site:
    """The site that the application answers from."""
    if urlsplit(options.address).scheme not in {"http", "https"}:
        raise OptionError(f"the page's address begins with http:// or https://, got {options.address}")
    if options.show_model_suggestion and run is None:
        raise OptionError("show_model_suggestion needs a run: its newest model is what suggests")
    return Site(
        ledger=ledger,
        sessions=Sessions(ledger.database, idle_s=3600 * options.idle_h, longest_s=86_400 * options.session_days),
        sounds=Sounds(open_pool(pool)),
        url=options.address,
        lease_s=60 * options.lease_min,
        check_every=options.check_every,
        spread=options.disputed_spread,
        suggest=Suggestions(run) if options.show_model_suggestion and run else no_suggestions,
        attempts=Limit(10, 1 / 6),
        requests=Limit(options.burst, options.requests_per_s),
    )


def serve(run: str | None, options: PageOptions, *, ledger: str | None = None, pool: str | None = None) -> None:
    """Serve the page of a run, or of a ledger and a pool, until stopped."""
    ledger, pool = ledger_and_pool(run, ledger, pool)
    with closing(Ledger(ledger)) as opened:
        site = make_site(opened, pool, options, run)
        say(f"the annotation page is at {options.address}; personal links: seral labels people add")
        _run(site, options)


def _run(site: Site, options: PageOptions) -> None:
    config = PageConfig(
        create_app(site),
        SocketLimits(request_s=options.request_timeout_s, most=options.max_sockets),
        host=options.host,
        port=options.port,
        access_log=False,  # the addresses of personal links hold their tokens
        server_header=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,  # people think for longer than uvicorn's five seconds
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        raise OptionError(f"the page cannot listen on {options.host}:{options.port}: the lines above say why")
