// A scaling study's page: its tables sort and filter, its figures are drawn.

start(() => { document.querySelectorAll("table.sortable").forEach(sortable); });
