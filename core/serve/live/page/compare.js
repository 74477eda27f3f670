// Runs side by side: their curves, what differs in their settings, and the verdict. Only what is on the page is fetched.
import { ApiError } from "/page/api.js";
import { button, make, toast } from "/page/dom.js";
import { keepSetting, setting } from "/page/store.js";
import { hide, prune } from "./actions.js";
import { chart } from "./chart.js";
import { choice } from "./dialogs.js";
import { get } from "./lab.js";
import { clear, colourOf, forget, shownIds, tickedIds, toggle } from "./ticks.js";
import { counted, listed, metricName, rowFrom, shortId, shortNameOf, valueOf } from "./words.js";

const USUAL = ["val_loss", "train_loss", "val_accuracy"];
const POINTS = 600;
const MANY = 12; // runs beside each other in the table of settings

// A curve of the server as the chart draws it. Its band is what the points that were left out span.
export function curveOf(found, name, colour) {
  const spans = found.low && found.high && found.low.some((low, at) => low !== found.high[at]);
  return { id: found.id, name, colour, x: found.x, y: found.y, ...(spans ? { low: found.low, high: found.high } : {}) };
}

// A table of plain values.
export function tableOf(head, rows, className = "") {
  const cellOf = (tag, value) => (value instanceof Node ? make(tag, {}, value) : make(tag, { textContent: valueOf(value) }));
  const made = make("table", { className }, make("thead", {}, make("tr", {}, ...head.map((one) => cellOf("th", one)))), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((one) => cellOf("td", one))))));
  return make("div", { className: "scroll", tabIndex: 0 }, made);
}

// What the runs on top of the list are called, by what it is sorted by.
const TOP = { started: ["The oldest runs", "The newest runs"], val_loss: ["The lowest validation losses", "The highest validation losses"], val_accuracy: ["The lowest exact match (val)", "The highest exact match (val)"] };

// The view of several runs. rowOf(id): what the list knows of a run. sorting(): [column, whether it descends]. lab(): what may be done.
export function compareView({ rowOf, sorting, lab, changed }) {
  const element = make("section", { className: "compare" });
  const head = make("div", { className: "pane-head" });
  const names = make("ul", { className: "names" });
  const tools = make("div", { className: "tools" });
  const charts = make("div", { className: "charts" });
  const verdict = make("section", { className: "verdict" });
  const settings = make("section", { className: "settings" });
  element.append(head, tools, names, charts, verdict, settings);
  const drawn = new Map(); // metric -> chart
  let metrics = [], turn = null, marked = "", compared = "";

  const wanted = () => { const kept = setting("live.metrics", USUAL); return Array.isArray(kept) && kept.length ? kept.filter((one) => typeof one === "string") : USUAL; };
  const look = () => ({ x: setting("live.x", "step"), log: setting("live.log", false), smoothing: setting("live.smoothing", 0), seeds: setting("live.seeds", false) });

  const xs = choice([["step", "steps"], ["tokens", "tokens"], ["seconds", "seconds"]]);
  const log = make("input", { type: "checkbox" });
  const seeds = make("input", { type: "checkbox" });
  const smoothing = make("input", { type: "range", min: 0, max: 0.99, step: 0.01 });
  const smoothed = make("output");
  const picked = make("details", { className: "metrics" }, make("summary", { textContent: "Curves" }));
  xs.setAttribute("aria-label", "along");
  smoothing.setAttribute("aria-label", "smoothing");
  tools.append(picked, make("label", {}, "by ", xs), make("label", {}, log, " log"), make("label", {}, seeds, " mean over seeds"),
    make("label", { className: "smoothing", title: "The raw line stays, faintly" }, "smooth ", smoothing, smoothed));
  const showLook = () => {
    const { x, log: isLog, smoothing: weight, seeds: means } = look();
    xs.value = x;
    log.checked = isLog;
    seeds.checked = means;
    smoothing.value = weight;
    smoothed.textContent = Number(weight).toFixed(2);
  };
  const keep = (name, value) => { keepSetting(`live.${name}`, value); showLook(); refresh(); };
  xs.onchange = () => keep("x", xs.value);
  log.onchange = () => keep("log", log.checked);
  seeds.onchange = () => keep("seeds", seeds.checked);
  smoothing.oninput = () => keep("smoothing", Number(smoothing.value));
  showLook();

  // A run's name beside others: the experiment stands before it where there are several.
  function nameFor(id) {
    const homeOf = (one) => one.split("/").slice(lab().labs.length > 1 ? 0 : 1, 2).join("/");
    const isAlone = new Set(shownIds().map(homeOf)).size === 1;
    const row = rowOf(id), name = row ? shortNameOf(row) : shortId(id).split("/").slice(1).join("/");
    return isAlone ? name : `${homeOf(id)}/${name}`;
  }

  // The runs whose curves are drawn, each with its colour.
  function showNames() {
    const ticked = tickedIds();
    const ids = shownIds();
    const [column, descending] = sorting();
    const top = TOP[column]?.[Number(descending)] ?? "The first runs of the list";
    head.replaceChildren(make("h1", { textContent: ticked.length ? `${counted(ticked.length, "run")} ${ticked.length > 1 ? "compared" : "ticked"}` : ids.length ? top : "Curves" }));
    if (!ids.length) head.append(make("p", { className: "soft", textContent: "The curves of the runs in the list are drawn here." }));
    if (!ticked.length && ids.length) head.append(make("p", { className: "soft", textContent: "Tick runs in the list to choose what is compared." }));
    if (ticked.length === 1) head.append(make("p", { className: "soft", textContent: "Tick another one to compare them." }));
    if (ticked.length) head.append(button("Untick all", "Take all ticks away", () => clear()));
    if (ticked.length && lab().can_act) {
      const rows = () => ticked.map((id) => rowOf(id) ?? rowFrom(id)); // the list does not know what is filtered out
      head.append(button("Hide", "Keep these runs out of lists", async () => { await hide(rows(), true); changed(); }));
      head.append(button("Remove…", "Delete these runs from the disk", async () => { await prune(rows(), lab()); changed(); }));
    }
    names.replaceChildren(...ids.map((id) => {
      const swatch = make("i", { className: "swatch" });
      swatch.style.background = `var(--curve-${Math.max(0, colourOf(id)) % 10})`;
      const item = make("li", { onmouseenter: () => mark(id), onmouseleave: () => mark("") }, make("a", { href: `#run=${encodeURIComponent(id)}` }, swatch, nameFor(id)));
      if (ticked.length) item.append(button("✕", `Untick ${nameFor(id)}`, () => toggle(id, false)));
      return item;
    }));
  }

  // The list of curves that exist, to choose from.
  function showMetrics() {
    const all = [...new Set([...USUAL, ...metrics, ...wanted()])];
    if (picked.childElementCount > 1 && picked.dataset.all === all.join(" ")) return;
    picked.dataset.all = all.join(" ");
    picked.replaceChildren(picked.firstChild, make("div", { className: "drop" }, ...all.map((metric) => {
      const box = make("input", { type: "checkbox", checked: wanted().includes(metric), onchange: () => {
        const now = wanted().filter((one) => one !== metric);
        keepSetting("live.metrics", box.checked ? [...now, metric] : now);
        refresh();
      } });
      return make("label", {}, box, ` ${metricName(metric)}`);
    })));
  }

  // Runs that were removed elsewhere lose their ticks.
  function forgetGone(gone) {
    const ticked = gone.filter((id) => tickedIds().includes(id));
    if (ticked.length) toast(`No longer there: ${listed(ticked.map(nameFor))}.`);
    forget(gone); // shows the others
  }

  // What the server says of some runs, without those that are gone.
  async function ask(path, values, signal) {
    const found = await get(path, values, signal);
    if (found.gone.length && !signal.aborted) forgetGone(found.gone);
    return found;
  }

  // A metric's curves, or the means of those that differ by their seed alone.
  async function curves(metric, ids, signal) {
    const { x, seeds: means } = look();
    if (means) {
      const { groups } = await ask("bands", { id: ids, metric, x }, signal);
      return groups.map((one) => ({ id: one.ids[0], name: one.ids.length > 1 ? `${one.name} (${counted(one.ids.length, "seed")})` : nameFor(one.ids[0]), colour: Math.max(0, colourOf(one.ids[0])), x: one.x, y: one.mean, low: one.low, high: one.high }));
    }
    const found = await ask("curves", { id: ids, metric, x, points: POINTS }, signal);
    if (found.metrics.join(" ") !== metrics.join(" ")) { metrics = found.metrics; showMetrics(); }
    return found.curves.map((one) => curveOf(one, nameFor(one.id), Math.max(0, colourOf(one.id))));
  }

  async function showCurves(ids, signal) {
    const chosen = wanted();
    for (const [metric, one] of drawn) if (!chosen.includes(metric)) { one.forget(); one.element.remove(); drawn.delete(metric); }
    await Promise.all(chosen.map(async (metric) => {
      const found = ids.length ? await curves(metric, ids, signal) : [];
      if (signal.aborted) return;
      if (!drawn.has(metric)) drawn.set(metric, chart(metricName(metric)));
      const one = drawn.get(metric);
      const { x, log: isLog, smoothing: weight, seeds: means } = look();
      one.show(found.filter(({ y }) => y.length), { xName: x, log: isLog, smoothing: weight, legend: means });
      one.mark(marked);
    }));
    charts.replaceChildren(...chosen.map((metric) => drawn.get(metric)?.element).filter(Boolean));
  }

  // What a verdict depends on.
  const keyOf = (ids) => ids.map((id) => `${id} ${rowOf(id)?.status}`).join("\n");

  // What the comparison says. It is of finished figures, so it is asked for again only when another choice is shown, or a run has ended.
  async function showVerdict(ids, signal) {
    const key = keyOf(ids);
    if (tickedIds().length < 2 || key === compared) return;
    const differ = await ask("settings", { id: ids.slice(0, MANY) }, signal);
    if (signal.aborted) return;
    const differing = differ.keys.filter((one) => one.differs);
    settings.replaceChildren(make("h2", { textContent: "What differs in their settings" }), differing.length
      ? tableOf(["", ...ids.slice(0, MANY).map(nameFor)], differing.map(({ key: name, values }) => [name, ...values]), "matrix")
      : make("p", { className: "soft", textContent: "Nothing: they have the same settings." }));
    const told = await verdictOf(ids, signal);
    if (signal.aborted) return;
    verdict.replaceChildren(make("h2", { textContent: "Verdict" }), ...told);
    compared = key;
  }

  async function verdictOf(ids, signal) {
    try {
      const found = await ask("compare", { id: ids }, signal);
      return [...found.sentences.map((text) => make("p", { textContent: text })), tableOf(found.table.columns, found.table.rows, "matrix")];
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return [make("p", { className: "soft", textContent: error.message })];
    }
  }

  // Fetch and show everything again. A newer call ends an older one.
  async function refresh() {
    if (!element.isConnected) return;
    turn?.abort();
    turn = new AbortController();
    const { signal } = turn;
    const ids = shownIds();
    showNames();
    showMetrics();
    if (keyOf(ids) !== compared) { // what is said of other runs must not stay
      compared = "";
      verdict.replaceChildren();
      settings.replaceChildren();
    }
    tools.hidden = names.hidden = charts.hidden = ids.length === 0;
    try {
      await showCurves(ids, signal);
      await showVerdict(ids, signal);
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof ApiError)) throw error;
      if (error instanceof ApiError) verdict.replaceChildren(make("p", { className: "error", textContent: error.message }));
    }
  }

  // Draw one run's curves above the others.
  function mark(id) {
    marked = shownIds().includes(id) ? id : "";
    for (const one of drawn.values()) one.mark(marked);
  }

  return { element, refresh, mark, shows: (ids) => shownIds().some((id) => ids.includes(id)) };
}
