"""Reading a run back: curves, plots, tables and the HTML report."""
