// How a run has learnt: a slider over the steps whose weights it has kept. The model's answer to a prompt, its attention and its embeddings.
import { ApiError } from "/page/api.js";
import { make } from "/page/dom.js";
import { choice } from "./dialogs.js";
import { get } from "./lab.js";
import { answerOf, visible } from "./samples.js";

const SIDE = 420; // of a picture, CSS pixels
const MARGIN = 0.08; // around the points

// A canvas of a size in CSS pixels, cleared, with what the page's colours are now.
function drawingOn(canvas, width, height) {
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  canvas.style.width = `${width}px`;
  canvas.style.aspectRatio = `${width} / ${height}`;
  const pen = canvas.getContext("2d");
  pen.scale(density, density);
  const style = getComputedStyle(canvas);
  // light-dark() in a custom property is resolved only where it is a colour.
  const colour = (name) => { canvas.style.outlineColor = `var(--${name})`; return style.outlineColor; };
  const colours = { ink: colour("ink"), soft: colour("soft"), line: colour("line"), leaf: colour("leaf"), raised: colour("raised") };
  canvas.style.outlineColor = "";
  return { pen, colours };
}

// A heat map of weights (T, T): the row's token looks at the column's. A dashed line ends the prompt.
export function drawAttention(canvas, { tokens, asked, weights }, layer, head) {
  const heads = weights[layer], count = tokens.length;
  const at = (row, column) => (head < 0 ? heads.reduce((sum, each) => sum + each[row][column], 0) / heads.length : heads[head][row][column]);
  const names = tokens.map((token) => (token.length > 8 ? `${token.slice(0, 7)}…` : token));
  const longest = Math.max(...names.map((name) => name.length)), room = 14 + 7.5 * longest;
  const cell = Math.max(4, Math.min(28, (SIDE - room) / count));
  const side = room + cell * count + 2;
  const { pen, colours } = drawingOn(canvas, side, side);
  pen.font = `${Math.min(12, Math.max(8, cell - 2))}px ui-monospace, Menlo, Consolas, monospace`;
  for (let row = 0; row < count; row++) for (let column = 0; column <= row; column++) {
    const x = room + column * cell, y = room + row * cell;
    pen.globalAlpha = 1;
    pen.fillStyle = colours.raised;
    pen.fillRect(x, y, cell, cell);
    pen.globalAlpha = Math.sqrt(at(row, column)); // so that a tenth can be seen
    pen.fillStyle = colours.leaf;
    pen.fillRect(x, y, cell - 0.5, cell - 0.5);
  }
  pen.globalAlpha = 1;
  pen.fillStyle = colours.ink;
  const every = Math.ceil(9 / cell); // names that would lie on each other are left out
  pen.textBaseline = "middle";
  for (let place = 0; place < count; place += every) {
    const middle = room + (place + 0.5) * cell;
    pen.textAlign = "right";
    pen.fillText(names[place], room - 5, middle);
    pen.save();
    pen.translate(middle, room - 5);
    if (longest > 1) pen.rotate(-Math.PI / 2);
    pen.textAlign = longest > 1 ? "left" : "center";
    pen.fillText(names[place], 0, longest > 1 ? 0 : -4);
    pen.restore();
  }
  if (asked > 0 && asked < count) {
    const edge = room + asked * cell;
    pen.setLineDash([3, 3]);
    pen.strokeStyle = colours.soft;
    pen.beginPath();
    pen.moveTo(room, edge); pen.lineTo(side, edge); pen.moveTo(edge, room); pen.lineTo(edge, side);
    pen.stroke();
  }
}

// The largest distance of a point from the middle, along either direction: the scale of the picture.
export const reach = (moments) => Math.max(1e-9, ...moments.flatMap(({ embedding }) => (embedding?.points ?? []).map(([x, y]) => Math.max(Math.abs(x), Math.abs(y)))));

// Tokens as points, named. scale: the distance at the edge, the same at all steps.
export function drawEmbedding(canvas, { labels, points, shares }, scale) {
  const { pen, colours } = drawingOn(canvas, SIDE, SIDE);
  const place = (value) => SIDE * (0.5 + (0.5 - MARGIN) * Math.max(-1, Math.min(1, value / scale)));
  pen.strokeStyle = colours.line;
  pen.strokeRect(0.5, 0.5, SIDE - 1, SIDE - 1);
  pen.beginPath();
  pen.moveTo(SIDE / 2, 0); pen.lineTo(SIDE / 2, SIDE); pen.moveTo(0, SIDE / 2); pen.lineTo(SIDE, SIDE / 2);
  pen.stroke();
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = colours.soft;
  pen.fillText(`first direction, ${Math.round(shares[0] * 100)} % of the variance at the end`, 8, SIDE - 8);
  pen.save();
  pen.translate(14, SIDE - 24);
  pen.rotate(-Math.PI / 2);
  pen.fillText(`second direction, ${Math.round(shares[1] * 100)} %`, 0, 0);
  pen.restore();
  const named = labels.length <= 300;
  pen.font = `${labels.length <= 60 ? 14 : 10}px ui-monospace, Menlo, Consolas, monospace`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  points.forEach(([x, y], at) => {
    const left = place(x), top = SIDE - place(y);
    pen.fillStyle = named ? colours.ink : colours.leaf;
    if (named) pen.fillText(labels[at], left, top);
    else pen.fillRect(left - 1.5, top - 1.5, 3, 3);
  });
}

// The view of a run's kept steps.
export function momentsView(id) {
  const element = make("section", { className: "moments samples" });
  const none = make("p", { className: "empty" }, "This run has kept no steps on its way. Train one with ", make("code", { textContent: "train.runtime.keep_checkpoints=10" }), ".");
  const prompt = make("input", { type: "text", name: "prompt", autocomplete: "off", spellcheck: false });
  const form = make("form", { className: "tools" }, make("label", { className: "prompt" }, "Prompt ", prompt), make("button", { textContent: "Ask" }));
  const slider = make("input", { type: "range", min: 0, step: 1 });
  const told = make("output");
  const answer = make("p", { className: "answer" });
  const trouble = make("p", { className: "error", hidden: true });
  const map = make("canvas"), cloud = make("canvas");
  const layer = choice([], ""), head = choice([], "");
  const mapPart = make("figure", {}, make("figcaption", {}, make("b", { textContent: "Attention" }), make("label", {}, " layer ", layer), make("label", {}, " head ", head)), map,
    make("small", { textContent: "What each token (row) looks at (column), over the prompt and what the run answers at its end." }));
  const cloudPart = make("figure", {}, make("figcaption", {}, make("b", { textContent: "Embeddings" })), cloud,
    make("small", { textContent: "The tokens in two dimensions, the same ones at all steps." }));
  const remarks = make("p", { className: "soft" });
  const shown = make("div", {}, form, make("label", { className: "slider" }, "Step ", slider, told), trouble, answer, make("div", { className: "pictures" }, mapPart, cloudPart), remarks);
  element.append(none, shown);
  map.setAttribute("role", "img");
  cloud.setAttribute("role", "img");
  let steps = [], known = new Map(), asked = "", turn = new AbortController(), busy = false, latest = true;

  const step = () => steps[Number(slider.value)];

  function draw() {
    const at = Number(slider.value), moment = known.get(step()), before = known.get(steps[at - 1]);
    told.textContent = `${step().toLocaleString("en")} (${at + 1} of ${steps.length})${before && moment && before.answer !== moment.answer ? " · answer changed" : ""}`;
    slider.setAttribute("aria-valuetext", `step ${step()}`);
    answer.classList.toggle("waiting", !moment);
    if (!moment) return;
    answer.replaceChildren(make("code", { className: "text soft", textContent: visible(moment.prompt) }), answerOf(moment.answer, before?.answer));
    const { attention, embedding } = moment;
    mapPart.hidden = !attention;
    cloudPart.hidden = !embedding;
    if (attention) {
      fill(layer, attention.weights.map((_, number) => [number, number + 1]), attention.weights.length - 1);
      fill(head, [[-1, "mean"], ...attention.weights[0].map((_, number) => [number, number + 1])], -1);
      drawAttention(map, attention, Number(layer.value), Number(head.value));
      map.setAttribute("aria-label", `Attention of layer ${Number(layer.value) + 1} at step ${moment.step} over ${attention.tokens.join("")}`);
    }
    if (embedding) {
      drawEmbedding(cloud, embedding, reach([...known.values()]));
      cloud.setAttribute("aria-label", `Embeddings of ${embedding.labels.length} tokens at step ${moment.step}`);
    }
    remarks.textContent = moment.remarks.join(" ");
  }

  // Offer other choices, and keep what is chosen.
  function fill(select, offered, usual) {
    if (select.options.length === offered.length) return;
    select.replaceChildren(...offered.map(([value, text]) => make("option", { value, textContent: text })));
    select.value = usual;
  }

  // Ask for one step after the other: the one that is shown, the one before it, then all others, so that the slider is smooth.
  async function fetchAll() {
    if (busy || !asked) return;
    busy = true;
    const { signal } = turn;
    try {
      for (;;) {
        const at = Number(slider.value);
        const next = [steps[at], steps[at - 1], steps.at(-1), ...steps].find((one) => one !== undefined && !known.has(one));
        if (next === undefined || !element.isConnected) break;
        const moment = await get("moment", { id, step: next, prompt: asked }, signal);
        if (signal.aborted) break;
        known.set(next, moment);
        trouble.hidden = true;
        draw();
      }
    } catch (error) {
      if (error.name !== "AbortError") {
        if (!(error instanceof ApiError)) throw error;
        trouble.textContent = error.message;
        trouble.hidden = false;
        answer.classList.remove("waiting");
      }
    } finally {
      busy = false;
    }
    if (signal.aborted) await fetchAll();
  }

  function ask() {
    asked = prompt.value;
    known = new Map();
    turn.abort();
    turn = new AbortController();
    draw();
    fetchAll();
  }

  form.onsubmit = (event) => { event.preventDefault(); ask(); };
  slider.oninput = () => { latest = Number(slider.value) === steps.length - 1; draw(); fetchAll(); };
  layer.onchange = head.onchange = draw;
  new MutationObserver(() => { if (steps.length && element.isConnected) draw(); }).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (steps.length && element.isConnected) draw(); });

  return {
    element,
    // Show the steps that there are now. usual: the prompt to begin with.
    show(kept, usual) {
      const had = step();
      if (steps.some((one) => !kept.includes(one)) || (kept.length && kept.at(-1) !== steps.at(-1))) known = new Map(); // trained anew, or another last step, by which all are measured
      steps = kept;
      none.hidden = steps.length > 0;
      shown.hidden = !steps.length;
      if (!steps.length) return;
      slider.max = steps.length - 1;
      slider.disabled = steps.length < 2;
      slider.value = latest || !steps.includes(had) ? slider.max : steps.indexOf(had);
      if (!asked && !prompt.value) prompt.value = usual;
      if (!asked && prompt.value) ask();
      else { draw(); fetchAll(); }
    },
    forget() { turn.abort(); asked = ""; },
  };
}
