// One run: how it goes, its curves, samples, settings, log and report. Or a run with stages, or a sweep: its table, log and report.
import { ApiError } from "/page/api.js";
import { make } from "/page/dom.js";
import { keepSetting, setting } from "/page/store.js";
import { buttonsOf } from "./actions.js";
import { chart, written } from "./chart.js";
import { curveOf, tableOf } from "./compare.js";
import { choice } from "./dialogs.js";
import { get } from "./lab.js";
import { momentsView } from "./moments.js";
import { samplesView } from "./samples.js";
import { ago, commitOf, counted, duration, exactMatch, longNameOf, lossOf, markOf, metricName, nameOf, percent, shortPointOf, valueOf, whole } from "./words.js";

const CHARTS = [["loss", ["train_loss", "val_loss"]], ["exact match", ["train_accuracy", "val_accuracy"]], ["learning rate", ["learning_rate", "lr"]], ["speed, tokens per second", ["tokens_per_second"]]];
const OF_GROUP = "val_accuracy/";
const POINTS = 600;
const LOG_KEPT = 400000; // characters of the log on the page

// What names with numbers are sorted by: 9 before 10.
const inOrder = new Intl.Collator("en", { numeric: true }).compare;

// How many characters from its end an element is scrolled.
const isAtEnd = (element) => element.scrollHeight - element.scrollTop - element.clientHeight < 30;

// The view of a run, a run with stages ("pipeline"), or a sweep. lab(): what may be done. changed(): called after something was done.
export function runView({ id, kind, lab, changed, close }) {
  const element = make("section", { className: "run" });
  const head = make("div", { className: "run-head" });
  const facts = make("dl", { className: "facts" });
  const warnings = make("div");
  const tabs = make("div", { className: "tabs" });
  const panel = make("div", { className: "panel" });
  tabs.setAttribute("role", "tablist");
  panel.setAttribute("role", "tabpanel");
  element.append(head, facts, warnings, tabs, panel);
  const samples = samplesView(id), moments = momentsView(id);
  const drawn = new Map();
  let found = null, tab = setting("live.tab", "Curves"), turn = null, built = "", logged = { offset: -1, element: null }, groupsKey = "", headKey = "", opened = "";

  // Name, state, progress and buttons.
  function showHead() {
    const { row } = found;
    const key = JSON.stringify([row, found.rows, found.command, found.busy, lab().can_act]);
    if (key === headKey) return;
    headKey = key;
    const back = make("a", { href: "#", className: "back", textContent: "← All runs", onclick: (event) => { event.preventDefault(); close(); } });
    const state = make("span", { className: `state ${row.status}`, textContent: `${markOf(row.status)} ${row.status}` });
    const title = make("h1", {}, row.starred ? "★ " : "", kind === "sweep" ? "sweep " : "", longNameOf(row, lab()), " ", state);
    const tags = row.tags.map((tag) => make("span", { className: "tag", textContent: tag }));
    const about = make("p", { className: "about" }, ...tags, row.description ?? "");
    about.hidden = !row.description && !tags.length;
    const focused = head.contains(document.activeElement) ? document.activeElement.textContent : "";
    const buttons = make("div", { className: "buttons" }, ...buttonsOf(found, lab(), changed));
    head.replaceChildren(back, title, about, ...(kind === "run" ? progress(row) : []), buttons);
    if (focused) [...buttons.children].find((one) => one.textContent === focused)?.focus();
    const shown = kind !== "run" ? [[kind === "sweep" ? "runs" : "stages", `${row.done} of ${row.of} done`], ["time", duration(row.seconds)], ["started", ago(row.started) || "–"]] : [
      ["step", row.length && row.step !== null && row.unit !== "seconds" ? `${whole(row.step)} of ${whole(row.length)}` : whole(row.step)], ["time", duration(row.seconds)],
      ["val loss", lossOf(row.val_loss)], ["train loss", lossOf(row.train_loss)], [exactMatch("val"), percent(row.val_accuracy)],
      ...(found.summary?.side === "test" ? [[exactMatch("test"), percent(row.accuracy)]] : []),
      ["speed", row.tokens_per_second ? `${written(row.tokens_per_second)} tokens/s` : "–"], ["seed", valueOf(row.seed)], ...(row.variant ? [["variant", row.variant]] : []), ["commit", commitOf(row.commit)], ["started", ago(row.started) || "–"],
    ];
    facts.replaceChildren(...shown.map(([name, value]) => make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value }))));
  }

  function progress(row) {
    if (row.status !== "running") return [];
    const bar = make("progress", { max: 1, value: row.progress ?? 0 });
    bar.setAttribute("aria-label", "progress");
    const left = row.seconds_left === null || row.seconds_left === undefined ? "" : `about ${duration(row.seconds_left)} left`;
    return [make("div", { className: "progress" }, bar, make("span", { textContent: `${Math.floor((row.progress ?? 0) * 100)} %` }), make("span", { className: "soft", textContent: left }))];
  }

  // What cannot be read, and what `check` warned of.
  function showWarnings() {
    const said = [...found.problems ?? [], ...found.warnings ?? []];
    warnings.className = said.length ? "warnings" : "";
    warnings.replaceChildren(...said.map((text) => make("p", { textContent: `⚠ ${text}` })));
  }

  // Whether the run is a stage of another.
  const isStaged = () => Boolean(found.row.parent);

  // The tabs that this run has.
  const names = () => (kind === "run" ? ["Curves", "Samples", ...(found.moments.length ? ["Over time"] : []), "Settings", ...(isStaged() ? ["Stages"] : []), ...(found.row.sweep ? ["Sweep"] : []), "Log"] : [kind === "sweep" ? "Sweep" : "Stages", "Log"]).concat(found.report ? ["Report"] : []);

  function showTabs() {
    const all = names();
    const open = all.includes(tab) ? tab : all[0];
    if (built === `${all} ${open}`) return open;
    built = `${all} ${open}`;
    const had = tabs.contains(document.activeElement);
    tabs.replaceChildren(...all.map((name) => {
      const one = make("button", { type: "button", textContent: name, onclick: () => choose(name), tabIndex: name === open ? 0 : -1 });
      one.setAttribute("role", "tab");
      one.setAttribute("aria-selected", String(name === open));
      return one;
    }));
    const chosen = tabs.querySelector("[aria-selected=true]");
    tabs.scrollLeft = chosen.offsetLeft + chosen.offsetWidth - tabs.offsetLeft - tabs.clientWidth + 30; // a phone may not have room for all
    if (had) chosen.focus();
    tabs.onkeydown = (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (move) choose(all[(all.indexOf(open) + move + all.length) % all.length]);
    };
    panel.setAttribute("aria-label", open);
    panel.replaceChildren();
    logged = { offset: -1, element: null };
    return open;
  }

  function choose(name) {
    tab = name;
    keepSetting("live.tab", name);
    refresh();
  }

  // Curves, with the accuracy of each group below.
  async function showCurves(signal) {
    if (!panel.firstChild) {
      const log = make("input", { type: "checkbox", checked: setting("live.log", false), onchange: () => { keepSetting("live.log", log.checked); refresh(); } });
      const along = choice([["step", "steps"], ["tokens", "tokens"], ["seconds", "seconds"]], setting("live.x", "step"));
      along.onchange = () => { keepSetting("live.x", along.value); refresh(); };
      const smooth = make("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: setting("live.smoothing", 0) });
      const told = make("output", { textContent: Number(smooth.value).toFixed(2) });
      smooth.oninput = () => { keepSetting("live.smoothing", Number(smooth.value)); told.textContent = Number(smooth.value).toFixed(2); refresh(); };
      panel.append(make("div", { className: "tools" }, make("label", {}, "by ", along), make("label", {}, log, " log"), make("label", { className: "smoothing" }, "smooth ", smooth, told)),
        make("div", { className: "charts" }), make("section", { className: "groups" }));
    }
    const x = setting("live.x", "step"), smoothing = setting("live.smoothing", 0), log = setting("live.log", false);
    const first = await get("curves", { id, metric: "val_loss", x, points: POINTS }, signal);
    const curvesOf = async (metric) => (metric === "val_loss" ? first : get("curves", { id, metric, x, points: POINTS }, signal));
    const place = panel.querySelector(".charts");
    const charts = [...CHARTS, ["exact match of each group", first.metrics.filter((metric) => metric.startsWith(OF_GROUP)).sort(inOrder).slice(0, 10)]];
    const called = (metric) => (metric.startsWith(OF_GROUP) ? metric.slice(OF_GROUP.length) : metricName(metric));
    await Promise.all(charts.map(async ([title, metrics]) => {
      const there = metrics.filter((metric) => first.metrics.includes(metric));
      if (!there.length) return;
      const curves = (await Promise.all(there.map(curvesOf))).flatMap(({ curves: one }, at) => one.map((each) => ({ ...curveOf(each, called(there[at]), at), id: there[at] })));
      if (!drawn.has(title)) drawn.set(title, chart(title));
      drawn.get(title).show(curves.filter(({ y }) => y.some((value) => value !== null)), { xName: x, log: log && !metrics[0].includes("accuracy"), smoothing, legend: true });
    }));
    if (signal.aborted) return;
    const wanted = charts.map(([title]) => drawn.get(title)?.element).filter(Boolean);
    if (wanted.length !== place.childElementCount || wanted.some((one, at) => one !== place.children[at])) place.replaceChildren(...wanted);
    if (!wanted.length) place.replaceChildren(make("p", { className: "empty", textContent: "No figures yet. They come with the first steps." }));
    showGroups();
  }

  function showGroups() {
    const groups = Object.entries(found.groups ?? {});
    const key = JSON.stringify(groups);
    const place = panel.querySelector(".groups");
    if (!groups.length || (key === groupsKey && place.firstChild)) return;
    groupsKey = key;
    place.replaceChildren(make("h2", { textContent: "Exact match of each group" }), ...groups.map(([name, share]) => {
      const value = typeof share === "number" ? share : share?.accuracy ?? share?.value ?? 0;
      const fill = make("span", { className: "fill" });
      fill.style.width = `${value * 100}%`;
      return make("div", { className: "group" }, make("span", { className: "group-name", textContent: name, title: name }), make("span", { className: "bar" }, fill), make("span", { className: "number", textContent: percent(value) }));
    }));
  }

  // Settings, with a field that finds keys and values.
  function showSettings() {
    const all = Object.entries(found.settings ?? {});
    const now = JSON.stringify([all, found.summary, found.checkpoints]);
    if (panel.firstChild && now === opened) return;
    opened = now;
    const filter = make("input", { type: "search", placeholder: "Find a key or a value", value: panel.querySelector("input")?.value ?? "" });
    filter.setAttribute("aria-label", "Find a key or a value");
    const rows = make("div");
    const draw = () => {
      const text = filter.value.toLowerCase();
      const kept = all.filter(([key, value]) => `${key} ${valueOf(value)}`.toLowerCase().includes(text));
      rows.replaceChildren(tableOf(["key", "value"], kept, "keys"));
    };
    filter.oninput = draw;
    draw();
    panel.replaceChildren(filter, rows);
    const summary = Object.entries(found.summary ?? {}).filter(([, value]) => value === null || typeof value !== "object");
    if (summary.length) panel.append(make("h2", { textContent: "Summary" }), tableOf(["", ""], summary, "keys"));
    if (found.checkpoints?.length) panel.append(make("p", { className: "soft", textContent: `Checkpoints: ${found.checkpoints.map((one) => (typeof one === "string" ? one : one.name ?? valueOf(one))).join(", ")}` }));
  }

  // The end of the log, and what is added to it.
  async function showLog(signal) {
    if (!logged.element) {
      logged.element = make("pre", { className: "log", tabIndex: 0 });
      panel.replaceChildren(logged.element);
    }
    const more = await get("log", { id, offset: logged.offset }, signal);
    if (signal.aborted) return;
    const follow = isAtEnd(logged.element) || logged.offset < 0;
    logged.element.append(more.text);
    if (logged.element.textContent.length > LOG_KEPT) logged.element.textContent = logged.element.textContent.slice(-LOG_KEPT / 2);
    logged.offset = more.next;
    logged.element.classList.toggle("nothing", !logged.element.textContent);
    if (follow) logged.element.scrollTop = logged.element.scrollHeight;
  }

  // The run's report, in a frame that may do nothing.
  function showReport() {
    if (panel.firstChild && opened === found.report) return;
    opened = found.report;
    const frame = make("iframe", { src: found.report, title: `Report of ${longNameOf(found.row, lab())}` });
    frame.setAttribute("sandbox", "");
    panel.replaceChildren(frame);
  }

  // The way to a whole sweep, or to a run with all its stages, where one of its runs is shown.
  const wholeLink = (of, row) => (kind === "run" ? [make("a", { href: `#${of}=${encodeURIComponent(row.id)}`, textContent: of === "sweep" ? "The whole sweep" : "All stages together" })] : []);

  // What each stage gained and forgot.
  async function showStages(signal) {
    const pipeline = kind === "pipeline" ? found : await get("pipeline", { id: found.row.parent ?? id }, signal);
    if (signal.aborted) return;
    const all = wholeLink("pipeline", pipeline.row);
    const link = (stage) => (pipeline.ids?.[stage] ? make("a", { href: `#run=${encodeURIComponent(pipeline.ids[stage])}`, textContent: stage }) : stage);
    const rows = Object.entries(pipeline.table ?? {}).map(([metric, values]) => [metricName(metric), ...pipeline.stages.map((stage) => values[stage])]);
    if (Object.keys(pipeline.seconds ?? {}).length) rows.push(["time", ...pipeline.stages.map((stage) => duration(pipeline.seconds[stage]))]);
    if (Object.keys(pipeline.tokens ?? {}).length) rows.push(["tokens", ...pipeline.stages.map((stage) => written(pipeline.tokens[stage]))]);
    panel.replaceChildren(make("p", { className: "soft", textContent: "Each figure is measured again after every later stage, so a column shows what a stage has gained and forgotten. " }, ...all),
      tableOf(["after stage", ...pipeline.stages.map(link)], rows, "matrix"));
  }

  // The points of the sweep that the run belongs to, the best first.
  async function showSweep(signal) {
    const sweep = kind === "sweep" ? found : await get("sweep", { id: found.row.sweep }, signal);
    if (signal.aborted) return;
    const failed = sweep.points.some(({ error }) => error);
    const last = (one) => one ?? Infinity;
    const short = (key) => { const end = key.split(".").at(-1); return sweep.keys.filter((one) => one.split(".").at(-1) === end).length > 1 ? key : make("span", { textContent: end, title: key }); };
    const rows = [...sweep.points].sort((one, two) => last(one.value) - last(two.value)).map((point) => [
      point.id ? make("a", { href: `#run=${encodeURIComponent(point.id)}`, className: point.id === id ? "this" : "", title: point.run, textContent: shortPointOf(point.run, sweep.name) }) : shortPointOf(point.run, sweep.name),
      ...sweep.keys.map((key) => point.values[key]), make("span", { textContent: lossOf(point.value) }), percent(point.accuracy) + (point.side && !sweep.side ? ` (${point.side})` : ""), `${markOf(point.status)}\u00a0${point.status ?? ""}`, ...(failed ? [make("span", { className: "why", textContent: point.error })] : []),
    ]);
    panel.replaceChildren(make("p", { className: "soft" }, `Sweep ${sweep.name}: ${counted(sweep.points.length, "run")}. The figures are of the best evaluation; of a run under way, of the latest. `, ...wholeLink("sweep", sweep.row)), tableOf(["run", ...sweep.keys.map(short), metricName(sweep.metric), exactMatch(sweep.side), "status", ...(failed ? ["error"] : [])], rows, "matrix points"));
    if (kind === "run" && sweep.row.description) panel.firstChild.append(` ${sweep.row.description}`);
  }

  const panels = { Curves: showCurves, Samples: async (signal) => { await samples.fetch(signal); if (signal.aborted) return; if (!panel.firstChild) panel.append(samples.element); samples.show(); }, "Over time": async (signal) => { await samples.fetch(signal); if (signal.aborted) return; if (!panel.firstChild) panel.append(moments.element); moments.show(found.moments, samples.prompt()); }, Settings: async () => showSettings(), Stages: showStages, Sweep: showSweep, Log: showLog, Report: async () => showReport() };

  // Fetch and show the run again, and what the open tab shows of it.
  async function refresh() {
    turn?.abort();
    turn = new AbortController();
    const { signal } = turn;
    try {
      found = await get(kind, { id }, signal);
      if (signal.aborted || !element.isConnected) return;
      document.title = `${nameOf(found.row)} · Terrarium`;
      showHead();
      showWarnings();
      await panels[showTabs()](signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ApiError)) throw error;
      if (found) warnings.replaceChildren(make("p", { className: "error", textContent: error.message }));
      else element.replaceChildren(make("a", { href: "#", className: "back", textContent: "← All runs", onclick: (event) => { event.preventDefault(); close(); } }), make("p", { className: "error", textContent: error.message }));
    }
  }

  return { element, id, kind, refresh, mark() {}, shows: (ids) => ids.includes(id) || ids.some((one) => one.startsWith(`${id}/`)) || Boolean(found?.points?.some((point) => ids.some((one) => `${one}/`.startsWith(`${found.row.lab}/${found.row.experiment}/${point.run}/`)))), forget() { turn?.abort(); moments.forget(); for (const one of drawn.values()) one.forget(); } };
}
