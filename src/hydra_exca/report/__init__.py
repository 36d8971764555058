"""The report: one HTML file about many results, which needs no network."""
