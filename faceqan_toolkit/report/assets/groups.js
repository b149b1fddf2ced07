// Groups beside each other: who is discarded more. Shares follow the threshold where the page has
// all rows; else they stand as the tool computed them.

const GROUPS_SHOWN = 50;

class Groups {
  // info: of meta. members: the group of each row. scored: rows with a score, best first.
  // choose(place): show that group's faces.
  constructor(info, { members, scored, qualities, choose }) {
    Object.assign(this, { info, members, scored, qualities, choose });
    this.groups = info.rows.map((row, place) => ({
      place,
      ...Object.fromEntries(info.figures.map((name, i) => [name, row[i]])),
    }));
    const known = this.groups.filter((group) => group.median !== null);
    this.low = known.reduce((low, group) => Math.min(low, group.q05), Infinity);
    this.high = known.reduce((high, group) => Math.max(high, group.q95), this.low + 1e-3);
    this.host = document.getElementById("groups");
    this.head = this.host.querySelector("thead tr");
    this.body = this.host.querySelector("tbody");
    this.more = document.getElementById("groups-more");
    this.shown = GROUPS_SHOWN;
    this.shares = info.follow || this.groups.some((group) => group.share !== null);
    this.columns = this.describe();
    this.sorting = this.shares ? { key: "share", up: false } : { key: "median", up: true };
    this.drawHead();
    this.more.addEventListener("click", () => {
      this.shown += 4 * GROUPS_SHOWN;
      this.draw();
    });
    this.order();
  }

  describe() {
    const quantile = (key, title) => ({ key, title, cell: (group) => [score(group[key])] });
    const shares = [
      { key: "share", title: `Below ${this.info.below ?? "the threshold"}`, cell: (group) => rated(group, "share", shareOf, false) },
      { key: "difference", title: "Against all others", cell: (group) => rated(group, "difference", points, true) },
    ];
    return [
      { key: "group", title: this.info.by, cell: (group) => [this.name(group)] },
      { key: "faces", title: "Faces", cell: (group) => [count(group.faces)] },
      ...(this.shares ? shares : []),
      { title: "Spread", cell: (group) => [this.spread(group)] },
      quantile("q05", "5 %"), quantile("q25", "25 %"), quantile("median", "Median"),
      quantile("q75", "75 %"), quantile("q95", "95 %"),
      { key: "unscored", title: "No score", cell: (group) => [count(group.unscored)] },
    ];
  }

  drawHead() {
    for (const column of this.columns) {
      const title = column.key === "group" ? element("bdi", {}, column.title) : column.title;
      column.head = element("th", { scope: "col" });
      if (column.key) {
        column.button = element("button", { type: "button" }, title);
        column.button.addEventListener("click", () => this.sortBy(column.key));
        column.head.append(column.button);
      } else column.head.append(title);
      this.head.append(column.head);
    }
  }

  // The same column again turns the order round.
  sortBy(key) {
    const again = this.sorting.key === key;
    this.sorting = { key, up: again ? !this.sorting.up : key === "group" || key === "median" };
    this.order();
  }

  // Ties, as all shares are while nobody goes: the lowest median first, then by name.
  order() {
    const { key, up } = this.sorting;
    const compare = (a, b, name, rising) => {
      if (a[name] === b[name]) return 0;
      if (a[name] === null) return 1;
      if (b[name] === null) return -1;
      return (a[name] < b[name] ? -1 : 1) * (rising ? 1 : -1);
    };
    this.groups.sort((a, b) => compare(a, b, key, up) || compare(a, b, "median", true) || compare(a, b, "group", true));
    for (const column of this.columns) {
      if (column.key === key) column.head.setAttribute("aria-sort", up ? "ascending" : "descending");
      else column.head.removeAttribute("aria-sort");
    }
    this.draw();
  }

  // Count anew at a threshold; label is how the page writes it.
  update(threshold, label) {
    this.threshold = threshold;
    if (!this.info.follow) return;
    const { groups, scored, members, qualities } = this;
    const below = new Uint32Array(groups.length);
    let all = 0;
    for (let i = scored.length - 1; i >= 0 && qualities[scored[i]] < threshold; i--, all++) {
      const place = members[scored[i]];
      if (place >= 0) below[place]++;
    }
    for (const group of groups) {
      const figures = compared(below[group.place], group.faces, all, scored.length);
      Object.assign(group, threshold === -Infinity ? compared(0, 0, 0, 0) : figures);
    }
    this.label(threshold === -Infinity ? "" : label);
    this.draw();
    // rows keep their places while the line moves
    clearTimeout(this.waiting);
    if (["share", "difference"].includes(this.sorting.key)) this.waiting = setTimeout(() => this.order(), 400);
  }

  label(threshold) {
    const share = this.columns.find((column) => column.key === "share");
    if (share) share.button.textContent = threshold ? `Below ${threshold}` : "Below the threshold";
  }

  draw() {
    const shown = this.groups.slice(0, this.shown);
    this.body.replaceChildren(...shown.map((group) => this.row(group)));
    const left = this.groups.length - shown.length;
    this.more.hidden = left === 0;
    this.more.textContent = `Show ${count(Math.min(left, 4 * GROUPS_SHOWN))} more of ${plural(left, "group", "groups")}`;
  }

  row(group) {
    return element("tr", {}, ...this.columns.map((column) => column.key === "group"
      ? element("th", { scope: "row" }, ...column.cell(group))
      : element("td", {}, ...column.cell(group))));
  }

  name(group) {
    const text = group.group === null ? element("i", {}, "(none)") : element("bdi", { title: group.group }, group.group);
    if (!this.info.follow) return text;
    const button = element("button", { type: "button", class: "link" }, text);
    button.addEventListener("click", () => this.choose(group.place));
    return button;
  }

  // 5 % to 95 % as a line, 25 % to 75 % as a box, the median, and the threshold across.
  spread(group) {
    const box = drawing("svg", { class: "spread", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" });
    if (group.median === null) return box;
    const at = (quality) => (100 * (quality - this.low)) / (this.high - this.low);
    const line = (from, to, y1, y2, name) => drawing("line", { x1: at(from), x2: at(to), y1, y2, class: name });
    box.append(
      line(group.q05, group.q95, 10, 10, "reach"),
      drawing("rect", { x: at(group.q25), y: 4, width: Math.max(0.5, at(group.q75) - at(group.q25)), height: 12 }),
      line(group.median, group.median, 3, 17, "middle"),
    );
    if (this.threshold >= this.low && this.threshold <= this.high) box.append(line(this.threshold, this.threshold, 0, 20, "threshold"));
    return box;
  }
}

// Share of a group below the threshold, and against all others; none where there is nobody.
function compared(below, faces, allBelow, allFaces) {
  const none = [null, null, null];
  const share = faces ? [below / faces, ...wilson(below, faces)] : none;
  const apart = faces && allFaces > faces ? difference([below, faces], [allBelow - below, allFaces - faces]) : none;
  const named = (name, [value, low, high]) => ({ [name]: value, [`${name}_low`]: low, [`${name}_high`]: high });
  return { ...named("share", share), ...named("difference", apart) };
}

const score = (value) => (value === null ? "–" : fixed(value, 3));
const shareOf = (value) => (100 * value).toFixed(1);
const points = (value) => `${value < 0 ? "−" : "+"}${Math.abs(100 * value).toFixed(1)}`;

// A figure with its range; clear marks one whose range leaves 0 out.
function rated(group, name, text, marked) {
  const [value, low, high] = [name, `${name}_low`, `${name}_high`].map((key) => group[key]);
  if (value === null) return ["–"];
  const clear = marked && (low > 0 || high < 0) ? (value > 0 ? "go" : "stay") : "";
  return [element("b", { class: clear }, `${text(value)} %`), element("small", {}, `${text(low)} to ${text(high)}`)];
}
