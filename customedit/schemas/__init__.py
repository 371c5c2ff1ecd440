"""Requests and answers, each once. Never imports torch."""
