// What can be done with runs from the page. Nothing here exists where the page may only be read.
import { ApiError } from "/page/api.js";
import { button, copy, make, toast } from "/page/dom.js";
import { ask, choice, field } from "./dialogs.js";
import { get, post } from "./lab.js";
import { forget } from "./ticks.js";
import { counted, longNameOf, modelOf, nameOf, sizeOf } from "./words.js";

const RUNNING = "running";
const STOPPED = [130, 143, -2, -15]; // exit codes after Ctrl-C and SIGTERM
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

export const star = (row) => atOnce("star", { id: row.id, starred: !row.starred });

// Ask for the text of a run's description.
function describe(row) {
  const text = make("textarea", { rows: 5, value: row.description ?? "" });
  return ask(`What is ${nameOf(row)} for?`, [field("Description", text, "The question behind the run. It is stored with it.")],
    { action: "Keep it", act: () => post("describe", { id: row.id, description: text.value.trim() }) });
}

// Ask for a run's tags.
function tag(row) {
  const text = make("input", { value: row.tags.join(", ") });
  const tags = () => [...new Set(text.value.split(",").map((one) => one.trim()).filter(Boolean))];
  return ask(`Tags of ${nameOf(row)}`, [field("Tags, with commas between them", text, "You can then show only the runs that have a tag.")],
    { action: "Keep them", act: () => post("tag", { id: row.id, tags: tags() }) });
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

// The buttons of a run. done() is called after each.
export function buttonsOf(row, command, lab, done) {
  const made = [];
  const add = (text, label, act, className = "") => {
    const one = button(text, label, async () => { await act(); done(); });
    one.className = className;
    made.push(one);
  };
  if (lab.can_act && row.status === RUNNING) add("Stop", "Stop the run; it saves first", () => stop(row, lab), "main");
  if (lab.can_act && UNFINISHED.includes(row.status)) add("Go on", "Train the run from its last checkpoint", () => atOnce("go_on", { id: row.id }, `${nameOf(row)} goes on.`), "main");
  if (row.can_chat) made.push(make("a", { className: "button", href: `/chat#model=${encodeURIComponent(modelOf(row, lab))}`, textContent: "Chat", title: "Talk with this model, or have it continue a text" }));
  if (command) add("Copy command", `Copy: ${command}`, () => copy(command));
  if (!lab.can_act) return made;
  add("Run again…", "Start a run with these settings, changed as you like", () => start(lab, row));
  add(row.starred ? "★ Starred" : "☆ Star", row.starred ? "Take the star away" : "Give it a star", () => star(row));
  add("Describe…", "Say what the run is for", () => describe(row));
  add("Tags…", "Change the tags", () => tag(row));
  add(row.hidden ? "Show in lists" : "Hide", row.hidden ? "Show the run in lists again" : "Keep the run out of lists", () => hide([row]));
  if (row.status !== RUNNING) add("Remove…", "Delete the run from the disk", () => prune([row], lab));
  return made;
}

// The lines of a field, without empty ones.
const linesIn = (input) => input.value.split("\n").map((line) => line.trim()).filter(Boolean);

// A text as one word of a shell.
const word = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

// What the command line would be.
function commandOf({ command, experiment, name, settings, options }) {
  const parts = ["terrarium", command, experiment];
  if (options.variant) parts.push("--variant", options.variant);
  if (options.stage) parts.push("--stage", options.stage);
  if (name) parts.push(command === "sweep" ? "--name" : "--run", name);
  if (options.seeds) parts.push("--seeds", options.seeds);
  for (const line of options.grid ?? []) parts.push("--grid", line);
  for (const line of settings) parts.push("-s", line);
  if (options.description) parts.push("--description", options.description);
  return parts.map(word).join(" ");
}

// The settings that a command line was given: the words behind each -s, without their quotes.
export function settingsIn(command) {
  const words = [...command.matchAll(/(?:[^\s'"\\]|'[^']*'|"(?:[^"\\]|\\.)*"|\\.)+/g)].map(([one]) => one.replace(/'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)/g, (_, single, double, other) => single ?? double?.replace(/\\(.)/g, "$1") ?? other));
  return words.flatMap((one, at) => (["-s", "--set"].includes(one) && words[at + 1] ? [words[at + 1]] : []));
}

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
  const shown = make("code", { className: "command" });
  const fields = {
    stage: field("Stage", stage), seeds: field("Seeds", seeds, "0..2 trains each setting with the seeds 0, 1 and 2."),
    grid: field("Grid, one key a line", grid, "Every combination of these values is trained."), variant: field("Variant", variant), name: field("Name", name, " "),
  };
  const found = () => {
    const [labName, experiment] = place.value.split("/");
    const many = kind.value === "sweep";
    const options = { variant: variant.value, stage: many ? "" : stage.value, seeds: many ? seeds.value.trim() : "", grid: many ? linesIn(grid) : [], description: description.value.trim() };
    return { lab: labName, experiment, command: kind.value, name: name.value.trim(), settings: linesIn(settings), options: Object.fromEntries(Object.entries(options).filter(([, value]) => value.length)) };
  };
  const show = () => {
    const one = lab.experiments.find((each) => `${each.lab}/${each.name}` === place.value);
    const fill = (select, first, values) => {
      const kept = select.value;
      select.replaceChildren(first, ...values.map((value) => make("option", { value, textContent: value })));
      select.value = values.includes(kept) ? kept : "";
    };
    fill(variant, make("option", { value: "", textContent: "none" }), one?.variants ?? []);
    fill(stage, make("option", { value: "", textContent: "all" }), one?.stages ?? []);
    const many = kind.value === "sweep";
    fields.stage.hidden = many || !one?.stages?.length;
    fields.variant.hidden = !one?.variants?.length;
    fields.seeds.hidden = fields.grid.hidden = !many;
    name.placeholder = many ? "from its keys" : "default";
    fields.name.querySelector("small").textContent = many ? "Of the sweep. One of this name that is unfinished goes on." : "Of the run. One of this name that is unfinished goes on.";
    shown.textContent = commandOf(found());
  };
  if (row) {
    const about = await get("run", { id: row.id }).catch(() => null);
    settings.value = settingsIn(about?.command ?? "").join("\n");
    show();
    variant.value = row.variant ?? "";
    stage.value = row.stage ?? "";
  }
  show();
  const form = make("div", { className: "fields", oninput: show, onchange: show },
    field("Experiment", place), field("What to do", kind), fields.variant, fields.stage, fields.name, fields.seeds,
    field("Settings, one a line", settings, "As with -s on the command line: key=value."), fields.grid, field("Description", description, "The question behind it."));
  const copies = button("Copy", "Copy this command", () => copy(shown.textContent));
  const started = await ask(row ? `Run ${nameOf(row)} again` : "Start a run or a sweep", [form, make("div", { className: "command-line" }, shown, copies)], { action: "Start", wide: true, act: () => post("start", found()) });
  if (started) toast("Started. It appears in the list when its first step is done.");
  return started;
}

// Whether a job still runs, and whether it has ended in another way than it should. One that was stopped has not failed.
export const isOpen = ({ exit }) => exit === null || exit === undefined;
export const hasFailed = (job) => !isOpen(job) && ![0, ...STOPPED].includes(job.exit);

// Show what was started from the page, with the last lines of each. Returns those that have ended.
export async function showJobs() {
  const { jobs } = await get("jobs");
  const shown = jobs.map((job) => {
    const { words, status, exit, lines } = job;
    const end = isOpen(job) ? status : exit === 0 ? "done" : hasFailed(job) ? `failed with exit code ${exit}` : "stopped";
    const text = lines.filter((line) => line !== `$ ${words}`).join("\n"); // the command stands above
    return make("section", { className: "job" }, make("code", { className: "command", textContent: words }),
      make("p", { className: hasFailed(job) ? "error" : "soft", textContent: end }), make("pre", { textContent: text, tabIndex: 0 }));
  });
  if (!shown.length) shown.push(make("p", { textContent: "Nothing was started from this page yet." }));
  await ask("Started from here", shown, { wide: true });
  return jobs.filter((job) => !isOpen(job));
}
