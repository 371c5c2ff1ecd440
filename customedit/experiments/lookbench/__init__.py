"""Running LookBench: our own editor, or any, learns the looks and paints them on the sources."""
