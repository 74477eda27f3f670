// What can be done with runs from the page. Nothing here exists where the page may only be read.
import { ApiError } from "/page/api.js";
import { button, copy, make, toast } from "/page/dom.js";
import { ask, choice, field } from "./dialogs.js";
import { get, post } from "./lab.js";
import { forget } from "./ticks.js";
import { counted, linkTo, longNameOf, modelOf, nameOf, shortId, sizeOf } from "./words.js";

const UNFINISHED = ["interrupted", "failed"];

// Do something at once; a refusal is told for a moment. Returns what the server says, null where it refused.
async function atOnce(path, body, said = "") {
  try {
    const found = await post(path, body);
    if (said) toast(said);
    return found;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    toast(error.message);
    return null;
  }
}

// What the server says, or the problem with it.
const orProblem = (answer) => answer.catch((error) => {
  if (!(error instanceof ApiError)) throw error;
  return { problem: error.message };
});

export const star = (row) => atOnce("star", { id: row.id, starred: !row.starred });

// Ask for the text of a run's description.
function describe(row) {
  const text = make("textarea", { rows: 5, value: row.description ?? "" });
  return ask(`What is ${nameOf(row)} for?`, [field("Description", text, "The question behind the run. It is stored with it.")],
    { action: "Keep it", act: () => post("describe", { id: row.id, description: text.value.trim() }) });
}

// Ask for the tags that a run has, or all runs of a sweep.
function tag(row, rows) {
  const text = make("input", { value: row.tags.join(", ") });
  const written = () => text.value.split(",").map((one) => one.trim()).filter(Boolean);
  const act = async () => {
    for (const one of rows) await post("tag", { id: one.id, tags: [...new Set([...one.tags.filter((tag) => !row.tags.includes(tag)), ...written()])] });
    return true;
  };
  return ask(`Tags of ${nameOf(row)}`, [field("Tags, with commas between them", text, "You can then show only the runs that have a tag.")],
    { action: "Keep them", act });
}

// Ask before a run is stopped.
const stop = (row, lab) => ask(`Stop ${longNameOf(row, lab)}?`, [make("p", { textContent: "It saves a checkpoint, as with Ctrl-C, and you can go on with it later." })],
  { action: "Stop it", act: () => post("stop", { id: row.id }) });

// Ask before runs are removed for good.
export async function prune(rows, lab) {
  const ids = rows.map(({ id }) => id);
  const names = rows.slice(0, 12).map((row) => make("li", { textContent: longNameOf(row, lab) }));
  if (rows.length > 12) names.push(make("li", { textContent: `and ${rows.length - 12} more` }));
  const plan = await atOnce("prune", { ids, dry: true });
  if (!plan) return null;
  const [whose, them] = rows.length > 1 ? ["Their", "them"] : ["Its", "it"];
  const kept = plan.kept.map((sentence) => make("p", { className: "soft", textContent: sentence }));
  return ask(`Remove ${counted(rows.length, "run")} for good?`,
    [make("ul", {}, ...names), make("p", { textContent: `${whose} curves, samples and checkpoints are deleted from the disk: ${sizeOf(plan.bytes)}. This cannot be undone. To keep ${them} out of the list only, hide ${them}.` }), ...kept],
    { action: "Remove for good", harm: true, act: async () => {
      const found = await post("prune", { ids });
      forget(found.removed);
      if (found.removed.includes(new URLSearchParams(location.hash.slice(1)).get("run"))) location.hash = ""; // it is open
      return found;
    } });
}

// Put runs away, or show them again.
export async function hide(rows, hidden = !rows[0].hidden) {
  for (const row of rows) if (!await atOnce("hide", { id: row.id, hidden })) return;
  const undo = async () => { for (const row of rows) await atOnce("hide", { id: row.id, hidden: !hidden }); };
  toast(`${hidden ? "Hidden" : "Shown again"}: ${rows.length === 1 ? nameOf(rows[0]) : counted(rows.length, "run")}.`, "Undo", undo);
}

// The buttons of a run, a run with stages, or a sweep. rows: of its runs. busy: whether something works on it. done() is called after each.
export function buttonsOf({ row, rows = [row], command, busy }, lab, done) {
  const made = [];
  const add = (text, label, act, className = "") => {
    const one = button(text, label, async () => { await act(); done(); });
    one.className = className;
    made.push(one);
  };
  if (lab.can_act && busy) add("Stop", "Stop the run; it saves first", () => stop(row, lab), "main");
  else if (lab.can_act && UNFINISHED.includes(row.status)) add("Go on", "Train the run from its last checkpoint", () => atOnce("go_on", { id: row.id }, `${nameOf(row)} goes on.`), "main");
  if (row.can_chat) made.push(make("a", { className: "button", href: `/chat#model=${encodeURIComponent(modelOf(row, lab))}`, textContent: "Chat", title: "Talk with this model, or have it continue a text" }));
  if (command) add("Copy command", `Copy: ${command}`, () => copy(command));
  if (!lab.can_act) return made;
  add("Run again…", "Start a run with these settings, changed as you like", () => start(lab, row));
  add(row.starred ? "★ Starred" : "☆ Star", row.starred ? "Take the star away" : "Give it a star", () => Promise.all(rows.map(({ id }) => star({ id, starred: row.starred }))));
  add("Describe…", "Say what the run is for", () => describe(row));
  add("Tags…", "Change the tags", () => tag(row, rows));
  if (rows.length) add(row.hidden ? "Show in lists" : "Hide", row.hidden ? "Show the run in lists again" : "Keep the run out of lists", () => hide(rows, !row.hidden));
  if (rows.length && !busy) add("Remove…", "Delete the run from the disk", () => prune(rows, lab));
  return made;
}

// The lines of a field, without empty ones.
const linesIn = (input) => input.value.split("\n").map((line) => line.trim()).filter(Boolean);

// Options as they are typed in a shell.
const typed = (options) => Object.entries(options).flatMap(([name, value]) => (value === true ? [`--${name}`] : [value].flat().map((one) => `--${name}=${one}`)))
  .map((text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`)).join(" ");

// Ask what to start, and start it. row: a run to begin from. usual: LAB/EXPERIMENT, the one that is offered first.
export async function start(lab, row = null, usual = "") {
  const all = lab.experiments.map((one) => [`${one.lab}/${one.name}`, lab.labs.length > 1 ? `${one.lab}/${one.name}` : one.name]);
  const place = choice(all, row ? `${row.lab}/${row.experiment}` : usual);
  const kind = choice([["loop", "loop: everything, with a report"], ["train", "train: only train"], ["sweep", "sweep: train many runs"]]);
  const variant = choice([["", "none"]]);
  const stage = choice([["", "all"]]);
  const name = make("input", { spellcheck: false });
  const settings = make("textarea", { rows: 3, placeholder: "learning_rate=0.01", spellcheck: false });
  const seeds = make("input", { placeholder: "0..2", spellcheck: false });
  const grid = make("textarea", { rows: 2, placeholder: "train.optim.learning_rate=0.01,0.02", spellcheck: false });
  const description = make("input");
  const more = make("input", { placeholder: "--exact", spellcheck: false });
  const shown = make("code", { className: "command" });
  const trouble = make("p", { className: "error", hidden: true });
  const fields = {
    stage: field("Stage", stage), seeds: field("Seeds", seeds, "0..2 trains each setting with the seeds 0, 1 and 2."),
    grid: field("Grid, one key a line", grid, "Every combination of these values is trained."), variant: field("Variant", variant), name: field("Name", name, " "),
  };
  const found = () => {
    const [labName, experiment] = place.value.split("/");
    const many = kind.value === "sweep";
    const options = { variant: variant.value, stage: many ? "" : stage.value, seeds: many ? seeds.value.trim() : "", grid: many ? linesIn(grid) : [], description: description.value.trim() };
    return { lab: labName, experiment, command: kind.value, name: name.value.trim(), settings: linesIn(settings), more: more.value.trim(), options: Object.fromEntries(Object.entries(options).filter(([, value]) => value.length)) };
  };
  const show = () => {
    const one = lab.experiments.find((each) => `${each.lab}/${each.name}` === place.value);
    const fill = (select, first, values) => {
      const kept = select.value;
      select.replaceChildren(first, ...values.map((value) => make("option", { value, textContent: value })));
      select.value = values.includes(kept) ? kept : "";
    };
    fill(variant, make("option", { value: "", textContent: "none" }), one?.variants ?? []);
    const stages = one?.stages_of_variants[variant.value] ?? one?.stages ?? [];
    fill(stage, make("option", { value: "", textContent: "all" }), stages);
    const many = kind.value === "sweep";
    fields.stage.hidden = many || !stages.length;
    fields.variant.hidden = !one?.variants?.length;
    fields.seeds.hidden = fields.grid.hidden = !many;
    name.placeholder = many ? "from its keys" : "default";
    fields.name.querySelector("small").textContent = many ? "Of the sweep. One of this name that is unfinished goes on." : "Of the run. One of this name that is unfinished goes on.";
    clearTimeout(due);
    due = setTimeout(tell, 150);
  };
  let due = 0, turn = 0;
  // Show the command as the server would start it, or why it would not.
  async function tell() {
    const mine = ++turn;
    const { command = "", problem = "" } = await orProblem(post("start", { ...found(), dry: true }));
    if (mine !== turn) return;
    shown.textContent = command;
    shown.parentElement.hidden = !command;
    trouble.textContent = problem;
    trouble.hidden = !problem;
  }
  let unread = "";
  if (row) {
    const { command, name: free = "", settings: given = [], options = {}, problem = "" } = await orProblem(get("again", { id: row.id }));
    const { variant: ofVariant = row.variant ?? "", stage: ofStage = row.stage ?? "", seeds: ofSeeds = "", grid: ofGrid = [], description: _, ...rest } = options;
    kind.value = command ?? "train";
    name.value = free;
    settings.value = given.join("\n");
    seeds.value = ofSeeds;
    grid.value = ofGrid.join("\n");
    more.value = typed(rest);
    unread = problem;
    show();
    variant.value = ofVariant;
    show();
    stage.value = ofStage;
  }
  show();
  const form = make("div", { className: "fields", oninput: show, onchange: show },
    field("Experiment", place), field("What to do", kind), fields.variant, fields.stage, fields.name, fields.seeds,
    field("Settings, one a line", settings, "As with -s on the command line: key=value."), fields.grid, field("Description", description, "The question behind it."),
    field("More options", more, "As on the command line; for a sweep such as --jobs 2, or --random 20 --range learning_rate=1e-4..1e-2:log."));
  if (unread) form.prepend(make("p", { className: "error", textContent: unread }));
  const copies = button("Copy", "Copy this command", () => copy(shown.textContent));
  const started = await ask(row ? `Run ${nameOf(row)} again` : "Start a run or a sweep", [form, make("div", { className: "command-line" }, shown, copies)], { action: "Start", wide: true, trouble, act: () => post("start", found()) });
  if (started) toast("Started. It appears in the list when its first step is done.");
  return started;
}

// Show what was started from the page, with the last lines of each. Returns those that have ended.
export async function showJobs() {
  const { jobs } = await get("jobs");
  const shown = jobs.map((job) => {
    const { words, about, kind, status, exit, lines } = job;
    const end = { completed: "done", failed: `failed with exit code ${exit}` }[status] ?? status;
    const text = lines.filter((line) => line !== `$ ${words}`).join("\n"); // the command stands above
    const link = kind ? make("a", { href: linkTo(about, kind), textContent: shortId(about), onclick: (event) => event.target.closest("dialog").close() }) : shortId(about); // there may be nothing to show yet
    const line = make("p", { className: status === "failed" ? "error" : "soft" }, link, `: ${end} `);
    if (status === "running") line.append(button("Stop", "Stop it; it saves first", async (event) => { event.target.disabled = true; await atOnce("stop", { id: job.job }, "It was told to stop."); }));
    return make("section", { className: "job" }, make("code", { className: "command", textContent: words }), line, make("pre", { textContent: text, tabIndex: 0 }));
  });
  if (!shown.length) shown.push(make("p", { textContent: "Nothing was started from this page yet." }));
  await ask("Started from here", shown, { wide: true });
  return jobs.filter(({ status }) => status !== "running");
}
