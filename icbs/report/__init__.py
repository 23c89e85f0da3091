"""Reports of runs: tables for a terminal, figures, and an HTML page."""
