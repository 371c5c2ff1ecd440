"""The workers: an executor of jobs, and one engine that runs those of all tenants on one base."""
