"""The process that `seral labels serve` starts."""

from __future__ import annotations

import ssl
from contextlib import closing
from urllib.parse import urlsplit

from seral import storage
from seral.errors import OptionError
from seral.labels.audit import Trail
from seral.labels.ledger import Ledger
from seral.labels.sessions import Sessions
from seral.options import read_yaml
from seral.progress import say
from seral.web.app import create_app
from seral.web.doors import host_names, is_loopback, networks
from seral.web.limits import Limit
from seral.web.options import PageOptions
from seral.web.sessions import Site
from seral.web.sockets import PageConfig, SocketLimits, listen
from seral.web.sounds import Sounds
from seral.web.suggestions import Suggestions, no_suggestions

KEEP_ALIVE_S = 120


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
