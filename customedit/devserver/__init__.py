"""The whole service on one machine, for development and the demo. Never imports torch."""
