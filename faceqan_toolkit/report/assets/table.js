// The run's rows, column by column, in the order of rankings.csv.

class Table {
  constructor(meta) {
    this.columns = meta.columns;
    this.length = 0;
    this.data = new Map(); // name -> values: Float64Array (NaN for none), or texts (null for none)
  }

  // Take the page's pieces, and free their text.
  static read(meta) {
    const table = new Table(meta);
    const scripts = [...document.querySelectorAll("script.rows")];
    const pieces = scripts.map((script) => {
      const piece = JSON.parse(script.textContent);
      script.remove();
      return piece;
    });
    const lengths = pieces.map((piece) => piece.length);
    table.length = lengths.reduce((sum, length) => sum + length, 0);
    const names = table.columns.map((column) => [column.name, column.kind === "text"]);
    for (const [name, isText] of [...names, ["has_thumbnail", false], ["photo", false], ["group", false]]) {
      if (!pieces.every((piece) => name in piece)) continue;
      const values = isText ? new Array(table.length) : new Float64Array(table.length);
      let start = 0;
      pieces.forEach((piece, number) => {
        fill(values, piece[name], start, lengths[number], isText ? null : NaN);
        delete piece[name];
        start += lengths[number];
      });
      table.data.set(name, values);
    }
    return table;
  }

  has(name) {
    return this.data.has(name);
  }

  // A number, a text, or null.
  value(name, row) {
    const values = this.data.get(name);
    if (values === undefined) return null;
    const value = values[row];
    return typeof value === "number" && Number.isNaN(value) ? null : value;
  }

  // As a person reads it.
  shown(column, row) {
    const value = this.value(column.name, row);
    if (value === null || value === "") return "";
    return column.kind === "number" ? fixed(value, Math.min(column.decimals, 4)) : String(value);
  }

  record(row) {
    return Object.fromEntries(this.columns.map(({ name }) => [name, this.value(name, row)]));
  }
}

function fill(target, encoded, start, length, none) {
  if (Array.isArray(encoded)) {
    for (let i = 0; i < length; i++) target[start + i] = encoded[i] ?? none;
  } else if ("all" in encoded) {
    target.fill(encoded.all ?? none, start, start + length);
  } else {
    for (let i = 0; i < length; i++) target[start + i] = encoded.values[encoded.at[i]] ?? none;
  }
}

// The largest number of so many decimals that is not above a value, as the package's rounding.py:
// a printed number can be used as a threshold.
function roundedDown(value, decimals) {
  const scale = 10 ** decimals;
  const nearest = Math.round(value * scale);
  return (nearest / scale > value ? nearest - 1 : nearest) / scale;
}

// A number rounded down; a negative zero keeps its sign, as in C's printf.
function fixed(value, decimals) {
  return (Object.is(value, -0) ? "-" : "") + roundedDown(value, decimals).toFixed(decimals);
}

const count = (number) => number.toLocaleString("en-US");
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
const percentile = (number) => (number === 100 ? "100" : fixed(number, 1));
const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;
