// The live page: the list of runs on the left, what is open on the right, and what happens when something is chosen, typed or has changed.
import { ApiError, hasToken, takeToken } from "/page/api.js";
import { $, make, toast } from "/page/dom.js";
import { keepSetting, setting } from "/page/store.js";
import { listenToTheme } from "/page/theme.js";
import { askForToken } from "/page/token.js";
import { showJobs, star, start } from "./actions.js";
import { boardView } from "./board.js";
import { compareView } from "./compare.js";
import { ask } from "./dialogs.js";
import { events, get } from "./lab.js";
import { runView } from "./run.js";
import { runsTable } from "./table.js";
import { offer, onTick, tickedIds } from "./ticks.js";
import { counted, homeOf, shortId } from "./words.js";

const KINDS = ["run", "pipeline", "sweep"]; // what a view may be about
const FILTERS = ["text", "experiment", "status", "tag"];
const LEAST = 1000, MOST = 10000; // ms between two tries to reach a server that has gone
const KEYS = [["↑ ↓", "go through the list"], ["Space", "tick a run to compare it"], ["Enter", "open a run"], ["/", "filter"], ["s", "star, in the list"], ["c", "the ticked runs' curves"], ["Escape", "back"], ["?", "this list"],
  ["← →", "in a chart: read values"], ["+ −", "in a chart: zoom; 0 shows the whole curve"], ["drag, double click", "zoom in a chart, and back"], ["click, wheel", "zoom in the picture of embeddings"]];
let lab = { labs: [], experiments: [], can_act: false, read_only: true };
let sort = setting("live.sort", "started"), descending = setting("live.descending", true);
const looked = new Set(); // jobs that were looked at since they ended
let ended = null; // jobs that had ended when they were asked for last
let view = null, table = null, waiting = new Set(), due = 0;

// What the list is asked for.
function filter() {
  const [labName, experiment] = $("experiment").value.split("/");
  return { text: $("text").value.trim(), lab: experiment === undefined ? "" : labName, experiment: experiment ?? "", status: $("status").value, tag: $("tag").value, starred: $("starred").checked, hidden: $("hidden").checked };
}

const isFiltered = () => Object.values(filter()).some(Boolean);

// The runs of a page of the list.
const fetchRows = (offset, limit) => get("runs", { ...filter(), sort, descending, offset, limit });

// What stands in place of an empty list: why it is empty, and the next step.
function showEmpty(total) {
  $("none").hidden = total > 0;
  $("runs").classList.toggle("without", total === 0);
  if (total) return;
  if (isFiltered()) {
    $("none").replaceChildren(make("p", { textContent: "No run is like this." }), make("button", { type: "button", textContent: "Show all runs", onclick: () => { for (const name of FILTERS) $(name).value = ""; $("starred").checked = $("hidden").checked = false; refilter(); } }));
    return;
  }
  const name = lab.experiments[0]?.name;
  if (!name && problems().length) {
    $("none").replaceChildren(make("p", { textContent: "No experiment can be read. Above is what is wrong." }));
    return;
  }
  $("none").replaceChildren(make("p", { textContent: name ? "Nothing was trained yet. The runs of every experiment appear here by themselves. To begin:" : "There is no experiment in this folder. To make one:" }),
    make("code", { className: "command", textContent: name ? `terrarium loop ${name}` : "terrarium new my_idea" }));
}

// What the first page of the list says.
function loaded({ total, rows }) {
  $("count").textContent = counted(total, "run");
  $("heard").textContent = isFiltered() ? counted(total, "run") : "";
  showEmpty(total);
  offer(rows.map(({ id }) => id));
}

async function refilter() {
  await guarded(() => table.reset());
  if (!tickedIds().length) view?.refresh();
}

// Do something; ask for the token where the server wants one, and say what it refuses.
async function guarded(act) {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401 && await askForToken()) return guarded(act);
    trouble(error.message);
    return undefined;
  }
}

// Say that something is wrong with the connection; "" takes it back.
function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

// Views ----------------------------------------------------------------------------------------------------------------

const hashOf = () => new URLSearchParams(location.hash.slice(1));

// Mark a link as the one whose view is shown.
function mark(link, isShown) {
  if (isShown) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
}

// Show what the address says: a run, a run with stages, a sweep, the board, or the curves of the ticked runs.
function route() {
  const asked = hashOf(), kind = KINDS.find((one) => asked.has(one)), id = asked.get(kind);
  if (id && view?.id === id && view.kind === kind) return;
  view?.forget?.();
  if (id) view = runView({ id, kind, lab: () => lab, changed: () => { change([id]); guarded(loadLab); }, close: () => { location.hash = ""; } });
  else if (asked.has("board")) view = boardView();
  else view = comparing;
  $("pane").replaceChildren(view.element);
  $("pane").scrollTop = 0;
  document.body.classList.toggle("deep", Boolean(id) || asked.has("board") || asked.has("curves"));
  document.body.classList.toggle("whole", asked.has("board"));
  document.title = id ? `${id.split("/").at(-1)} · Terrarium` : "Terrarium";
  table.choose(id ?? "");
  const place = asked.has("board") ? "#board" : asked.has("curves") && $("curves-link").checkVisibility() ? "#curves" : "#";
  for (const link of document.querySelectorAll("nav a")) mark(link, link.getAttribute("href") === place);
  guarded(() => view.refresh());
}

const comparing = compareView({ rowOf: (id) => table?.rowOf(id), sorting: () => [sort, descending], lab: () => lab, changed: () => change([]) });

// What has changed ------------------------------------------------------------------------------------------------------

// Fetch again, at most once a second, what has changed and is shown.
function change(ids) {
  ids.forEach((id) => waiting.add(id));
  if (due) return;
  due = setTimeout(async () => {
    due = 0;
    if (document.hidden) return; // everything is fetched again when the page is seen
    if (document.querySelector("dialog[open]")) { change([]); return; } // nothing moves below a question
    const now = [...waiting];
    waiting = new Set();
    await guarded(() => table.refresh());
    if (!now.length || view.shows(now)) await guarded(() => view.refresh());
  }, 250);
}

// How the page is connected, in words and a mark.
function connection(state) {
  $("connection").dataset.state = state;
  const [mark, words] = { live: ["●", "live"], gone: ["○", "not connected"], paused: ["‖", "paused"] }[state];
  $("connection").replaceChildren(mark, make("span", { className: "word", textContent: ` ${words}` }));
}

const seen = () => new Promise((resolve) => {
  if (!document.hidden) { resolve(); return; }
  const look = () => { if (!document.hidden) { document.removeEventListener("visibilitychange", look); resolve(); } };
  document.addEventListener("visibilitychange", look);
});
const sleep = (time) => new Promise((resolve) => { setTimeout(resolve, time); });

// Hear of changes as long as the page is seen. If the server has gone, say so and try again.
async function listenForever() {
  let pause = LEAST;
  for (;;) {
    await seen();
    const controller = new AbortController();
    const look = () => { if (document.hidden) controller.abort(); };
    document.addEventListener("visibilitychange", look);
    try {
      let first = true;
      for await (const { changed = [], jobs } of events(controller.signal)) {
        if (!first && !changed.length && !jobs) await reload(); // an experiment has come or gone
        if (first) { first = false; pause = LEAST; connection("live"); trouble(""); change([]); } // what came since the page was filled
        if (changed.some((id) => id.split("/").length === 2)) await guarded(loadLab); // LAB/EXPERIMENT: its problem
        if (changed.length) change(changed);
        if (jobs) { markJobs(); change([]); } // a run that was prepared, or its log
      }
      throw new ApiError("The server has ended the connection.", 0);
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof ApiError)) throw error;
      if (document.hidden) connection("paused");
      else {
        connection("gone");
        if (error.status === 401) await askForToken();
        else trouble("The server does not answer. Is “terrarium serve” still running? What you see is from before; this page tries again by itself.");
        await sleep(pause);
        pause = Math.min(MOST, pause * 2);
      }
    } finally {
      document.removeEventListener("visibilitychange", look);
    }
    await seen();
    if (await reload()) { connection("live"); trouble(""); pause = LEAST; }
  }
}

// Everything that is shown, again. Returns whether the server answered.
async function reload() {
  try {
    await loadLab();
    await table.refresh();
    await view.refresh();
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return false;
  }
}

// Experiments, and whether anything may be done -------------------------------------------------------------------------

// What keeps labs, or runs of experiments, from being shown.
function problems() {
  const called = (one) => (one.lab && lab.labs.length > 1 ? `${one.lab}/${one.name}` : one.name);
  return [...(lab.problem ? [lab.problem] : []), ...[...lab.labs, ...lab.experiments].filter((one) => one.problem).map((one) => `${called(one)}: ${one.problem}`)];
}

async function loadLab() {
  lab = await get("lab");
  lab.can_act &&= hasToken(); // without it the server refuses every action
  const labelled = lab.experiments.map((one) => [`${one.lab}/${one.name}`, lab.labs.length > 1 ? `${one.lab}/${one.name}` : one.name]);
  const fill = (select, first, values) => {
    const kept = select.value;
    select.replaceChildren(make("option", { value: "", textContent: first }), ...values.map(([value, text]) => make("option", { value, textContent: text })));
    select.value = values.some(([value]) => value === kept) ? kept : "";
  };
  fill($("experiment"), "all experiments", labelled);
  fill($("tag"), "all tags", (lab.tags ?? []).map((one) => [one, one]));
  $("tag").hidden = !lab.tags?.length;
  $("problems").replaceChildren(...problems().map((text) => make("p", { textContent: `⚠ ${text}` })));
  $("problems").hidden = !problems().length;
  $("start").hidden = $("jobs").hidden = !lab.can_act;
  $("read-only").hidden = lab.can_act;
  $("read-only").disabled = lab.read_only; // no token changes that
  $("board-link").hidden = lab.labs.length < 2;
  document.documentElement.dataset.version = lab.version;
}

async function markJobs() {
  if (!lab.can_act) return;
  const { jobs } = await get("jobs").catch(() => ({ jobs: [] }));
  const open = jobs.filter(({ status }) => status === "running").length, failed = jobs.filter(({ status, job }) => status === "failed" && !looked.has(job)).length;
  $("jobs").textContent = [...(open ? [`${counted(open, "job")} running`] : []), ...(failed ? [open ? `${failed} failed` : `${counted(failed, "job")} failed`] : [])].join(", ") || "Jobs";
  $("jobs").classList.toggle("failed", failed > 0);
  const news = ended && jobs.find(({ status, job }) => status === "failed" && !ended.has(job));
  ended = new Set(jobs.filter(({ status }) => status !== "running").map(({ job }) => job));
  if (news) toast(`${shortId(news.about)} has failed. ${errorIn(news.lines)}`, "Show", lookAtJobs, true);
}

// The end of what a failed job has printed: its message, without what was said before.
function errorIn(lines) {
  const said = lines.map((line) => line.trim()).filter(Boolean);
  const at = said.findLastIndex((line) => /^(error|failed): /.test(line));
  return said.slice(at).join(" ").replace(/^error: /, "");
}

const lookAtJobs = () => guarded(async () => {
  const jobs = await showJobs();
  jobs.forEach(({ job }) => looked.add(job));
  markJobs();
});

// LAB/EXPERIMENT that a new run is probably of: the one that the list shows, else that of the newest run.
async function usual() {
  if ($("experiment").value) return $("experiment").value;
  const [newest] = (await get("runs", { sort: "started", descending: true, limit: 1 })).rows;
  return newest ? `${newest.lab}/${newest.experiment}` : "";
}

// Ask for the token, and show what may be done with it.
async function unlock() {
  if (!await askForToken()) return;
  await loadLab();
  if (!lab.can_act) { toast("This is not the token of this server."); return; }
  table.draw();
  await view.refresh();
  markJobs();
}

// Keys and buttons ------------------------------------------------------------------------------------------------------

const showKeys = () => ask("Keys", [make("dl", { className: "keys-list" }, ...KEYS.flatMap(([key, what]) => [make("dt", {}, make("kbd", { textContent: key })), make("dd", { textContent: what })]))], {});

function listen() {
  let typing = 0;
  $("text").oninput = () => { clearTimeout(typing); typing = setTimeout(refilter, 150); };
  for (const name of ["experiment", "status", "tag", "starred", "hidden"]) $(name).onchange = refilter;
  $("filters").onsubmit = (event) => { event.preventDefault(); $("runs").focus(); };
  for (const one of document.querySelectorAll(".sorts button")) {
    one.onclick = () => {
      descending = sort === one.value ? !descending : one.value === "started" || one.value === "val_accuracy";
      sort = one.value;
      keepSetting("live.sort", sort);
      keepSetting("live.descending", descending);
      showSort();
      refilter();
    };
  }
  $("start").onclick = () => guarded(async () => { if (await start(lab, null, await usual())) { change([]); markJobs(); } });
  $("jobs").onclick = lookAtJobs;
  $("read-only").onclick = () => guarded(unlock);
  $("help").onclick = showKeys;
  addEventListener("hashchange", route);
  addEventListener("keydown", (event) => {
    const inField = event.target.closest("input:not([type=checkbox]):not([type=range]), textarea, select, dialog");
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape" && event.target === $("text")) { $("runs").focus(); return; }
    if (event.key === "Escape" && !inField && location.hash) { location.hash = ""; $("runs").focus(); }
    if (inField) return;
    if (event.key === "/") { event.preventDefault(); $("text").focus(); $("text").select(); }
    if (event.key === "?") showKeys();
    if (event.key === "c") location.hash = "curves";
  });
}

function showSort() {
  for (const one of document.querySelectorAll(".sorts button")) {
    const is = one.value === sort;
    one.dataset.way = is ? (descending ? " ↓" : " ↑") : "";
    one.parentElement.setAttribute("aria-sort", is ? (descending ? "descending" : "ascending") : "none");
  }
}

takeToken();
listenToTheme();
table = runsTable($("runs"), {
  fetchRows, loaded, canAct: () => lab.can_act, homeOf: (row) => homeOf(row, lab),
  open: (row) => { location.hash = `run=${encodeURIComponent(row.id)}`; },
  star: async (row) => { await star(row); change([row.id]); },
  mark: (id) => view?.mark?.(id),
});
onTick(() => {
  table.draw();
  $("curves-link").textContent = tickedIds().length ? `Curves (${tickedIds().length})` : "Curves";
  if (view === comparing) guarded(() => comparing.refresh());
});
listen();
showSort();
await guarded(loadLab);
await guarded(() => table.reset());
route();
markJobs();
$("curves-link").textContent = tickedIds().length ? `Curves (${tickedIds().length})` : "Curves";
document.body.classList.add("ready");
listenForever();
