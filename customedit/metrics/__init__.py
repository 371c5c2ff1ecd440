"""Metrics: how near an edit is to its source, its references and its text."""
