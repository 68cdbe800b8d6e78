"""Options of the annotation page."""

from __future__ import annotations

from pydantic import Field, FiniteFloat, model_validator

from seral.options import Options


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
