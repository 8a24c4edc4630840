"""Report of a run: tables, figures, one HTML page."""
