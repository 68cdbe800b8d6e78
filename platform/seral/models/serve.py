"""The model of a run, or an export of it, behind HTTP: Ray Serve with batches, copies of the model, and a page.

`app` is the application for `serve run seral.models.serve:app model=ADDRESS` and for manifests. One `Page` answers
requests and counts them; every `Listener` holds the model.
"""

# N clips · S samples
from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray import serve

from ser_models.audio_text import AudioTextPool
from ser_models.inference import Model, load_trained
from seral import storage
from seral.cluster import ClusterOptions, connect
from seral.errors import JobError, OptionError
from seral.features.batches import clip_shapes
from seral.features.precomputed import need_network
from seral.models.options import ServeOptions, ServerOptions
from seral.models.page import TOKEN, PageApp, token
from seral.models.prediction import decision_of, model_folder
from seral.options import parse
from seral.process import ending
from seral.progress import say
from seral.task.run import CONFIG
from seral.training.model import checked_copy, read_encoder, read_normalisation
from seral.web.doors import is_loopback

Wave = NDArray[np.float32]
NAME = "seral"
LOGS = {"log_level": "WARNING", "enable_access_log": False}
CHECK_S = 5.0
"""Time between two looks at whether the application still runs."""


def open_model(options: ServeOptions) -> Model:
    """The model at the address of the options, with the temperature and the threshold that belong to it.

    Raises OptionError where there is none, where it reads transcripts alone, and for `abstain` without a threshold.
    """
    address = storage.absolute(options.model)
    device = "cuda" if options.use_gpu else "cpu"
    if storage.exists(storage.join(address, CONFIG)):
        folder, decision = model_folder(address, options.trajectory), decision_of(address)
    else:
        folder, decision = address, {}
    if storage.exists(storage.join(folder, "encoder.json")):
        if (kind := read_normalisation(folder)) != "none":
            say(f"the model takes away the mean of a {kind}, which single clips have none of: it judges without that")
        need_network(read_encoder(folder), "serving")
        with checked_copy(folder) as local:
            network = load_trained(local, read_encoder(folder), check=False).to(device)
        model = Model(network, max_clip_s=options.max_clip_s, **decision)
    elif storage.exists(storage.join(folder, "config.json")):
        with storage.local_copy(folder) as local:
            model = Model.load(local, device=device, max_clip_s=options.max_clip_s)
    else:
        raise OptionError(f"model={options.model}: no run, no model and no export of the format hf lies there")
    pool = model.network.pool
    if isinstance(pool, AudioTextPool) and pool.text.alone:
        raise OptionError(f"model={options.model} reads transcripts alone, and what is served is audio")
    if options.abstain and model.abstain_below is None:
        raise OptionError(f"abstain: {options.model} has no threshold; `seral fit` chooses one, if there is one")
    return model


@serve.deployment(name="Listener")
class Listener:
    """One copy of the model. Clips that wait are taken together, and computed with those of like length."""

    def __init__(self, options: dict[str, Any]) -> None:
        parsed = ServeOptions.model_validate(options)
        self._model = open_model(parsed)
        self._threshold = (self._model.abstain_below or 0.0) if parsed.abstain else 0.0
        self._judge_together.set_max_batch_size(parsed.max_batch)
        self._judge_together.set_batch_wait_timeout_s(parsed.batch_wait_s)

    def about(self) -> dict[str, Any]:
        """Names of the classes and the dimensions."""
        return {"classes": list(self._model.classes), "dimensions": list(self._model.dimensions)}

    async def judge(self, wave_S: Wave) -> dict[str, Any]:
        """The class, probabilities of all, and values of the dimensions of one clip at 16 kHz, (S,).

        `batch` is how many clips were taken with it, where it is the first of them, else None.
        """
        answer: dict[str, Any] = await self._judge_together(wave_S)
        return answer

    @serve.batch  # type: ignore[untyped-decorator]
    async def _judge_together(self, waves: list[Wave]) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self._judge, waves)

    def _judge(self, waves: Sequence[Wave]) -> list[dict[str, Any]]:
        model, answers = self._model, dict[int, dict[str, Any]]()
        shapes = clip_shapes(model.network.encoder, model.max_clip_s)
        for batch in shapes.batches([len(wave_S) for wave_S in waves]):
            share_NC, value_NK = model.judge([waves[position] for position in batch.positions])
            for position, share_C, value_K in zip(batch.positions, share_NC, value_NK, strict=True):
                unsure = bool(share_C.size and share_C.max() < self._threshold)
                answers[position] = {
                    "predicted": model.classes[share_C.argmax()] if share_C.size and not unsure else None,
                    "unsure": unsure,
                    "probabilities": dict(zip(model.classes, share_C.tolist(), strict=True)),
                    "dimensions": dict(zip(model.dimensions, value_K.tolist(), strict=True)),
                    "batch": None if position else len(waves),
                }
        return [answers[position] for position in range(len(waves))]


@serve.deployment(name="Page")
@serve.ingress()
class Page:
    """The only one that answers requests, so that its counts are those of all."""

    def __init__(self, options: dict[str, Any], listener: Any, locked: bool) -> None:
        if locked and token() is None:
            raise RuntimeError(f"this machine has no {TOKEN}, which the application was made with")
        self._app = PageApp(ServeOptions.model_validate(options), listener)

    def __serve_build_asgi_app__(self) -> PageApp:  # Ray Serve asks for the application by this name
        return self._app


def app(arguments: Mapping[str, Any]) -> serve.Application:
    """The application of a model: arguments are those of ServeOptions, of which `model` is needed.

    Raises OptionError for others. Where SERAL_SERVE_TOKEN is set, requests have to bring it.
    """
    options = parse(ServeOptions, arguments)
    values = options.model_dump(mode="json")
    hardware = {"num_gpus": 1} if options.use_gpu else {"num_cpus": 1}
    listener: Any = Listener
    listener = listener.options(
        num_replicas=options.replicas,
        ray_actor_options=hardware,
        max_ongoing_requests=2 * options.max_batch,  # the next batch gathers while one is computed
        max_queued_requests=options.max_waiting,
        logging_config=LOGS,
    )
    page: Any = Page
    page = page.options(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=1000, logging_config=LOGS)
    bound: serve.Application = page.bind(values, listener.bind(values), token() is not None)
    return bound


def serve_model(options: ServerOptions) -> None:
    """Serve a model until stopped."""
    _warn(options)
    open_model(options)  # what is wrong with it is said before Ray starts
    if options.address is None and "RAY_ADDRESS" not in os.environ:
        _check_port(options.host, options.port)
    connect(ClusterOptions(address=options.address, cpus=options.cpus))
    http = {"host": options.host, "port": options.port, "request_timeout_s": options.request_timeout_s}
    arguments = options.model_dump(mode="json", include=set(ServeOptions.model_fields))
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray Serve's own deprecations concern no user of seral
        serve.start(proxy_location="HeadOnly", http_options=http, logging_config=LOGS)
        try:
            serve.run(app(arguments), name=NAME, route_prefix="/")
        except RuntimeError as error:
            raise JobError(f"the model cannot be served: {' '.join(str(error).split())}") from error
    ending.take_signals_back()
    say(f"{options.model} is served at http://{_bracketed(options.host)}:{options.port}")
    with ending.saying("the same command serves again"):
        while serve.status().applications[NAME].status not in {"DEPLOY_FAILED", "UNHEALTHY"}:
            threading.Event().wait(CHECK_S)
    raise JobError(f"no copy of {options.model} answers any more: {serve.status().applications[NAME].message}")


def _warn(options: ServerOptions) -> None:
    """Say what whoever serves a model should know first. Raises OptionError for a token that cannot be read."""
    try:
        locked = token() is not None
    except ValueError as error:
        raise OptionError(str(error)) from None
    if not is_loopback(options.host) and not locked:
        say(
            f"warning: everybody who reaches {options.host}:{options.port} can use the model; set {TOKEN}, and put a "
            "proxy that speaks https in front"
        )


def _check_port(host: str, port: int) -> None:
    """Raise OptionError where nothing can listen on a port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise OptionError(f"nothing can listen on {host}:{port} ({error.strerror}): give another --port") from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
