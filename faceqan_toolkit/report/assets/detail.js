// One row in full: photo with box and landmarks, crop, parts of the score, all columns, JSON.

class Detail {
  constructor({ meta, table, pictures, stays }) {
    Object.assign(this, { meta, table, pictures, stays });
    this.dialog = document.getElementById("detail");
    this.body = document.getElementById("detail-body");
    const on = (id, action) => document.getElementById(id).addEventListener("click", action);
    on("previous", () => this.move(-1));
    on("next", () => this.move(1));
    on("close", () => this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      this.move(step);
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside it
    });
    this.dialog.addEventListener("close", () => this.grid.focus(this.place));
  }

  open(grid, place) {
    Object.assign(this, { grid, place });
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
    this.body.focus({ preventScroll: true });
  }

  move(step) {
    const place = this.place + step;
    if (place < 0 || place >= this.grid.items.length) return;
    this.place = place;
    this.draw();
    // what had the focus may have been drawn anew
    if (!this.dialog.contains(document.activeElement)) this.body.focus({ preventScroll: true });
  }

  draw() {
    const { table, grid, place } = this;
    const row = grid.items[place];
    const face = table.value("face", row);
    document.getElementById("position").textContent = `${count(place + 1)} of ${count(grid.items.length)}`;
    // aria-disabled keeps the focus where it is at either end
    document.getElementById("previous").setAttribute("aria-disabled", place === 0);
    document.getElementById("next").setAttribute("aria-disabled", place === grid.items.length - 1);
    const path = table.value("path", row);
    const title = element("h2", { id: "detail-title" }, element("bdi", {}, path));
    if (face !== null) title.append(element("span", { class: "quiet" }, ` face ${face}`));
    this.body.replaceChildren(
      title,
      this.headline(row),
      element("div", { class: "detail-columns" }, this.figures(row), this.facts(row)),
      this.json(row),
    );
    this.body.scrollTop = 0;
    this.dialog.scrollTop = 0;
  }

  headline(row) {
    const { table } = this;
    const status = table.value("status", row);
    const reason = table.value("reason", row);
    if (status !== "ok") {
      return element("p", { class: "headline" }, element("span", { class: "tag go" }, status), " ", element("bdi", {}, reason ?? ""));
    }
    const line = element("p", { class: "headline" });
    if (table.value("quality", row) !== null) {
      const stays = this.stays(row);
      line.append(
        element("strong", {}, fixed(table.value("quality", row), 4)),
        ` rank ${count(table.value("rank", row))}, percentile ${percentile(table.value("percentile", row))} `,
        element("span", { class: stays ? "tag stay" : "tag go" }, stays ? "stays" : "goes"),
      );
    }
    if (reason) line.append(" ", element("bdi", {}, reason));
    return line;
  }

  figures(row) {
    const box = element("div", { class: "figures" });
    const photo = this.pictures.photo(row);
    const note = element("p", { class: "quiet" });
    if (photo) box.append(this.photo(row, photo, note));
    else if (this.meta.photos !== "none") note.textContent = "The photo was moved, deleted, changed since the run, or cannot be read.";
    const crop = this.pictures.thumbnail(row);
    if (crop) {
      crop.alt = "Aligned crop, as the recognition model sees it";
      const frame = element("div", { class: "crop" }, crop);
      box.append(element("figure", { class: "small" }, frame, element("figcaption", {}, "Aligned crop")));
    }
    if (note.textContent || photo) box.append(note);
    return box;
  }

  photo(row, { url, size }, note) {
    const name = this.table.value("path", row);
    const figure = element("figure", { class: "photo" });
    const image = element("img", { alt: `Photo ${name}` });
    const frame = element("div", { class: "frame" }, image);
    const caption = element("figcaption", {}, "Photo");
    const mark = (width, height) => {
      frame.querySelector("svg")?.remove();
      const marks = this.marks(row, width, height);
      if (marks) frame.append(marks);
      caption.textContent = `Photo, ${count(width)} × ${count(height)} pixels`;
    };
    image.addEventListener("load", () => mark(...(size ?? [image.naturalWidth, image.naturalHeight])));
    image.addEventListener("error", () => {
      figure.remove();
      note.textContent = "The photo cannot be shown: moved, deleted, or in a format this browser does not know.";
    });
    if (size) image.style.aspectRatio = `${size[0]} / ${size[1]}`;
    image.src = url;
    figure.append(frame, caption);
    return figure;
  }

  // Box and landmarks over a photo, in the photo's own pixels.
  marks(row, width, height) {
    const numbers = (names) => names.map((name) => this.table.value(name, row));
    const box = numbers(this.meta.box);
    const points = numbers(this.meta.landmarks);
    if (box.includes(null) && points.includes(null)) return null;
    // pixel centres are whole numbers
    const marks = drawing("svg", { viewBox: `-0.5 -0.5 ${width} ${height}`, "aria-hidden": "true" });
    if (!box.includes(null)) {
      const [x, y, right, bottom] = box;
      for (const kind of ["halo", "box"]) {
        marks.append(drawing("rect", { x, y, width: Math.max(0, right - x), height: Math.max(0, bottom - y), class: kind }));
      }
    }
    if (!points.includes(null)) {
      const radius = Math.max(width, height) / 160;
      for (let i = 0; i < points.length; i += 2) {
        marks.append(drawing("circle", { cx: points[i], cy: points[i + 1], r: radius }));
      }
    }
    return marks;
  }

  facts(row) {
    const box = element("div", { class: "facts" });
    const parts = this.parts(row);
    if (parts) box.append(parts);
    // every other column as it comes: texts first, as they say most
    const drawn = new Set([
      ...this.meta.box, ...this.meta.landmarks,
      "rank", "path", "face", "quality", "percentile", "status", "reason", "crop", "root",
    ]);
    const columns = this.table.columns.filter((column) => !drawn.has(column.name));
    const filled = columns.filter((column) => this.table.shown(column, row) !== "");
    const list = element("dl", { class: "columns" });
    for (const column of [...filled.filter(isLong), ...filled.filter((column) => !isLong(column))]) {
      const text = this.table.shown(column, row);
      const items = column.kind === "text" && text.includes("; ") ? text.split("; ") : [text];
      const shown = items.length > 1
        ? element("ul", {}, ...items.map((item) => element("li", {}, element("bdi", {}, item))))
        : element("bdi", {}, text);
      const name = element("dt", {}, words(column.name));
      list.append(element("div", { class: items.length > 1 || text.length > 24 ? "long" : "" }, name, element("dd", {}, shown)));
    }
    if (list.childElementCount) box.append(list);
    const root = this.table.value("root", row);
    if (root) box.append(element("p", { class: "quiet where" }, "Folder: ", element("bdi", {}, root)));
    return box;
  }

  // The three factors of a measured FaceQAN score, if they do make up this score.
  parts(row) {
    const [mean, std, symmetry] = ["similarity_mean", "similarity_std", "symmetry"].map((name) => this.table.value(name, row));
    const quality = this.table.value("quality", row);
    const { exponent } = this.meta;
    if ([mean, std, symmetry, quality, exponent].includes(null)) return null;
    const factors = [(1 + mean) / 2, Math.max(0, Math.min(1, 1 - std)), symmetry];
    const base = factors[0] * factors[1] * factors[2];
    if (Math.abs(Math.sign(base) * Math.abs(base) ** exponent - quality) > 1e-3) return null;
    const names = ["Alike under noise", "Evenly alike", "Alike when mirrored"];
    const meters = factors.map((factor, i) => {
      const fill = element("span", { class: "fill" });
      fill.style.width = `${100 * Math.max(0, Math.min(1, factor))}%`;
      return element("div", { class: "part" },
        element("span", {}, names[i]), element("span", { class: "number" }, factor.toFixed(3)),
        element("span", { class: "meter", "aria-hidden": "true" }, fill));
    });
    const sum = `${factors.map((factor) => factor.toFixed(3)).join(" × ")} = ${base.toFixed(3)}; to the power of ${exponent} = ${fixed(quality, 4)}`;
    return element("div", { class: "parts" }, element("h3", {}, "What the score is made of"), ...meters, element("p", { class: "quiet" }, sum));
  }

  json(row) {
    const text = JSON.stringify(this.table.record(row), null, 2);
    const details = element("details", {}, element("summary", {}, "Record as JSON"), element("pre", { tabindex: 0, "aria-label": "Record as JSON" }, text));
    details.open = this.jsonOpen ?? false; // as it was left at the face before
    details.addEventListener("toggle", () => {
      this.jsonOpen = details.open;
    });
    return details;
  }
}

const isLong = (column) => column.kind === "text";
const words = (name) => name.replaceAll("_", " ");
