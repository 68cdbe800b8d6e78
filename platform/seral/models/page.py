"""The HTTP side of a served model: clips in, probabilities out; a page, health, and counts for Prometheus.

Uploaded audio stays in memory until it is answered; it is written nowhere, and neither are names of files.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from io import BytesIO
from typing import Any

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from ray.serve.exceptions import BackPressureError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from seral.audio.decode import BadAudio, Decoded, decode
from seral.audio.limits import SoundLimits
from seral.models.options import ServeOptions
from seral.schema import SAMPLE_RATE
from seral.secrets.environment import secret
from seral.web.answers import STATIC, SafeHeaders, add_errors
from seral.web.limits import BodyLimit

TOKEN = "SERAL_SERVE_TOKEN"
"""Environment variable of the token that requests have to bring; TOKEN_FILE names a file with it."""
HEALTH_S = 10.0
"""Time in which some copy of the model has to answer to be called healthy."""
BATCHES = (1, 2, 4, 8, 16, 32, 64)
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def token() -> str | None:
    """The token that requests have to bring; None = they need none. Raises ValueError for a file that is not there."""
    return secret(TOKEN)


class PageApp(FastAPI):
    """The application in front of a handle of `Listener`s."""

    def __init__(self, options: ServeOptions, listener: Any) -> None:
        super().__init__(title="seral", docs_url=None, redoc_url=None, openapi_url=None)
        self._options, self._listener, self._token = options, listener, token()
        self._limits = SoundLimits(seconds=options.max_duration_s)
        self._registry = CollectorRegistry()
        self._requests = Counter("seral_requests", "Requests for predictions.", ["status"], registry=self._registry)
        self._seconds = Histogram(
            "seral_request_seconds", "Seconds from a request to its answer.", registry=self._registry, buckets=SECONDS
        )
        self._batches = Histogram(
            "seral_batch_clips", "Clips that were taken together.", registry=self._registry, buckets=BATCHES
        )
        self.add_api_route("/", self._page)
        self.add_api_route("/predict", self._counted, methods=["POST"])
        self.add_api_route("/health", self._health)
        self.add_api_route("/metrics", self._metrics)
        self.mount("/static", StaticFiles(directory=STATIC))
        add_errors(self)
        self.add_middleware(BodyLimit, most_bytes=int(options.max_upload_mb * 1e6))

    def build_middleware_stack(self) -> ASGIApp:
        """All that a request goes through, the outermost first."""
        return SafeHeaders(super().build_middleware_stack())

    async def _page(self) -> Response:
        return FileResponse(STATIC / "listen.html")

    async def _health(self) -> Response:
        """200 with the names of what is predicted, 503 where no copy of the model answers."""
        try:
            about = await asyncio.wait_for(self._listener.about.remote(), HEALTH_S)
        except Exception:  # whatever it is, nobody can be answered
            raise HTTPException(503, "no copy of the model answers") from None
        return JSONResponse({"status": "ok", **about})

    async def _metrics(self, request: Request) -> Response:
        self._check_token(request)
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _counted(self, request: Request) -> Response:
        """Predict, and count how it went and how long it took."""
        begin_s, status = time.monotonic(), 500
        try:
            answer = await self._predict(request)
            status = answer.status_code
            return answer
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            self._requests.labels(str(status)).inc()
            self._seconds.observe(time.monotonic() - begin_s)

    async def _predict(self, request: Request) -> Response:
        self._check_token(request)
        files = await self._files(request)
        clips = [await run_in_threadpool(self._decode, name, content) for name, content in files]
        try:
            most = int(self._options.max_clip_s * SAMPLE_RATE)
            answers = await asyncio.gather(*(self._listener.judge.remote(clip.samples[:most]) for clip in clips))
        except BackPressureError:
            raise HTTPException(
                503, "too many clips are waiting; try again in a moment", {"Retry-After": "1"}
            ) from None
        for answer in answers:
            if (batch := answer.pop("batch")) is not None:
                self._batches.observe(batch)
        rows = [
            {"file": name, "seconds": len(clip.samples) / SAMPLE_RATE, **answer}
            for (name, _), clip, answer in zip(files, clips, answers, strict=True)
        ]
        return JSONResponse({"predictions": rows})

    async def _files(self, request: Request) -> list[tuple[str, bytes]]:
        """Names and contents of what a request holds: files of a form, or the body as one file."""
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            return [("clip", await request.body())]
        most = self._options.max_files
        try:
            form = await InMemory(request.headers, request.stream(), max_files=most, max_fields=most).parse()
        except (MultiPartException, ValueError, KeyError) as error:
            raise HTTPException(400, f"the form cannot be read: {getattr(error, 'message', error)}") from None
        uploads = [value for _, value in form.multi_items() if not isinstance(value, str)]
        if not uploads:
            raise HTTPException(422, "the form holds no file: send one or more, as curl -F clip=@speech.wav does")
        return [(upload.filename or "clip", await upload.read()) for upload in uploads]

    def _decode(self, name: str, content: bytes) -> Decoded:
        try:
            return decode(BytesIO(content), limits=self._limits)
        except BadAudio as error:
            raise HTTPException(422, f"{name}: {error}") from None

    def _check_token(self, request: Request) -> None:
        """401 for who does not bring the token, where one is needed."""
        kind, _, brought = request.headers.get("authorization", "").partition(" ")
        right = self._token is not None and hmac.compare_digest(brought.strip().encode(), self._token.encode())
        if self._token is not None and not (kind.lower() == "bearer" and right):
            words = "this server wants its token: send the header Authorization: Bearer TOKEN"
            raise HTTPException(401, words, {"WWW-Authenticate": "Bearer"})


class InMemory(MultiPartParser):
    """Forms whose files are never written to a disk."""

    spool_max_size = 1 << 40
