"""The worker's log: fragments with fields, as JSON unless somebody is watching.

It goes through the standard library's logging, so that a program with a Worker inside decides for itself
what becomes of it.  Never in it: values of rows, texts of queries, passwords.
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.stdlib import BoundLogger, ExtraAdder, ProcessorFormatter, filter_by_level, render_to_log_kwargs
from structlog.types import Processor


def logger(name: str) -> BoundLogger:
    made: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name), processors=[filter_by_level, render_to_log_kwargs], wrapper_class=BoundLogger
    )
    return made


def configure(stream: TextIO = sys.stderr, level: int = logging.INFO) -> None:
    """Write the log of this process to a stream."""
    is_terminal = stream.isatty()
    renderer: Processor = structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer()
    common: list[Processor] = [
        ExtraAdder(),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # The console's renderer draws a traceback itself.
    tracebacks: list[Processor] = [] if is_terminal else [structlog.processors.format_exc_info]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=common, processors=[*tracebacks, ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
