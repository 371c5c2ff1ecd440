"""The shared base and how it is driven: one frozen model, rows of many jobs in one forward."""
