"""Jobs: records in Redis, claims, the journal, recovery. Never imports torch."""
