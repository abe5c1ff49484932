// Tables of class "sortable": a button in every heading sorts, a field above filters. A cell's data-value, where it has
// one, is what counts; empty values come last either way. Of several rows of headings the last one is meant; a heading's
// data-name is what filters call it. data-filter of the table is an example of a filter.

const headings = (table) => [...table.tHead.rows[table.tHead.rows.length - 1].cells];

function value(cell) {
  const given = (cell.dataset.value ?? cell.textContent).trim();
  const number = given === "" ? NaN : Number(given);
  return Number.isNaN(number) ? given.toLowerCase() : number;
}

function compare(a, b, sign) {
  const empty = (x) => x === "" || x === "nan" || x === "none";
  if (empty(a) || empty(b)) return empty(a) - empty(b);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a < b ? -sign : a > b ? sign : 0;
}

function sortBy(table, column) {
  const head = headings(table)[column];
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const cell of headings(table)) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].map((row) => [value(row.cells[column]), row]);
  rows.sort(([a], [b]) => compare(a, b, sign));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

// A condition such as "utility > 0.4" on a column, or text that a row contains; several are joined by commas.
function conditions(text, heads) {
  return text.split(",").map((part) => part.trim().toLowerCase()).filter(Boolean).map((part) => {
    const [, name, sign, bound] = part.match(/^(.+?)\s*(<=|>=|<|>|=)\s*(.+)$/) ?? [];
    const column = heads.indexOf(name), number = Number(bound);
    if (name === undefined || column < 0) return (row) => row.textContent.toLowerCase().includes(part);
    return (row) => {
      const own = value(row.cells[column]);
      if (sign === "=") return Number.isNaN(number) ? own === bound : own === number;
      if (typeof own !== "number") return false;
      return { "<": own < number, ">": own > number, "<=": own <= number, ">=": own >= number }[sign];
    };
  });
}

function sortable(table) {
  const heads = headings(table).map((cell) => (cell.dataset.name ?? cell.textContent).trim().toLowerCase());
  headings(table).forEach((cell, column) => {
    const label = cell.textContent;
    if (!label.trim()) return;
    cell.replaceChildren(element("button", { type: "button", onclick: () => sortBy(table, column) }, label));
  });
  const rows = [...table.tBodies[0].rows];
  const count = element("span", { class: "soft", role: "status" }, `${rows.length} of ${rows.length}`);
  const field = element("input", {
    type: "search", placeholder: `filter: ${table.dataset.filter ?? "sophia, utility > 0.4"}`, "aria-label": "filter the table",
    oninput: () => {
      const wanted = conditions(field.value, heads);
      rows.forEach((row) => { row.hidden = !wanted.every((holds) => holds(row)); });
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
    },
  });
  table.parentElement.before(element("p", { class: "filter" }, field, count));
}
