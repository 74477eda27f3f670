// Embeddings as a picture that can be zoomed: tokens as names, and as points where a name would cover another one's.
import { make } from "/page/dom.js";
import { SIDE, drawingOn } from "./pictures.js";

const MARGIN = 0.08; // around the points of the whole picture
const CLOSEST = 200; // times the whole picture
const NEAR = 14; // pixels between the pointer and the point whose name it shows

// What is seen of the plane: its middle, and the distance from there to the edge.
export const wholeOf = (scale) => ({ x: 0, y: 0, half: scale / (1 - 2 * MARGIN) });

// The same, closer or farther (factor below 1 is closer) about a place that stays where it is; never beyond the whole.
export function zoomed(seen, factor, about, whole) {
  const half = Math.min(whole.half, Math.max(whole.half / CLOSEST, seen.half * factor)), part = half / seen.half;
  return within({ x: about.x + (seen.x - about.x) * part, y: about.y + (seen.y - about.y) * part, half }, whole);
}

// Keep what is seen inside the whole.
export function within({ x, y, half }, whole) {
  const room = whole.half - half, held = (value) => Math.max(-room, Math.min(room, value));
  return { x: held(x), y: held(y), half };
}

// Which names can be written without covering one that is written already. places: [left, top] of the middles, pixels.
export function freeNames(labels, places, size) {
  const taken = new Set();
  return labels.map((label, at) => {
    const [left, top] = places[at], wide = label.length * size * 0.6 + 2, cells = [];
    for (let column = Math.floor((left - wide / 2) / 4); column <= (left + wide / 2) / 4; column++) {
      for (let row = Math.floor((top - size / 2) / 4); row <= (top + size / 2) / 4; row++) cells.push(`${column} ${row}`);
    }
    if (cells.some((cell) => taken.has(cell))) return false;
    cells.forEach((cell) => taken.add(cell));
    return true;
  });
}

// Draw what is seen. marked: the number of the token whose name is written above all.
function draw(canvas, { labels, points, shares }, seen, marked) {
  const { pen, colours } = drawingOn(canvas, SIDE, SIDE);
  const left = (x) => SIDE * (0.5 + (x - seen.x) / seen.half / 2), top = (y) => SIDE * (0.5 - (y - seen.y) / seen.half / 2);
  pen.strokeStyle = colours.line;
  pen.strokeRect(0.5, 0.5, SIDE - 1, SIDE - 1);
  pen.beginPath();
  pen.moveTo(left(0), 0); pen.lineTo(left(0), SIDE); pen.moveTo(0, top(0)); pen.lineTo(SIDE, top(0));
  pen.stroke();
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = colours.soft;
  pen.fillText(`first direction, ${Math.round(shares[0] * 100)} % of the variance at the end`, 8, SIDE - 8);
  pen.save();
  pen.translate(14, SIDE - 24);
  pen.rotate(-Math.PI / 2);
  pen.fillText(`second direction, ${Math.round(shares[1] * 100)} %`, 0, 0);
  pen.restore();
  const shown = points.map(([x, y], at) => ({ at, place: [left(x), top(y)] })).filter(({ place }) => place.every((one) => one > -20 && one < SIDE + 20));
  const size = shown.length <= 60 ? 14 : 11;
  pen.font = `${size}px ui-monospace, Menlo, Consolas, monospace`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  const free = freeNames(shown.map(({ at }) => labels[at]), shown.map(({ place }) => place), size);
  shown.forEach(({ at, place }, number) => {
    pen.fillStyle = free[number] ? colours.ink : colours.leaf;
    if (free[number]) pen.fillText(labels[at], ...place);
    else pen.fillRect(place[0] - 1.5, place[1] - 1.5, 3, 3);
  });
  const one = shown.find(({ at }) => at === marked);
  if (!one) return;
  pen.font = `bold ${size + 2}px ui-monospace, Menlo, Consolas, monospace`;
  const half = pen.measureText(labels[marked]).width / 2 + 5;
  const middle = Math.max(half, Math.min(SIDE - half, one.place[0])), above = one.place[1] < 30 ? one.place[1] + 20 : one.place[1] - 16;
  pen.fillStyle = colours.leaf;
  pen.fillRect(one.place[0] - 3, one.place[1] - 3, 6, 6);
  pen.fillStyle = colours.raised;
  pen.strokeStyle = colours.leaf;
  pen.fillRect(middle - half, above - 11, 2 * half, 22);
  pen.strokeRect(middle - half, above - 11, 2 * half, 22);
  pen.fillStyle = colours.ink;
  pen.fillText(labels[marked], middle, above);
}

// The picture as a view: {canvas, whole: a button, show(embedding, scale)}. What is seen stays as the steps go by.
export function cloudView() {
  const canvas = make("canvas", { tabIndex: 0, className: "cloud" });
  const whole = make("button", { type: "button", textContent: "Whole picture", hidden: true });
  let embedding = null, all = wholeOf(1), seen = null, marked = -1, waiting = 0;
  const pointers = new Map();
  canvas.setAttribute("role", "img");

  const view = () => (seen ? within(seen, all) : all);
  const redraw = () => { if (!waiting) waiting = requestAnimationFrame(() => { waiting = 0; if (canvas.isConnected && embedding) draw(canvas, embedding, view(), marked); }); };

  function look(next) {
    seen = next.half >= all.half * 0.999 ? null : next;
    whole.hidden = !seen;
    canvas.style.touchAction = seen ? "none" : "pan-y"; // so that a finger still scrolls the page past the whole picture
    redraw();
  }

  // Where an event is: in pixels of the picture, and in the plane.
  function placeOf(event) {
    const edge = canvas.getBoundingClientRect(), part = SIDE / edge.width, now = view();
    const left = (event.clientX - edge.left) * part, top = (event.clientY - edge.top) * part;
    return { left, top, x: now.x + (left / SIDE - 0.5) * 2 * now.half, y: now.y - (top / SIDE - 0.5) * 2 * now.half };
  }

  function mark({ left, top }) {
    const now = view();
    let best = -1, least = NEAR;
    (embedding?.points ?? []).forEach(([x, y], at) => {
      const distance = Math.hypot(SIDE * (0.5 + (x - now.x) / now.half / 2) - left, SIDE * (0.5 - (y - now.y) / now.half / 2) - top);
      if (distance < least) [best, least] = [at, distance];
    });
    if (best !== marked) { marked = best; redraw(); }
  }

  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== canvas) return; // the page scrolls
    event.preventDefault();
    look(zoomed(view(), Math.exp(event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), placeOf(event), all));
  }, { passive: false });
  canvas.onpointerdown = (event) => {
    pointers.set(event.pointerId, placeOf(event));
    try { canvas.setPointerCapture(event.pointerId); } catch { /* the pointer has gone already */ }
    if (event.pointerType !== "mouse") mark(placeOf(event));
  };
  canvas.onpointermove = (event) => {
    const place = placeOf(event), before = pointers.get(event.pointerId);
    if (!before) { mark(place); return; }
    const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, one]) => one);
    const now = view(), unit = (2 * now.half) / SIDE; // of the plane, a pixel
    if (other) { // two fingers
      const distance = (one) => Math.max(10, Math.hypot(one.left - other.left, one.top - other.top));
      look(zoomed(now, distance(before) / distance(place), { x: now.x + ((place.left + other.left) / 2 / SIDE - 0.5) * 2 * now.half, y: now.y - ((place.top + other.top) / 2 / SIDE - 0.5) * 2 * now.half }, all));
    } else if (seen) look(within({ x: now.x - (place.left - before.left) * unit, y: now.y + (place.top - before.top) * unit, half: now.half }, all));
    pointers.set(event.pointerId, placeOf(event));
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => pointers.delete(event.pointerId);
  canvas.onpointerleave = () => { if (!pointers.size) mark({ left: -100, top: -100 }); };
  canvas.ondblclick = () => look(all);
  whole.onclick = () => { look(all); canvas.focus(); };
  canvas.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const now = view(), step = now.half / 4;
    const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
    if (event.key === "+" || event.key === "-") look(zoomed(now, event.key === "+" ? 0.6 : 1 / 0.6, now, all));
    else if (move && seen) look(within({ x: now.x + move[0], y: now.y + move[1], half: now.half }, all));
    else if ((event.key === "0" || event.key === "Escape") && seen) look(all);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  return {
    canvas,
    whole,
    show(next, scale) {
      embedding = next;
      all = wholeOf(scale);
      if (marked >= next.labels.length) marked = -1;
      redraw();
    },
  };
}
