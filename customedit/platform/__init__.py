"""What the front end and the workers share. Never imports torch."""
