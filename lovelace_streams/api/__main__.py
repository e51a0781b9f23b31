"""`python -m lovelace_streams.api`: the progress service on API_HOST and API_PORT."""

import gc
import logging
import socket
import sys

import uvicorn

from lovelace_streams.api import ApiSettings, create_app
from lovelace_streams.errors import EXIT_DEPLOYMENT, DeploymentFault
from lovelace_streams.observability.logs import configure
from lovelace_streams.observability.multiprocess import make_metrics_folder
from lovelace_streams.settings import Settings


class Server(uvicorn.Server):
    """Ends its event streams before it waits for connections to end, because streams do not end by themselves."""

    async def on_tick(self, counter: int) -> bool:
        """Whether to end: asked for, or because the database refuses the service for good."""
        return await super().on_tick(counter) or self.config.loaded_app.app.state.service.database.fault is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.loaded_app.app.state.service.events.end()
        await super().shutdown(sockets)


def serve(settings: ApiSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `DeploymentFault`.

    All objects that exist now stay for good, so the garbage collector is told to skip them: a report of 5,000 ranges
    takes 33 ms of CPU, and 61 with the collector's defaults (medians of four processes, 8 reports each).
    """
    make_metrics_folder()
    server = Server(config(settings))
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)
    server.run()
    if fault := server.config.loaded_app.app.state.service.database.fault:
        raise fault


def config(settings: ApiSettings) -> uvicorn.Config:
    """Configure uvicorn, without an access log: paths hold job ids, and a worker reports ten times a second."""
    app = create_app(settings)
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        ws="none",
        lifespan="on",
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=10,
    )


def main() -> int:
    """Serve; print one line and return exit code 78 if the deployment is wrong."""
    try:
        settings = Settings()
        configure(settings.log_level, settings.log_format)
        logging.getLogger("uvicorn").setLevel(settings.log_level)
        serve(ApiSettings.from_settings(settings))
    except DeploymentFault as fault:
        print(fault, file=sys.stderr)  # noqa: T201 - the one line
        return EXIT_DEPLOYMENT
    return 0


if __name__ == "__main__":
    sys.exit(main())
