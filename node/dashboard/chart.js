// The two charts of a node's rounds, drawn as SVG from numbers.

const SVG = "http://www.w3.org/2000/svg";
const LEFT = 40, RIGHT = 12, TOP = 8, BOTTOM = 20;

export function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

// Mean of each value and those before it, `width` at most; a value that is no number is left out.
export function smooth(values, width = 15) {
  return values.map((_, index) => {
    const part = values.slice(Math.max(0, index - width + 1), index + 1).filter(Number.isFinite);
    return part.length ? part.reduce((sum, value) => sum + value, 0) / part.length : null;
  });
}

export function drawReward(place, values, firstRound) {
  const frame = new Frame(place, 200, values, niceTop(values, 1), firstRound);
  frame.line(values, "raw");
  const means = smooth(values);
  frame.line(means, "smooth");
  frame.dot(means);
}

export function drawForeign(place, values, firstRound) {
  const frame = new Frame(place, 90, values, Math.max(1, ...values), firstRound);
  values.forEach((value, index) => frame.bar(value, index));
}

function niceTop(values, most) {
  const top = Math.max(0, ...values.filter(Number.isFinite));
  return [0.1, 0.2, 0.4, 0.6, 0.8, 1].find((step) => top <= step) ?? Math.max(top, most);
}

class Frame {
  constructor(place, height, values, top, firstRound) {
    this.width = Math.max(place.clientWidth, 240);
    this.height = height;
    this.count = values.length;
    this.top = top;
    this.svg = element("svg", { viewBox: `0 0 ${this.width} ${height}`, height, role: "img" });
    const last = firstRound + values.length - 1;
    this.svg.append(element("title", {}, `rounds ${firstRound} to ${last}`));
    for (const share of top === 1 && height < 100 ? [0, 1] : [0, 0.5, 1]) this.rule(top * share);
    this.label(this.x(0), this.height - 4, String(firstRound), "middle");
    if (values.length > 1) this.label(this.x(values.length - 1), this.height - 4, String(last), "end");
    if (values.length > 1) {
      this.label(this.x((values.length - 1) / 2), this.height - 4, "round", "middle");
    }
    place.replaceChildren(this.svg);
  }

  x(index) {
    const inner = this.width - LEFT - RIGHT;
    return LEFT + (this.count > 1 ? (index / (this.count - 1)) * inner : 0);
  }

  y(value) {
    return this.height - BOTTOM - (value / this.top) * (this.height - TOP - BOTTOM);
  }

  rule(value) {
    const y = this.y(value);
    this.svg.append(element("line", { x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y, class: "grid" }));
    this.label(LEFT - 8, y + 4, String(Number(value.toFixed(2))), "end");
  }

  label(x, y, text, anchor) {
    this.svg.append(element("text", { x, y, "text-anchor": anchor }, text));
  }

  line(values, name) {
    const points = values.map((value, index) => [value, index]).filter(([value]) => Number.isFinite(value));
    const path = points.map(([value, index]) => `${this.x(index).toFixed(1)},${this.y(value).toFixed(1)}`);
    this.svg.append(element("polyline", { points: path.join(" "), class: name }));
  }

  dot(values) {
    const value = values[values.length - 1];
    if (!Number.isFinite(value)) return;
    this.svg.append(element("circle", {
      cx: this.x(values.length - 1), cy: this.y(value), r: 4, class: "dot",
    }));
  }

  bar(value, index) {
    const step = (this.width - LEFT - RIGHT) / this.count;
    const y = this.y(value);
    this.svg.append(element("rect", {
      x: LEFT + index * step, y, width: Math.max(step * 0.8, 0.7), height: this.height - BOTTOM - y,
      class: "bar",
    }));
  }
}
