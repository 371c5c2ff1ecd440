"""Configuration of the service: settings, logs, traces. Never imports torch."""
