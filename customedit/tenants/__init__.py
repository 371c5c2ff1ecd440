"""Tenants: API keys, rate limits, catalogues of images and concepts. Never imports torch."""
