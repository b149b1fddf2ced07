// The histogram and its threshold: a native slider lies over the bars, so mouse, touch and
// keyboard work as everywhere.

const BINS = 60;

class Histogram {
  // values: all scores of the run; they fix the axis.
  constructor(values, onInput) {
    this.slider = document.getElementById("threshold");
    this.svg = document.getElementById("bars");
    this.flag = document.getElementById("flag");
    const { low, high, tick } = niceRange(values[values.length - 1], values[0]);
    Object.assign(this, { low, high });
    const digits = Math.max(0, Math.min(6, 3 - Math.ceil(Math.log10(high - low) - 1e-9)));
    this.step = 10 ** -digits;
    this.decimals = digits;
    Object.assign(this.slider, { min: low, max: high, step: this.step });
    this.drawAxis(tick);
    this.slider.addEventListener("input", () => onInput(Number(this.slider.value)));
    // Page keys in larger steps
    this.slider.addEventListener("keydown", (event) => {
      const steps = { PageUp: 50, PageDown: -50 }[event.key];
      if (steps === undefined) return;
      event.preventDefault();
      this.slider.value = Number(this.slider.value) + steps * this.step;
      onInput(Number(this.slider.value));
    });
  }

  drawAxis(tick) {
    const axis = document.getElementById("axis");
    const places = Math.max(0, -Math.floor(Math.log10(tick) + 1e-9));
    const ticks = Math.round((this.high - this.low) / tick);
    for (let i = 0; i <= ticks; i++) {
      const label = element("span", {}, (this.low + i * tick).toFixed(places));
      label.style.left = `${(100 * i) / ticks}%`;
      axis.append(label);
    }
  }

  // values: the scores to show, any order.
  draw(values) {
    const bins = new Uint32Array(BINS);
    const scale = BINS / (this.high - this.low);
    for (const value of values) {
      bins[Math.max(0, Math.min(BINS - 1, Math.floor((value - this.low) * scale)))]++;
    }
    const peak = Math.max(...bins);
    const width = 1000 / BINS;
    const path = [...bins]
      .map((number, i) => {
        if (!number) return "";
        const height = Math.max(1.5, (96 * number) / peak);
        return `M${(i * width + 1).toFixed(2)} 100v-${height.toFixed(2)}h${(width - 2).toFixed(2)}V100z`;
      })
      .join("");
    document.getElementById("peak").textContent = peak ? `Highest bar: ${plural(peak, "face", "faces")}` : "";
    const clip = drawing("clipPath", { id: "staying" });
    this.window = drawing("rect", { x: 0, y: 0, width: 1000, height: 100 });
    clip.append(this.window);
    this.svg.replaceChildren(
      clip,
      drawing("path", { d: path, class: "going" }),
      drawing("path", { d: path, class: "staying", "clip-path": "url(#staying)" }),
    );
  }

  // A threshold as the page writes it: the axis' decimals, more where it has them.
  label(threshold) {
    const text = threshold.toFixed(this.decimals);
    return Number(text) === threshold ? text : String(threshold);
  }

  // Move the line without telling anybody.
  place(threshold, spoken) {
    const share = Math.max(0, Math.min(1, (threshold - this.low) / (this.high - this.low)));
    this.slider.value = threshold;
    this.slider.setAttribute("aria-valuetext", spoken);
    this.window?.setAttribute("x", 1000 * share);
    this.flag.style.left = `${100 * share}%`;
    this.flag.classList.toggle("right", share > 0.85);
    this.flag.firstElementChild.textContent = this.label(threshold);
  }
}

// Round numbers around a range, and the distance of labels on it.
function niceRange(lowest, highest) {
  const span = Math.max(highest - lowest, Math.abs(highest) * 1e-3, 1e-3);
  const rough = span / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const tick = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const round = (number) => Number(number.toPrecision(12));
  const low = round(Math.floor(lowest / tick + 1e-9) * tick);
  let high = round(Math.ceil(highest / tick - 1e-9) * tick);
  if (high <= low) high = round(low + tick);
  return { low, high, tick };
}
