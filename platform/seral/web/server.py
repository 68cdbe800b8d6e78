"""The process that `seral labels serve` starts."""

from __future__ import annotations

import ssl
from contextlib import closing
from urllib.parse import urlsplit

from pydantic import Field, FiniteFloat, model_validator

from seral import storage
from seral.errors import OptionError
from seral.labels.audit import Trail
from seral.labels.ledger import Ledger
from seral.labels.sessions import Sessions
from seral.options import Options, read_yaml
from seral.progress import say
from seral.web.app import create_app
from seral.web.doors import host_names, is_loopback, networks
from seral.web.limits import Limit
from seral.web.sessions import Site
from seral.web.sockets import PageConfig, SocketLimits, listen
from seral.web.sounds import Sounds
from seral.web.suggestions import Suggestions, no_suggestions

KEEP_ALIVE_S = 120


class PageOptions(Options):
    """Options of the annotation page."""

    host: str = "127.0.0.1"
    """Address to listen on; only this machine unless told otherwise. Beyond it, name a certificate, or put a proxy with
    https in front."""
    port: int = Field(default=8800, ge=1, le=65_535)
    url: str | None = None
    """Address at which people reach the page, such as https://labels.example.org; None = the host and port."""
    tls_cert: str | None = None
    """File with a certificate, and those that vouch for it: the page is then served by https."""
    tls_key: str | None = None
    """File with the key of the certificate."""
    trusted_hosts: tuple[str, ...] = ()
    """Further names by which people reach the server, besides that of `url`; "*" = any. None named, no `url`, and not
    on this machine alone: any."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies in front, whose X-Forwarded-For is believed; nobody else's is."""
    user_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]+$")
    """Header in which such a proxy says which person of the ledger is signed in (single sign-on); None = none does."""
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
    audit: bool = True
    """Log who came in, was shown, sent and played which clip, and answered what, from which address."""
    request_timeout_s: FiniteFloat = Field(default=20.0, gt=0)
    """Seconds in which a request has to arrive, and in which something of an answer has to be read; then its socket is
    closed."""
    max_sockets: int = Field(default=500, ge=1)
    """Sockets open at once; one more closes the one that has been quiet for longest."""

    @property
    def address(self) -> str:
        """The address at which people reach the page, without a slash at the end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (self.url or f"{'https' if self.tls_cert else 'http'}://{host}:{self.port}").rstrip("/")

    @model_validator(mode="after")
    def _check(self) -> PageOptions:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both files or none")
        if self.tls_cert and self.url and not self.url.startswith("https://"):
            raise ValueError(f"with tls_cert the page is reached by https, and url is {self.url}")
        if self.user_header and not self.proxies:
            raise ValueError("user_header is believed from a proxy alone: name its address in proxies")
        return self


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
        trail=Trail(ledger.database, on=options.audit),
        noted=Limit(1, 1 / 3600),
        sounds=Sounds(pool),
        url=options.address,
        lease_s=60 * options.lease_min,
        check_every=options.check_every,
        spread=options.disputed_spread,
        suggest=Suggestions(run) if options.show_model_suggestion and run else no_suggestions,
        attempts=Limit(10, 1 / 6),
        requests=Limit(options.burst, options.requests_per_s),
        hosts=host_names(options.trusted_hosts, options.url, options.host),
        proxies=networks(options.proxies),
        user_header=options.user_header,
    )


def warnings(options: PageOptions) -> list[str]:
    """Sentences about what is not safe in these options."""
    lines = []
    if not is_loopback(options.host) and options.tls_cert is None:
        lines.append(
            f"warning: everybody who reaches {options.host}:{options.port} can read links, speech and answers on the "
            "way, since it speaks plain http; give --tls-cert and --tls-key, or listen on 127.0.0.1 behind a proxy "
            "that speaks https"
        )
    if options.user_header and any(network.num_addresses > 1 for network in networks(options.proxies)):
        lines.append(
            f"warning: any machine of {', '.join(options.proxies)} can say in {options.user_header} that it is "
            "anybody; name the proxy's own address"
        )
    return lines


def _check_certificate(options: PageOptions) -> None:
    """Raise OptionError for a certificate and a key that cannot be used."""
    if options.tls_cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_cert, options.tls_key, password="")
    except (OSError, ssl.SSLError) as error:
        raise OptionError(
            f"{options.tls_cert} and {options.tls_key} are no certificate with its key, in PEM and without a "
            f"password: {error}"
        ) from None


def serve(run: str | None, options: PageOptions, *, ledger: str | None = None, pool: str | None = None) -> None:
    """Serve the page of a run, or of a ledger and a pool, until stopped."""
    ledger, pool = ledger_and_pool(run, ledger, pool)
    _check_certificate(options)
    with closing(Ledger(ledger)) as opened:
        site = make_site(opened, pool, options, run)
        say(f"the annotation page is at {options.address}; personal links: seral labels people add")
        for line in warnings(options):
            say(line)
        _open_page(site, options)


def _open_page(site: Site, options: PageOptions) -> None:
    config = PageConfig(
        create_app(site),
        SocketLimits(request_s=options.request_timeout_s, most=options.max_sockets),
        host=options.host,
        port=options.port,
        access_log=False,  # the addresses of personal links hold their tokens
        server_header=False,
        proxy_headers=False,  # Doors does it, and knows whom to believe
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,  # people think for longer than uvicorn's five seconds
    )
    if not listen(config):
        raise OptionError(f"the page cannot listen on {options.host}:{options.port}: the lines above say why")
