"""The report of a scaling study: laws drawn and judged, tables, plans."""
