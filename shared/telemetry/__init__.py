"""Logs, metrics and traces of every process."""

from shared.telemetry.logs import configure as configure
