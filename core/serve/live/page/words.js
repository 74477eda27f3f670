// Figures and states in words: what a person reads in tables, titles and notes.
import { written } from "./chart.js";

// Each state has a mark of its own, so that it is told by more than a colour.
const MARKS = { running: "▶", completed: "✓", interrupted: "■", failed: "✕", damaged: "⚠" };

export const markOf = (status) => MARKS[status] ?? "•";

// A length of time: the two largest units.
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60 ? `${whole % 60} s` : ""}`.trim();
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.round((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.round((whole % 86400) / 3600)} h`;
}

// How long ago a moment was, in one unit.
export function ago(iso, now = Date.now()) {
  const seconds = (now - Date.parse(iso)) / 1000;
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

// How long something takes, in one unit and rounded up: for where there is little room.
function shortly(seconds) {
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([size]) => seconds > 1.5 * size) ?? [1, "s"];
  return `${Math.ceil(seconds / size)} ${unit}`;
}

// A loss, in as many digits as there is room for in the list: all of the same size are as long.
export function lossOf(value) {
  const size = Math.abs(value);
  return Number.isFinite(value) && size >= 1e-3 && size < 1e4 ? value.toPrecision(size < 0.1 ? 3 : 4) : written(value);
}

// A share as a percentage.
export const percent = (share) => (share === null || share === undefined || !Number.isFinite(share) ? "–" : `${(share * 100).toFixed(share > 0.9995 || share === 0 ? 0 : 1)} %`);

// A run's name with its stage.
export const nameOf = (row) => (row.stage ? `${row.run}/${row.stage}` : row.run);

// A run's name where its sweep is named beside it.
export function shortPointOf(name, sweep) {
  const prefix = `sweep-${sweep}-`;
  return name.startsWith(prefix) ? name.slice(prefix.length) : name;
}
export const shortNameOf = (row) => (row.sweep ? shortPointOf(nameOf(row), row.sweep.split("/").at(-1)) : nameOf(row));

// What a run's experiment is called: the lab stands before it only where there are several.
export const homeOf = (row, lab) => (lab.labs.length > 1 ? `${row.lab}/${row.experiment}` : row.experiment);

// A run's name behind its experiment's.
export const longNameOf = (row, lab) => `${homeOf(row, lab)}/${nameOf(row)}`;

// What a run's model is called by the server: the lab stands before it only where there are several.
export const modelOf = (row, lab) => (lab.labs.length > 1 ? row.id : shortId(row.id));

// A row with what a run's id says: LAB/EXPERIMENT/RUN or LAB/EXPERIMENT/RUN/STAGE.
export function rowFrom(id) {
  const [lab, experiment, run, stage = null] = id.split("/");
  return { id, lab, experiment, run, stage };
}

// Names, but not too many.
export const listed = (names, most = 5) => [...names.slice(0, most), ...(names.length > most ? [`${names.length - most} more`] : [])].join(", ");

// An id without its first part, the lab.
export const shortId = (id) => id.split("/").slice(1).join("/") || id;

// Where a run, a run with stages ("pipeline"), or a sweep of this id is shown.
export const linkTo = (id, kind) => `#${kind}=${encodeURIComponent(id)}`;

// The hash of a commit, shortened, with a mark where the files were others. It is recorded as HASH or HASH+changes.
export function commitOf(commit) {
  const [hash, changes] = (commit ?? "").split("+");
  return hash ? hash.slice(0, 8) + (changes === undefined ? "" : ` + ${changes || "changes"}`) : "–";
}

// A count with its noun.
export const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

// A whole number with its thousands apart; a dash where there is none.
export const whole = (number) => (Number.isFinite(number) ? number.toLocaleString("en") : "–");

// A size of files.
export const sizeOf = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);

// How far a run has come.
export function progressOf(row) {
  if (row.status !== "running") return row.step ? `step ${whole(row.step)}` : "";
  const left = row.seconds_left === null || row.seconds_left === undefined ? "" : ` · ${shortly(row.seconds_left)} left`;
  return `${Math.floor((row.progress ?? 0) * 100)} %${left}`;
}

// A value of any kind, as in a config.
export function valueOf(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : written(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

// What the share of answers without a mistake is called. side: of which prompts, "" where that is not one.
export function exactMatch(side) {
  return side ? `exact match (${side})` : "exact match";
}

// What a column of figures or a metric is called.
const NAMES = {
  train_loss: "training loss", val_loss: "validation loss", val_accuracy: exactMatch("val"), train_accuracy: exactMatch("train"),
  tokens_per_second: "tokens per second", learning_rate: "learning rate", val_bits_per_byte: "bits per byte", lr: "learning rate",
};
export const metricName = (metric) => NAMES[metric] ?? metric.replaceAll("_", " ");
