"""What a run leaves to look at: tables, pictures, one page."""
