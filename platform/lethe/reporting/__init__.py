"""Reports for people, drawn from records: pages, pictures, tables and the lines of a terminal."""
