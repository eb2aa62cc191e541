"""Text for the quickstart that needs no download: generated stories and installed documentation."""
