"""What the front end and the workers share: settings, storage, records, jobs. Never imports torch."""
