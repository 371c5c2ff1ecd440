"""The front end: REST over FastAPI. Imports no torch and starts in about a second."""
