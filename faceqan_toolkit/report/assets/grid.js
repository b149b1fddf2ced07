// A grid of any length: only the lines in sight are in the document. Arrow keys move in it.

const OVERSCAN = 2;

class Grid {
  // cell: {width, height} of an item in CSS pixels: items are at least so wide and share the line;
  // width null makes a list. draw(row) -> a button.
  constructor(host, { cell, draw, open }) {
    Object.assign(this, { host, cell, draw, open });
    this.items = [];
    this.lines = new Map();
    this.active = 0;
    this.perLine = 1;
    const later = () => {
      this.frame ??= requestAnimationFrame(() => {
        this.frame = null;
        this.render();
      });
    };
    addEventListener("scroll", later, { passive: true });
    new ResizeObserver(later).observe(host);
    addEventListener("resize", later);
    host.addEventListener("keydown", (event) => this.key(event));
    host.addEventListener("click", (event) => {
      const button = event.target.closest("[data-place]");
      if (!button) return;
      this.active = Number(button.dataset.place);
      this.open(this.active);
    });
    host.addEventListener("focusin", (event) => {
      const button = event.target.closest("[data-place]");
      if (button) this.activate(Number(button.dataset.place));
    });
  }

  // Show these rows, from the first on.
  show(items) {
    this.items = items;
    this.active = Math.max(0, Math.min(this.active, items.length - 1));
    this.redraw();
  }

  redraw() {
    const focused = this.host.contains(document.activeElement);
    this.clear();
    this.render();
    if (focused) this.focus(this.active);
  }

  clear() {
    for (const line of this.lines.values()) line.remove();
    this.lines.clear();
  }

  get height() {
    return typeof this.cell.height === "function" ? this.cell.height() : this.cell.height;
  }

  render() {
    const width = this.host.clientWidth;
    if (!width) return; // hidden
    const perLine = this.cell.width ? Math.max(1, Math.floor(width / this.cell.width)) : 1;
    if (perLine !== this.perLine || this.height !== this.lineHeight) this.clear();
    this.perLine = perLine;
    this.lineHeight = this.height;
    const total = Math.ceil(this.items.length / perLine);
    this.host.style.height = `${total * this.lineHeight}px`;
    this.host.setAttribute("aria-rowcount", total);
    this.host.setAttribute("aria-colcount", perLine);
    const above = -this.host.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(above / this.lineHeight) - OVERSCAN);
    const last = Math.min(total - 1, Math.floor((above + innerHeight) / this.lineHeight) + OVERSCAN);
    const wanted = new Set();
    for (let line = first; line <= last; line++) wanted.add(line);
    // what has the focus must not vanish; what Tab leads to must be there
    const activeLine = Math.floor(this.active / perLine);
    if (activeLine < total) wanted.add(activeLine);
    for (const [line, node] of this.lines) {
      if (!wanted.has(line)) {
        node.remove();
        this.lines.delete(line);
      }
    }
    let next = null;
    for (const line of [...wanted].sort((a, b) => b - a)) {
      let node = this.lines.get(line);
      if (!node) {
        node = this.line(line);
        this.lines.set(line, node);
      }
      if (node.nextSibling !== next || node.parentNode !== this.host) this.host.insertBefore(node, next);
      next = node;
    }
  }

  line(number) {
    const node = element("div", { role: "row", class: "line", "aria-rowindex": number + 1 });
    node.style.top = `${number * this.lineHeight}px`;
    const end = Math.min(this.items.length, (number + 1) * this.perLine);
    for (let place = number * this.perLine; place < end; place++) {
      const button = this.draw(this.items[place]);
      button.dataset.place = place;
      button.tabIndex = place === this.active ? 0 : -1;
      node.append(element("div", { role: "gridcell", "aria-colindex": (place % this.perLine) + 1 }, button));
      node.lastChild.style.width = `${100 / this.perLine}%`;
    }
    return node;
  }

  button(place) {
    return this.host.querySelector(`[data-place="${place}"]`);
  }

  activate(place) {
    const before = this.button(this.active);
    if (before) before.tabIndex = -1;
    this.active = place;
    const now = this.button(place);
    if (now) now.tabIndex = 0;
  }

  // Bring an item into sight and give it the focus.
  focus(place) {
    if (!this.items.length) return;
    this.activate(Math.max(0, Math.min(place, this.items.length - 1)));
    const top = this.host.getBoundingClientRect().top + Math.floor(this.active / this.perLine) * this.lineHeight;
    const covered = document.querySelector(".bar").offsetHeight + 8;
    if (top < covered) scrollBy({ top: top - covered, behavior: "instant" });
    else if (top + this.lineHeight > innerHeight) {
      scrollBy({ top: top + this.lineHeight - innerHeight + 8, behavior: "instant" });
    }
    this.render();
    this.button(this.active)?.focus({ preventScroll: true });
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = this.perLine * Math.max(1, Math.floor(innerHeight / this.lineHeight) - 1);
    const step = {
      ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.perLine, ArrowDown: this.perLine,
      PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity,
    }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const place = this.active + step;
    const outside = place < 0 || place >= this.items.length;
    if (outside && (event.key === "ArrowUp" || event.key === "ArrowDown")) return;
    this.focus(Math.max(0, Math.min(place, this.items.length - 1)));
  }
}

// An element with attributes and children; texts become text, never markup.
function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// The same within a drawing.
function drawing(name, attributes) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
