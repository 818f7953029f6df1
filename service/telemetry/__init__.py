"""Logs, metrics and traces: how the service is observed from outside."""
