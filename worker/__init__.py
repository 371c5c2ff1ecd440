"""The workers: Celery's doorbells, and one engine that runs the jobs of all tenants on one base."""
