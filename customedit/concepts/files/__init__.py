"""Files of concepts: our own, and those of other programs."""
