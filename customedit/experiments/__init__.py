"""Experiments: the study and what else proves claims. The service does not need them."""
