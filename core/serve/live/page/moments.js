// How a run has learnt: a slider over the steps whose weights it has kept. The model's answer to a prompt, its attention and its embeddings.
import { ApiError } from "/page/api.js";
import { make } from "/page/dom.js";
import { cloudView } from "./cloud.js";
import { choice } from "./dialogs.js";
import { get } from "./lab.js";
import { drawAttention } from "./pictures.js";
import { answerOf, visible } from "./samples.js";

// The largest distance of a point from the middle, along either direction: the scale of the picture at all steps.
const reach = (moments) => Math.max(1e-9, ...moments.flatMap(({ embedding }) => (embedding?.points ?? []).map(([x, y]) => Math.max(Math.abs(x), Math.abs(y)))));

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
  const map = make("canvas"), cloud = cloudView();
  const layer = choice([], ""), head = choice([], "");
  const mapPart = make("figure", {}, make("figcaption", {}, make("b", { textContent: "Attention" }), make("label", {}, " layer ", layer), make("label", {}, " head ", head)), map,
    make("small", { textContent: "What each token (row) looks at (column), over the prompt and what the run answers at its end." }));
  const cloudPart = make("figure", {}, make("figcaption", {}, make("b", { textContent: "Embeddings" }), cloud.whole), cloud.canvas,
    make("small", { textContent: "The tokens in two dimensions, the same ones at all steps. Names that would cover others are points: click, and zoom with the wheel, two fingers or + and −." }));
  const remarks = make("p", { className: "soft" });
  const shown = make("div", {}, form, make("label", { className: "slider" }, "Step ", slider, told), trouble, answer, make("div", { className: "pictures" }, mapPart, cloudPart), remarks);
  element.append(none, shown);
  map.setAttribute("role", "img");
  let steps = [], written = new Map(), known = new Map(), asked = "", turn = new AbortController(), busy = false, latest = true;

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
      cloud.show(embedding, reach([...known.values()]));
      cloud.canvas.setAttribute("aria-label", `Embeddings of ${embedding.labels.length} tokens at step ${moment.step}. Plus and minus zoom, arrows move, 0 shows all.`);
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
  const repaint = new MutationObserver(() => { if (steps.length && element.isConnected) draw(); });
  repaint.observe(document.documentElement, { attributeFilter: ["data-theme"] });

  return {
    element,
    // Show the steps that there are now, each with what tells it from another one of its number. usual: the prompt to begin with.
    show(kept, usual) {
      const had = step(), before = written;
      written = new Map(kept.map((one) => [one.step, one.written]));
      const isNew = [...before].some(([one, at]) => written.get(one) !== at); // trained anew, or gone back to an earlier step
      const now = [...written.keys()];
      if (isNew || now.at(-1) !== steps.at(-1)) known = new Map(); // all are measured by the last one
      steps = now;
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
    forget() { turn.abort(); asked = ""; repaint.disconnect(); },
  };
}
