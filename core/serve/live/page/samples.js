// What a model answered at each evaluation, beside the truth: a slider over the steps, with what has changed since the step before.
import { make } from "/page/dom.js";
import { get } from "./lab.js";
import { counted } from "./words.js";

// Where two texts begin and end to differ: [from, end in the second]; null where they are the same.
export function changedPart(before, now) {
  if (before === now) return null;
  const shorter = Math.min(before.length, now.length);
  let from = 0, tail = 0;
  while (from < shorter && before[from] === now[from]) from++;
  while (tail < shorter - from && before[before.length - 1 - tail] === now[now.length - 1 - tail]) tail++;
  return [from, now.length - tail];
}

// Spaces at the ends and ends of lines, so that they can be seen.
export const visible = (text) => text.replaceAll("\n", "↵\n").replace(/^ +| +$/gm, (spaces) => "·".repeat(spaces.length)).replace(/\n$/, "");

// An answer; its changed part is marked.
export function answerOf(text, before) {
  const made = make("code", { className: "text" });
  const now = visible(text);
  const part = before === undefined ? null : changedPart(visible(before), now);
  if (!part) made.append(now);
  else if (part[0] === part[1]) made.append(now, make("mark", { textContent: "⌫", title: "shorter than before" }));
  else made.append(now.slice(0, part[0]), make("mark", { textContent: now.slice(...part) }), now.slice(part[1]));
  return made;
}

// The view of a run's samples. It stays at the newest step while it is there.
export function samplesView(id) {
  const element = make("section", { className: "samples" });
  const slider = make("input", { type: "range", min: 0, step: 1 });
  const told = make("output");
  const rows = make("tbody");
  const head = make("tr", {}, ...["prompt", "answer", "truth", ""].map((name) => make("th", { textContent: name })));
  const table = make("table", {}, make("thead", {}, head), rows);
  const none = make("p", { className: "empty", textContent: "No samples yet. They come with the first evaluation (train.runtime.eval_interval says when)." });
  const bar = make("label", { className: "slider" }, "Step ", slider, told);
  element.append(none, bar, make("div", { className: "scroll" }, table));
  let steps = [], bySteps = new Map(), latest = true, file = "", next = 0;

  function draw() {
    const at = Number(slider.value), step = steps[at];
    const now = bySteps.get(step) ?? [];
    const before = new Map((bySteps.get(steps[at - 1]) ?? []).map((one) => [one.prompt, one.answer]));
    const changed = now.filter((one) => before.has(one.prompt) && before.get(one.prompt) !== one.answer).length;
    const right = now.filter((one) => one.right).length;
    told.textContent = `${Number(step).toLocaleString("en")} (${at + 1} of ${steps.length}) · ${right} of ${counted(now.length, "answer")} right${before.size ? ` · ${changed} changed` : ""}`;
    rows.replaceChildren(...now.map((one) => {
      const row = make("tr", {}, make("td", {}, make("code", { className: "text", textContent: visible(one.prompt) })), make("td", {}, answerOf(one.answer, before.get(one.prompt))),
        make("td", {}, make("code", { className: "text", textContent: visible(one.truth ?? "") })),
        make("td", { className: one.right ? "right" : "wrong", textContent: one.right === null || one.right === undefined ? "" : one.right ? "✓ right" : "✗ wrong" }));
      return row;
    }));
  }

  slider.oninput = () => { latest = Number(slider.value) === steps.length - 1; draw(); };

  return {
    element,
    // Fetch the evaluations that have come since the last time.
    async fetch(signal) {
      for (let more = true; more;) {
        const found = await get("samples", { id, file, next }, signal);
        if (signal.aborted) return;
        if (found.is_new) bySteps = new Map();
        for (const { step, answers } of found.evaluations) bySteps.set(step, answers);
        ({ file, next, more } = found);
        if (found.problem) none.textContent = found.problem;
      }
    },
    // The first prompt; "" without one.
    prompt: () => bySteps.values().next().value?.[0]?.prompt ?? "",
    show() {
      steps = [...bySteps.keys()].sort((one, two) => one - two);
      none.hidden = steps.length > 0;
      bar.hidden = table.hidden = !steps.length;
      slider.max = Math.max(0, steps.length - 1);
      if (latest) slider.value = slider.max;
      slider.disabled = steps.length < 2;
      if (steps.length) draw();
    },
  };
}
