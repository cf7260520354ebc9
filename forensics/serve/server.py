"""Starting and ending: the socket, the scanner, uvicorn; and nothing left behind."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, contextmanager

import uvicorn
from starlette.types import ASGIApp

from forensics.config import ScanConfig, ServeConfig
from forensics.errors import ConfigError
from forensics.pipeline import Scanner
from forensics.serve.app import Rooms, create_app
from forensics.serve.queue import JobQueue
from forensics.serve.security import Access
from forensics.serve.store import Store


def run(
    config: ServeConfig,
    *,
    detector: str = "default",
    scan_config: ScanConfig | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until Ctrl-C, SIGTERM or SIGHUP; `on_ready` gets the page's address.

    Returns when everything is stopped and removed. Raises ConfigError for an address that cannot
    be had, CheckpointError for a detector that cannot be loaded: before anything is served. Ends in
    KeyboardInterrupt. To be called in the main thread.
    """
    with ExitStack() as ends:
        ends.enter_context(_signals_as_interrupts())
        listener = ends.enter_context(closing(_listen(config.host, config.port)))
        scanner = ends.enter_context(Scanner(detector, scan_config))
        facts = scanner.detector  # waits: a broken checkpoint shows now and not at the first file
        store = ends.enter_context(Store(max_bytes=config.max_upload_mb * 2**20))
        queue = ends.enter_context(closing(JobQueue(scanner, store, places=config.queue)))
        app = create_app(
            Rooms(queue=queue, store=store, detector=facts),
            Access(host=config.host, token=config.token),
        )
        if on_ready is not None:
            on_ready(_address(listener, config.host))
        http_server(app).run(sockets=[listener])


def http_server(app: ASGIApp) -> uvicorn.Server:
    """uvicorn as this server wants it; `run(sockets=[...])` serves."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            proxy_headers=False,  # nobody's X-Forwarded-* is believed
            server_header=False,
            limit_concurrency=64,  # connections; more get 503
            timeout_graceful_shutdown=2,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}; choose another --host or --port"
        ) from error
    return listener


def _address(listener: socket.socket, host: str) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}/"


@contextmanager
def _signals_as_interrupts() -> Generator[None]:
    """SIGTERM and SIGHUP end the process as Ctrl-C does: through every `finally`.

    uvicorn catches SIGTERM while it serves and raises it again afterwards; a closed terminal's
    SIGHUP it does not know, so that one becomes a SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def terminate(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, interrupt)}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
