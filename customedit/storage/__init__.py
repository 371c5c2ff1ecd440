"""Files in S3 and the keys of its objects. Never imports torch."""
