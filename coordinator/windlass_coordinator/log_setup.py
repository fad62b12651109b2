"""How this process logs: lines for people on a terminal, JSON lines for machines elsewhere; always to
stderr."""

import logging
import sys
from typing import TextIO

import structlog

from windlass_coordinator.config import LogLevel

_LEVELS = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}


def set_up_logging(level: LogLevel, *, stream: TextIO | None = None) -> None:
    """Sets up structlog, and sends what libraries log through it from `warning` on."""
    target = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, *_rendering(target)],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=target),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_foreign_rendering(target))
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _rendering(target: TextIO) -> list[structlog.typing.Processor]:
    if target.isatty():
        return [structlog.dev.ConsoleRenderer(colors=True)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _foreign_rendering(target: TextIO) -> list[structlog.typing.Processor]:
    return [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(target)]
