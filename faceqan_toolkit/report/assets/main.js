// Wires everything: what is selected, and who must be told when that changes.

const PRINTED = 500;

const get = (id) => document.getElementById(id);
const meta = JSON.parse(get("meta").textContent);
const table = Table.read(meta);
const pictures = new Pictures(meta, table);

const rows = [...Array(table.length).keys()];
const statuses = table.data.get("status") ?? [];
const faces = rows.filter((row) => statuses[row] === "ok");
const failures = rows.filter((row) => statuses[row] !== "ok");
const qualities = table.data.get("quality") ?? new Float64Array(table.length).fill(NaN);
const scored = faces.filter((row) => !Number.isNaN(qualities[row])); // best first
const members = table.data.get("group"); // the group of each row, if the page shows groups
const positions = new Set([...meta.box, ...meta.landmarks]);

// The page knows qualities rounded down to DECIMALS, and so it rounds every threshold: a face stays
// here if `filter --min-quality` keeps it at the number that is shown.
const DECIMALS = 6;
let threshold = roundedDown(meta.below ?? -Infinity, DECIMALS);
let base = faces; // faces that pass the filters, whatever the threshold
let baseScores = new Float64Array(); // theirs, best first
const stays = (row) => qualities[row] >= threshold;

// ---- drawing one row

function tile(row) {
  const quality = table.value("quality", row);
  const path = table.value("path", row);
  const face = table.value("face", row);
  const name = path.slice(path.lastIndexOf("/") + 1) + (face ? ` [${face}]` : "");
  const button = element("button", { type: "button", class: "tile", title: path });
  const picture = pictures.thumbnail(row);
  button.append(picture ?? element("span", { class: "blank", "aria-hidden": "true" }, meta.pictures ? "no picture" : "picture left out"));
  const spoken = [];
  if (quality !== null) {
    const rank = table.value("rank", row);
    const share = percentile(table.value("percentile", row));
    button.append(
      element("span", { class: "rank", "aria-hidden": "true" }, `#${count(rank)}`),
      element("span", { class: "score" }, element("b", {}, fixed(quality, 4)), element("span", {}, `P${share}`)),
    );
    spoken.push(`rank ${rank}`, `quality ${fixed(quality, 4)}`, `percentile ${share}`);
    if (threshold > -Infinity) {
      button.classList.toggle("going", !stays(row));
      spoken.push(stays(row) ? "stays" : "goes");
    }
  }
  const sort = sortColumn();
  if (sort) {
    const value = table.shown(sort, row) || "–";
    button.append(element("span", { class: "name" }, `${words(sort.name)} ${value}`));
    spoken.push(`${words(sort.name)} ${value}`);
  } else button.append(element("span", { class: "name" }, element("bdi", {}, name)));
  button.setAttribute("aria-label", `${name}, ${spoken.join(", ")}`);
  return button;
}

function failure(row) {
  const [path, status, reason] = ["path", "status", "reason"].map((name) => table.value(name, row) ?? "");
  return element("button", { type: "button", class: "failure", title: `${path}\n${reason}` },
    element("span", { class: "tag go" }, status),
    element("bdi", { class: "path" }, path),
    element("bdi", { class: "reason" }, reason));
}

// ---- what is selected

const controls = Object.fromEntries(
  ["text", "folder", "group", "status", "from", "to", "show", "sort", "order"].map((id) => [id, get(id)]),
);
const numberOf = (input, otherwise) => (input.value === "" || Number.isNaN(input.valueAsNumber) ? otherwise : input.valueAsNumber);
const sortColumn = () => table.columns.find((column) => column.name === controls.sort.value && column.name !== "path" && column.name !== "quality");

const folderOf = (path) => path.slice(0, Math.max(0, path.lastIndexOf("/")));
let haystacks = null; // made when somebody searches

function haystack(row) {
  if (!haystacks) {
    const names = table.columns.filter((column) => column.kind === "text" && !["root", "crop"].includes(column.name)).map((column) => column.name);
    haystacks = rows.map((each) => names.map((name) => table.value(name, each) ?? "").join("\n").toLowerCase());
  }
  return haystacks[row];
}

function passes() {
  const words = controls.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  const folder = controls.folder.value.trim().replace(/\/+$/, "").toLowerCase();
  const status = controls.status.value;
  const low = roundedDown(numberOf(controls.from, -Infinity), DECIMALS);
  const high = numberOf(controls.to, Infinity);
  const ranged = low > -Infinity || high < Infinity;
  const paths = table.data.get("path");
  const group = controls.group.value;
  return (row) => {
    if (status && statuses[row] !== status) return false;
    if (group && members[row] !== Number(group)) return false;
    // as tiles show it: a number that is copied from one is not below its face
    if (ranged && !(qualities[row] >= low && Number(fixed(qualities[row], 4)) <= high)) return false;
    if (folder) {
      const own = folderOf(paths[row]).toLowerCase();
      if (folder === "." ? own !== "" : !own.startsWith(folder)) return false;
    }
    return words.every((word) => haystack(row).includes(word));
  };
}

function sorted(items) {
  const { sort, order } = controls;
  const up = order.value === "up";
  if (sort.value === "quality") return up ? [...items].reverse() : items;
  const values = table.data.get(sort.value);
  if (sort.value === "path") {
    // code points, as the ranking has it
    return [...items].sort((a, b) => (up ? 1 : -1) * (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : 0) || a - b);
  }
  const worth = (row) => (Number.isNaN(values[row]) ? -Infinity : up ? -values[row] : values[row]);
  return [...items].sort((a, b) => worth(b) - worth(a) || a - b);
}

// How many of the best-first scores are at least a threshold.
function staying(limit) {
  let low = 0;
  let high = baseScores.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (baseScores[middle] >= limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

const shownFaces = () => {
  const show = controls.show.value;
  return show === "all" ? base : base.filter((row) => (show === "stay" ? stays(row) : qualities[row] < threshold));
};

// A selection of the threshold or of scores says nothing of rows without one.
const shownFailures = () => (controls.show.value === "all" ? baseFailures : []);
let baseFailures = failures;

// How many faces the best so many percent are, as `filter --keep-top X%` counts them.
const best = (share, all) => Math.floor((all * share) / 100 + 0.5);

// The share that some faces are, with as many decimals as choose them again.
function shareText(number, all) {
  const share = (100 * number) / all;
  for (let decimals = 1; decimals < 15; decimals++) {
    if (best(Number(share.toFixed(decimals)), all) === number) return share.toFixed(decimals);
  }
  return String(share);
}

// ---- telling everybody

const grids = {
  faces: new Grid(get("faces"), { cell: { width: 120, height: 178 }, draw: tile, open: (place) => detail.open(grids.faces, place) }),
  failures: new Grid(get("failures"), {
    cell: { width: null, height: () => (innerWidth < 700 ? 84 : 44) },
    draw: failure,
    open: (place) => detail.open(grids.failures, place),
  }),
};
const detail = new Detail({ meta, table, pictures, stays });
const histogram = scored.length ? new Histogram(Float64Array.from(scored, (row) => qualities[row]), setThreshold) : null;
const groups = meta.groups && histogram ? new Groups(meta.groups, { members, scored, qualities, choose: showGroup }) : null;
const filtered = () => base.length !== faces.length;

function applyFilters() {
  const pass = passes();
  base = faces.filter(pass);
  baseFailures = failures.filter(pass);
  baseScores = Float64Array.from(base.filter((row) => !Number.isNaN(qualities[row])), (row) => qualities[row]);
  histogram?.draw(baseScores);
  if (controls.status.value) openTab(controls.status.value === "ok" ? "faces" : "failures");
  grids.faces.active = 0;
  grids.failures.active = 0;
  applyThreshold();
  applySelection();
}

function applyThreshold() {
  if (!histogram) return;
  const stay = staying(threshold);
  const all = baseScores.length;
  const of = `of ${plural(all, "face", "faces")}${filtered() ? " that match the filters" : ""}`;
  get("stay").replaceChildren(
    element("b", { class: "stay" }, count(stay)), ` ${of} ${stay === 1 ? "stays" : "stay"} (${percent(stay, all)}), `,
    element("b", { class: "go" }, count(all - stay)), all - stay === 1 ? " goes" : " go",
  );
  const line = Math.max(threshold, histogram.low);
  histogram.place(line, `${histogram.label(line)}: ${count(stay)} ${of} ${stay === 1 ? "stays" : "stay"}`);
  if (document.activeElement !== get("threshold-number")) get("threshold-number").value = histogram.label(line);
  if (document.activeElement !== get("share")) get("share").value = all ? shareText(stay, all) : "";
}

function setThreshold(value) {
  threshold = value <= histogram.low ? -Infinity : roundedDown(value, DECIMALS);
  applyThreshold();
  later();
}

// Dragging moves the line at once; the grid follows once a frame.
let waiting = null;
function later() {
  waiting ??= requestAnimationFrame(() => {
    waiting = null;
    groups?.update(threshold, histogram.label(threshold));
    applySelection();
  });
}

function applySelection() {
  const some = { faces: sorted(shownFaces()), failures: shownFailures() };
  for (const [name, items] of Object.entries(some)) {
    grids[name].show(items);
    get(`tab-${name}`).querySelector("b").textContent = count(items.length);
    const empty = get(`panel-${name}`).querySelector(".empty");
    empty.hidden = items.length > 0;
    const everything = { faces, failures }[name].length;
    empty.textContent = everything ? "Nothing matches the filters." : { faces: "This run has no faces.", failures: "Nothing failed." }[name];
  }
  get("selected").textContent = `Selected: ${plural(some.faces.length, "face", "faces")}, ${plural(some.failures.length, "failure", "failures")}`;
  get("download").disabled = some.faces.length + some.failures.length === 0;
  get("printed").textContent = "";
}

function selection() {
  return [...shownFaces(), ...shownFailures()]; // in the order of rankings.csv
}

// ---- groups

function fillGroups() {
  const names = meta.groups.rows.map((row, place) => ({ place, name: row[0] ?? "(none)" }));
  names.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : a.place - b.place));
  controls.group.append(element("option", { value: "" }, "all"));
  controls.group.append(...names.map(({ place, name }) => element("option", { value: place }, name)));
  controls.group.closest("label").hidden = false;
}

function showGroup(place) {
  controls.group.value = place;
  applyFilters();
  get("results").scrollIntoView();
  get("results").focus({ preventScroll: true });
}

// ---- tabs

function openTab(name, focus = false) {
  for (const each of ["faces", "failures"]) {
    const tab = get(`tab-${each}`);
    tab.setAttribute("aria-selected", each === name);
    tab.tabIndex = each === name ? 0 : -1;
    get(`panel-${each}`).hidden = each !== name;
    if (focus && each === name) tab.focus();
  }
  grids[name].render();
}

for (const name of ["faces", "failures"]) {
  get(`tab-${name}`).addEventListener("click", () => openTab(name));
  get(`tab-${name}`).addEventListener("keydown", (event) => {
    const to = { ArrowLeft: "faces", Home: "faces", ArrowRight: "failures", End: "failures" }[event.key];
    if (to) {
      event.preventDefault();
      openTab(to, true);
    }
  });
}

// ---- controls

function fillControls() {
  const numbers = new Map();
  for (const status of statuses) numbers.set(status, (numbers.get(status) ?? 0) + 1);
  controls.status.append(element("option", { value: "" }, "all"));
  for (const [status, number] of numbers) {
    controls.status.append(element("option", { value: status }, `${status} (${count(number)})`));
  }
  const sortable = table.columns.filter((column) => column.kind !== "text" && !positions.has(column.name)
    && !["rank", "percentile", "face", "quality"].includes(column.name)
    && faces.some((row) => table.value(column.name, row) !== null));
  if (scored.length) controls.sort.append(element("option", { value: "quality" }, "quality"));
  for (const column of [{ name: "path" }, ...sortable]) {
    controls.sort.append(element("option", { value: column.name }, words(column.name)));
  }
  if (!scored.length) {
    controls.order.value = "up";
    controls.order.querySelector("[value=up]").defaultSelected = true;
  }
}

const folders = [...new Set((table.data.get("path") ?? []).map(folderOf))].sort();
function suggestFolders() {
  const typed = controls.folder.value.toLowerCase();
  const found = folders.filter((folder) => folder && folder.toLowerCase().startsWith(typed)).slice(0, 100);
  const top = folders[0] === "" && typed === "" ? [element("option", { value: "." }, "the top folder only")] : [];
  get("folders").replaceChildren(...top, ...found.map((folder) => element("option", { value: folder })));
}

fillControls();
suggestFolders();
controls.folder.addEventListener("input", suggestFolders);
if (folders.length < 2) controls.folder.closest("label").hidden = true;
if (!scored.length) for (const id of ["range", "show-label"]) get(id).hidden = true;

if (groups && members) fillGroups();

for (const id of ["text", "folder", "group", "status", "from", "to"]) controls[id].addEventListener("input", applyFilters);
for (const id of ["show", "order"]) controls[id].addEventListener("input", applySelection);
controls.sort.addEventListener("input", () => {
  controls.order.value = controls.sort.value === "path" ? "up" : "down";
  applySelection();
});
get("filters").addEventListener("submit", (event) => event.preventDefault());
get("filters").addEventListener("reset", () => setTimeout(() => {
  suggestFolders();
  applyFilters();
}));
get("threshold-number").addEventListener("input", (event) => setThreshold(numberOf(event.target, -Infinity)));
get("share").addEventListener("input", (event) => {
  const keep = best(numberOf(event.target, 100), baseScores.length);
  if (!baseScores.length || keep >= baseScores.length) setThreshold(-Infinity);
  else setThreshold(keep <= 0 ? histogram.high : baseScores[keep - 1]);
});
get("keep-all").addEventListener("click", () => setThreshold(-Infinity));
get("download").addEventListener("click", () => {
  const name = meta.name.replace(/[^\p{L}\p{N}._-]+/gu, "_") || "run";
  download(csvParts(table, selection()), `${name}-selection.csv`);
});

// ---- paper

function print() {
  const items = grids.faces.items.slice(0, PRINTED);
  const failed = grids.failures.items.slice(0, PRINTED);
  const sheet = element("div", { id: "print" }, element("div", { class: "printed-faces" }, ...items.map(tile)));
  for (const image of sheet.querySelectorAll("img")) image.decoding = "sync";
  const about = get("about").querySelector(".tables").cloneNode(true);
  if (failed.length) sheet.append(element("h2", {}, "Failures"), element("div", { class: "list" }, ...failed.map(failure)));
  sheet.append(about);
  const left = grids.faces.items.length - items.length + grids.failures.items.length - failed.length;
  get("printed").textContent = left ? `Printed are the first ${count(PRINTED)} of each; ${count(left)} more are selected.` : "";
  get("results").append(sheet);
}
addEventListener("beforeprint", print);
addEventListener("afterprint", () => {
  get("print")?.remove();
  get("printed").textContent = "";
});

// ---- start

if (histogram) {
  const middle = (scored.length - 1) / 2;
  const median = (qualities[scored[Math.floor(middle)]] + qualities[scored[Math.ceil(middle)]]) / 2;
  get("median").textContent = fixed(median, 4);
  get("spread").textContent = `Lowest ${fixed(qualities[scored.at(-1)], 4)}, median ${fixed(median, 4)}, highest ${fixed(qualities[scored[0]], 4)}.`;
  get("spread").append(element("span", { class: "hint" }, " Drag the line, or use the arrow keys."));
  Object.assign(get("threshold-number"), { step: histogram.step });
  get("threshold-panel").hidden = false;
  if (threshold <= histogram.low) threshold = -Infinity;
}
if (groups) {
  get("groups-panel").hidden = false;
  groups.update(threshold, histogram.label(threshold));
  groups.order();
}
get("filter-box").open = innerWidth >= 700;
applyFilters();
if (!faces.length && failures.length) openTab("failures");
document.documentElement.dataset.ready = "";
