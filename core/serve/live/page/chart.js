// Curves on a canvas: axes, a log scale, smoothing above the raw line, bands, values under the pointer, zoom, keys and touch.
//
// chart(title) gives {element, show(curves, options), mark(id), forget()}. A curve: {id, name, colour (a number), x, y} and, where it is a
// mean, low and high. y may hold null: a gap. options: {log: y is logarithmic, smoothing: 0 to 0.99, xName, legend: whether names are listed}.
// Every step is a function below of plain values, so that it can be tested alone.

const COLOURS = 10; // --curve-0 to --curve-9 in live.css; beyond them lines are dashed
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];
const PAD = { left: 58, right: 14, top: 10, bottom: 26 };
const NEAR = 12; // names in the box of values

// The steps between marks on an axis: 1, 2 or 5 times a power of ten, so that at most `most` fit.
export function niceStep(span, most) {
  const rough = span / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999);
}

// Where an axis has its marks. A log axis takes powers of ten, and 2 and 5 between them where there is room.
export function ticks(low, high, most, log = false) {
  if (!(high > low)) return [low];
  if (log) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const factor of high / low < 10 ** (most / 2.5) ? [1, 2, 5] : [1]) found.push(factor * 10 ** power);
    }
    const seen = found.filter((one) => one >= low * 0.9999 && one <= high * 1.0001);
    const every = Math.ceil(seen.length / Math.max(most, 1));
    if (seen.length > 1) return seen.filter((_, at) => at % every === 0);
  }
  const step = niceStep(high - low, most);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, at) => Number(((first + at) * step).toPrecision(12)));
}

// A number as people write it: four digits that count.
export function written(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${Number((value / 1e9).toPrecision(4))}G`;
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (size >= 1e4) return Math.round(value).toLocaleString("en");
  if (size !== 0 && size < 1e-3) return value.toExponential(2).replace("e-", "e−");
  return String(Number(value.toPrecision(4)));
}

// A curve's y with the noise taken out: a running mean whose memory is `weight`, without the pull of its start. Gaps stay.
export function smoothed(y, weight) {
  let held = 0, mass = 0;
  return y.map((value) => {
    if (value === null || !Number.isFinite(value)) return null;
    held = held * weight + (1 - weight) * value;
    mass = mass * weight + (1 - weight);
    return held / mass;
  });
}

// The place in x (rising) that is nearest to a value; -1 where there is none.
export function nearest(x, value) {
  let low = 0, high = x.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x[middle] < value) low = middle; else high = middle;
  }
  if (high < 0) return -1;
  return value - x[low] <= x[high] - value ? low : high;
}

// What all curves span: [x0, x1, y0, y1], with some room above and below. null where there is nothing to see. within: only that part of x.
export function extent(curves, log, within = null) {
  let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
  for (const { x, y, low, high } of curves) {
    for (let at = 0; at < x.length; at++) {
      if (within && (x[at] < within[0] || x[at] > within[1])) continue;
      for (const value of [y[at], low?.[at], high?.[at]]) {
        if (value === null || !Number.isFinite(value) || (log && value <= 0)) continue;
        if (value < y0) y0 = value;
        if (value > y1) y1 = value;
        if (x[at] < x0) x0 = x[at];
        if (x[at] > x1) x1 = x[at];
      }
    }
  }
  if (x0 === Infinity) return null;
  if (x0 === x1) [x0, x1] = [Math.min(0, x0), x1 || 1];
  if (within) [x0, x1] = within;
  if (log) {
    const room = (y1 / y0) ** 0.06 || 1;
    return y0 === y1 ? [x0, x1, y0 / 2, y1 * 2] : [x0, x1, y0 / room, y1 * room];
  }
  const room = (y1 - y0) * 0.06 || Math.abs(y1) * 0.1 || 1;
  return [x0, x1, y0 - room, y1 + room];
}

// From values to places on the canvas, and back. view: [x0, x1, y0, y1]; box: the size of the canvas.
export function scales(view, box, log) {
  const [x0, x1, y0, y1] = view;
  const up = log ? Math.log10 : Number;
  const wide = box.width - PAD.left - PAD.right, tall = box.height - PAD.top - PAD.bottom;
  const bottom = up(y0), span = up(y1) - up(y0);
  return {
    x: (value) => PAD.left + ((value - x0) / (x1 - x0)) * wide,
    y: (value) => PAD.top + tall - ((up(value) - bottom) / span) * tall,
    fromX: (place) => x0 + ((place - PAD.left) / wide) * (x1 - x0),
    fromY: (place) => { const found = bottom + ((PAD.top + tall - place) / tall) * span; return log ? 10 ** found : found; },
  };
}

// Put a curve's line on the canvas. Gaps lift the pen; a point that stands alone becomes a dot.
function line(pen, curve, y, to) {
  const places = y.map((value) => (value === null ? NaN : to.y(value)));
  const isThere = (at) => Number.isFinite(places[at]);
  pen.beginPath();
  places.forEach((place, at) => {
    if (!isThere(at)) return;
    if (isThere(at - 1)) pen.lineTo(to.x(curve.x[at]), place); else pen.moveTo(to.x(curve.x[at]), place);
  });
  pen.stroke();
  places.forEach((place, at) => {
    if (!isThere(at) || isThere(at - 1) || isThere(at + 1)) return;
    pen.beginPath();
    pen.arc(to.x(curve.x[at]), place, 3, 0, 7);
    pen.fill();
  });
}

// Fill the band between low and high.
function band(pen, { x, low, high }, to) {
  const places = x.map((_, at) => at).filter((at) => [low[at], high[at]].every((one) => one !== null && Number.isFinite(to.y(one))));
  if (places.length < 2) return;
  pen.beginPath();
  places.forEach((at) => pen.lineTo(to.x(x[at]), to.y(high[at])));
  places.reverse().forEach((at) => pen.lineTo(to.x(x[at]), to.y(low[at])));
  pen.fill();
}

// An element with a class and text.
function part(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

// Make a chart. See the head of this file.
export function chart(title) {
  const canvas = document.createElement("canvas");
  const caption = part("figcaption", "chart-title", title);
  const reset = part("button", "chart-reset", "Whole curve");
  const values = part("div", "chart-values");
  const legend = part("ul", "chart-legend");
  const frame = part("div", "chart-frame");
  const probe = part("i", ""), known = new Map();
  const element = part("figure", "chart");
  reset.type = "button";
  reset.hidden = values.hidden = true;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  values.setAttribute("aria-live", "polite");
  caption.append(reset);
  probe.hidden = true;
  frame.append(canvas, values, probe);
  element.append(caption, frame, legend);

  let curves = [], options = { log: false, smoothing: 0, xName: "step", legend: false };
  let zoom = null, box = { width: 0, height: 0 }, cursor = null, from = null, to = null, marked = "", waiting = 0;
  const hidden = new Set(), pointers = new Map();
  let pinch = null;

  const shown = () => curves.filter(({ id }) => !hidden.has(id));
  const logs = () => options.log && shown().some(({ y }) => y.some((value) => value > 0));
  const view = () => zoom ?? extent(shown(), logs());
  const redraw = () => { if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; draw(); }); };

  // A colour of the page's, as the canvas understands it. Asking the browser takes time, so the answers are kept until the theme changes.
  function style(name) {
    if (!known.get(name)) { // a chart that is not on the page yet gets ""
      probe.style.color = `var(${name})`;
      known.set(name, getComputedStyle(probe).color);
    }
    return known.get(name);
  }

  const nameOf = (curve) => `--curve-${curve.colour % COLOURS}`;
  const colourOf = (curve) => style(nameOf(curve));

  function swatchOf(curve) {
    const made = part("i", "swatch");
    made.style.background = `var(${nameOf(curve)})`;
    return made;
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    if (!box.width || !element.isConnected) return;
    if (canvas.width !== Math.round(box.width * ratio) || canvas.height !== Math.round(box.height * ratio)) {
      canvas.width = Math.round(box.width * ratio);
      canvas.height = Math.round(box.height * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, box.width, box.height);
    pen.font = `12px ${getComputedStyle(element).fontFamily}`;
    const seen = view();
    reset.hidden = zoom === null;
    if (!seen) {
      pen.fillStyle = style("--soft");
      pen.textAlign = "center";
      pen.fillText("no figures yet", box.width / 2, box.height / 2);
      return;
    }
    const log = logs(), at = scales(seen, box, log);
    axes(pen, seen, at, log);
    pen.save();
    pen.beginPath();
    pen.rect(PAD.left, PAD.top - 2, box.width - PAD.left - PAD.right, box.height - PAD.top - PAD.bottom + 4);
    pen.clip();
    pen.lineJoin = "round";
    const ordered = [...shown()].sort((one, two) => (one.id === marked) - (two.id === marked));
    for (const curve of ordered) {
      pen.strokeStyle = pen.fillStyle = colourOf(curve);
      const dim = marked && curve.id !== marked ? 0.35 : 1;
      pen.setLineDash([]);
      if (curve.low && curve.high) { pen.globalAlpha = 0.16 * dim; band(pen, curve, at); }
      if (options.smoothing > 0) {
        pen.globalAlpha = 0.28 * dim;
        pen.lineWidth = 1;
        line(pen, curve, curve.y, at);
      }
      pen.globalAlpha = dim;
      pen.lineWidth = curve.id === marked ? 2.6 : 1.7;
      pen.setLineDash(DASHES[Math.floor(curve.colour / COLOURS) % DASHES.length]);
      line(pen, curve, curve.smooth, at);
    }
    pen.restore();
    if (cursor !== null) crosshair(pen, at);
    if (from && to) {
      pen.fillStyle = style("--leaf");
      pen.globalAlpha = 0.15;
      const flat = Math.abs(to.y - from.y) < 24;
      pen.fillRect(Math.min(from.x, to.x), flat ? PAD.top : Math.min(from.y, to.y), Math.abs(to.x - from.x), flat ? box.height - PAD.top - PAD.bottom : Math.abs(to.y - from.y));
      pen.globalAlpha = 1;
    }
  }

  function axes(pen, [x0, x1, y0, y1], at, log) {
    pen.strokeStyle = style("--line");
    pen.fillStyle = style("--soft");
    pen.lineWidth = 1;
    pen.setLineDash([]);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const value of ticks(y0, y1, Math.max(2, Math.floor(box.height / 34)), log)) {
      const place = Math.round(at.y(value)) + 0.5;
      pen.beginPath();
      pen.moveTo(PAD.left, place);
      pen.lineTo(box.width - PAD.right, place);
      pen.stroke();
      pen.fillText(written(value), PAD.left - 8, place);
    }
    pen.textAlign = "center";
    pen.textBaseline = "top";
    const named = box.width - PAD.right - pen.measureText(options.xName).width - 8; // where the axis' name begins
    for (const value of ticks(x0, x1, Math.max(2, Math.floor(box.width / 60)))) {
      const place = at.x(value), text = written(value);
      if (place + pen.measureText(text).width / 2 < named) pen.fillText(text, place, box.height - PAD.bottom + 8);
    }
    pen.textAlign = "right";
    pen.fillText(options.xName, box.width - PAD.right, box.height - PAD.bottom + 8);
  }

  // The curves' values at the cursor, the lowest line last, as they stand in the picture.
  function under() {
    const found = [];
    for (const curve of shown()) {
      const at = nearest(curve.x, cursor);
      if (at < 0 || curve.smooth[at] === null) continue;
      const half = (curve.x.at(-1) - curve.x[0]) / (curve.x.length - 1) / 2;
      if (cursor > curve.x.at(-1) + half && curves.length > 1) continue; // it has not come so far
      found.push({ curve, at });
    }
    return found.sort((one, two) => two.curve.smooth[two.at] - one.curve.smooth[one.at]);
  }

  function crosshair(pen, at) {
    const found = under();
    const exact = found.length ? found[0].curve.x[found[0].at] : cursor;
    const place = at.x(exact);
    pen.strokeStyle = style("--soft");
    pen.globalAlpha = 0.6;
    pen.beginPath();
    pen.moveTo(place, PAD.top);
    pen.lineTo(place, box.height - PAD.bottom);
    pen.stroke();
    pen.globalAlpha = 1;
    for (const { curve, at: index } of found) {
      pen.fillStyle = colourOf(curve);
      pen.beginPath();
      pen.arc(at.x(curve.x[index]), at.y(curve.smooth[index]), 3.5, 0, 7);
      pen.fill();
    }
    tell(found, exact, place);
  }

  function tell(found, exact, place) {
    values.replaceChildren(part("b", "", `${options.xName} ${written(exact)}`));
    for (const { curve, at } of found.slice(0, NEAR)) {
      const row = part("div", "chart-value");
      const name = part("span", "chart-name", curve.name);
      const raw = options.smoothing > 0 ? ` (raw ${written(curve.y[at])})` : "";
      const between = curve.low && curve.high ? ` (${written(curve.low[at])} to ${written(curve.high[at])})` : raw;
      row.append(swatchOf(curve), name, part("span", "chart-number", written(curve.smooth[at]) + between));
      values.append(row);
    }
    if (found.length > NEAR) values.append(part("div", "soft", `and ${found.length - NEAR} more`));
    values.hidden = found.length === 0;
    const left = place > box.width / 2 ? place - values.offsetWidth - 12 : place + 12;
    values.style.left = `${Math.max(2, Math.min(left, box.width - values.offsetWidth - 2))}px`;
  }

  function leave() {
    cursor = null;
    values.hidden = true;
    redraw();
  }

  function showLegend() {
    legend.hidden = !options.legend || curves.length < 2;
    if (legend.hidden) return;
    legend.replaceChildren(...curves.map((curve) => {
      const entry = part("button", "legend-entry");
      entry.type = "button";
      entry.append(swatchOf(curve), curve.name);
      entry.setAttribute("aria-pressed", String(!hidden.has(curve.id)));
      entry.title = hidden.has(curve.id) ? "Show this curve" : "Hide this curve";
      entry.onclick = () => {
        if (!hidden.delete(curve.id)) hidden.add(curve.id);
        showLegend();
        redraw();
      };
      const item = document.createElement("li");
      item.append(entry);
      return item;
    }));
  }

  // A curve with what is drawn of it: its smooth line, or the raw one.
  const prepared = (curve) => ({ ...curve, smooth: options.smoothing > 0 ? smoothed(curve.y, options.smoothing) : curve.y });

  function zoomTo(next) {
    zoom = next;
    redraw();
  }

  // Make the part of x that is seen narrower or wider about a place.
  function zoomBy(factor, about) {
    const whole = extent(shown(), logs()), seen = view();
    if (!whole || !seen) return;
    const low = Math.max(whole[0], about - (about - seen[0]) * factor);
    const high = Math.min(whole[1], about + (seen[1] - about) * factor);
    const part = low <= whole[0] && high >= whole[1] ? null : extent(shown(), logs(), [low, high]);
    zoomTo(part);
  }

  const placeOf = (event) => { const edge = canvas.getBoundingClientRect(); return { x: event.clientX - edge.left, y: event.clientY - edge.top }; };

  function follow(place) {
    const seen = view();
    if (!seen) return;
    cursor = Math.min(Math.max(scales(seen, box, logs()).fromX(place.x), seen[0]), seen[1]);
    redraw();
  }

  canvas.onpointerdown = (event) => {
    pointers.set(event.pointerId, placeOf(event));
    if (event.pointerType === "mouse") {
      if (event.button !== 0) return;
      try { canvas.setPointerCapture(event.pointerId); } catch { /* the pointer has gone already */ }
      from = to = placeOf(event);
    } else if (pointers.size === 2) {
      const seen = view(), [one, two] = [...pointers.values()];
      if (seen) pinch = { width: Math.abs(one.x - two.x) || 1, middle: scales(seen, box, logs()).fromX((one.x + two.x) / 2), view: seen };
    } else follow(placeOf(event));
  };
  canvas.onpointermove = (event) => {
    const place = placeOf(event);
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, place);
    if (pinch && pointers.size === 2) {
      const [one, two] = [...pointers.values()];
      zoom = pinch.view;
      zoomBy(pinch.width / Math.max(Math.abs(one.x - two.x), 10), pinch.middle);
      return;
    }
    if (from) to = place;
    follow(place);
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => {
    pointers.delete(event.pointerId);
    if (pointers.size < 2) pinch = null;
    const seen = view();
    if (from && to && seen && event.type === "pointerup" && Math.abs(to.x - from.x) > 6) {
      const at = scales(seen, box, logs());
      const [low, high] = [at.fromX(Math.min(from.x, to.x)), at.fromX(Math.max(from.x, to.x))];
      const span = [Math.max(low, seen[0]), Math.min(high, seen[1])];
      const flat = Math.abs(to.y - from.y) < 24;
      zoomTo(flat ? extent(shown(), logs(), span) ?? seen : [...span, at.fromY(Math.max(from.y, to.y)), at.fromY(Math.min(from.y, to.y))]);
    }
    from = to = null;
    redraw();
  };
  canvas.onpointerleave = () => { if (!from) leave(); };
  canvas.ondblclick = () => zoomTo(null);
  reset.onclick = () => { zoomTo(null); canvas.focus(); };
  canvas.onblur = leave;
  canvas.onkeydown = (event) => {
    const seen = view(), all = shown();
    if (!seen || !all.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const longest = all.reduce((one, two) => (two.x.length > one.x.length ? two : one)).x;
    const step = event.shiftKey ? 10 : 1;
    const now = cursor === null ? longest.length - 1 : nearest(longest, cursor);
    const move = { ArrowLeft: now - step, ArrowRight: now + step, Home: 0, End: longest.length - 1 }[event.key];
    if (move !== undefined) cursor = longest[Math.max(0, Math.min(longest.length - 1, move))];
    else if (event.key === "+" || event.key === "-") zoomBy(event.key === "+" ? 0.6 : 1 / 0.6, cursor ?? (seen[0] + seen[1]) / 2);
    else if (event.key === "0") zoomTo(null);
    else if (event.key === "Escape" && (cursor !== null || zoom)) { zoomTo(null); leave(); } else return;
    event.preventDefault();
    event.stopPropagation();
    redraw();
  };

  const measure = new ResizeObserver(([entry]) => {
    box = { width: Math.floor(entry.contentRect.width), height: Math.floor(entry.contentRect.height) };
    draw(); // at once: a canvas whose size is set is empty
  });
  measure.observe(frame);
  const repaint = new MutationObserver(() => { known.clear(); showLegend(); redraw(); });
  repaint.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });

  return {
    element,
    show(next, wanted = {}) {
      if (wanted.xName && wanted.xName !== options.xName) zoom = null;
      if (wanted.log !== undefined && wanted.log !== options.log) zoom = null;
      options = { ...options, ...wanted };
      curves = next.map(prepared);
      for (const id of hidden) if (!curves.some((curve) => curve.id === id)) hidden.delete(id);
      const last = curves.map(({ name, smooth }) => `${name} ${written(smooth.findLast((value) => value !== null))}`);
      canvas.setAttribute("aria-label", `${title}, by ${options.xName}. ${last.slice(0, NEAR).join(", ") || "No figures yet"}. Arrow keys read values, plus and minus zoom.`);
      showLegend();
      redraw();
    },
    mark(id) {
      if (id === marked) return;
      marked = id;
      redraw();
    },
    forget() {
      measure.disconnect();
      repaint.disconnect();
    },
  };
}
