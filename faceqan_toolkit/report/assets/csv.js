// The same CSV as rankings.csv: same columns, decimals, quotes, and guard against formulas.

const FORMULA_START = /^[=+\-@\t\r']/;
const NEEDS_QUOTES = /[",\n\r#]/;

function csvParts(table, rows) {
  const parts = [table.columns.map((column) => column.name).join(",") + "\n"];
  for (const row of rows) {
    parts.push(table.columns.map((column) => csvCell(column, table.value(column.name, row))).join(",") + "\n");
  }
  return parts;
}

function csvCell(column, value) {
  if (value === null) return "";
  if (column.kind === "integer") return String(value);
  if (column.kind === "number") return fixed(value, column.decimals);
  const text = FORMULA_START.test(value) ? "'" + value : value;
  return NEEDS_QUOTES.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download(parts, name) {
  const url = URL.createObjectURL(new Blob(parts, { type: "text/csv;charset=utf-8" }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
