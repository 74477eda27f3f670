// The board of a class: the best answers, or the shortest time to a target; each entry with its seeds and interval.
import { button, copy, make } from "/page/dom.js";
import { keepSetting, setting } from "/page/store.js";
import { written } from "./chart.js";
import { tableOf } from "./compare.js";
import { choice } from "./dialogs.js";
import { get } from "./lab.js";
import { commitOf, counted, duration, exactMatch, percent } from "./words.js";

const TARGETS = ["0.5", "0.9", "0.99", "1"];

// An entry's figure: its interval as a line with the mean on it, on one scale for all, and in words.
function interval({ value, low, high, seeds, without }, from, to, said) {
  const at = (one) => (to > from ? (one - from) / (to - from) : 0.5) * 100;
  const isKnown = low !== null && high !== null;
  const line = make("span", { className: "interval-line" }), dot = make("span", { className: "interval-dot" });
  line.style.left = `${at(isKnown ? low : value)}%`;
  line.style.right = `${100 - at(isKnown ? high : value)}%`;
  dot.style.left = `${at(value)}%`;
  const words = isKnown ? `${said(value)} (${said(low)} to ${said(high)})` : `${said(value)}, ${without ? `${counted(without, "run")} without a figure` : seeds.length > 1 ? "no prompts are counted" : "one seed"}: no interval`;
  return make("span", { className: "interval" }, make("span", { className: "interval-track" }, line, dot), make("span", { textContent: words }));
}

// The board as a view.
export function boardView() {
  const element = make("section", { className: "board" });
  const by = choice([["accuracy", "exact match"], ["target", "time to a target"]], setting("live.board", "accuracy"));
  const target = choice(TARGETS.map((one) => [one, percent(Number(one))]), setting("live.target", "0.9"));
  const which = choice([["", "all experiments"]]);
  const named = make("label", {}, "exact match ", target);
  const told = make("p", { className: "soft" });
  const place = make("div", { className: "soft", textContent: "All runs are being read." });
  element.append(make("h1", { textContent: "Board" }), make("div", { className: "tools" }, make("label", {}, "by ", by), named, which), told, place);
  which.setAttribute("aria-label", "Experiment");
  by.onchange = () => { keepSetting("live.board", by.value); refresh(); };
  target.onchange = () => { keepSetting("live.target", target.value); refresh(); };
  which.onchange = () => refresh();

  async function refresh() {
    if (!element.isConnected) return;
    const isTime = by.value === "target";
    const found = await get("board", { by: by.value, target: isTime ? target.value : "", experiment: which.value });
    const kept = which.value;
    which.replaceChildren(make("option", { value: "", textContent: "all experiments" }), ...found.experiments.map((name) => make("option", { value: name, textContent: name })));
    which.value = found.experiments.includes(kept) ? kept : "";
    named.hidden = !isTime;
    told.textContent = `${isTime ? `Seconds of training until every seed has an exact match of ${percent(found.target)} on validation prompts. Less is better.` : "The share of exact answers to prompts that were not trained on. More is better."} The place is decided by the worse end of the 95 % interval over seeds, so one lucky seed wins nothing. A run that still trains, was stopped or has failed keeps its group below. Removed runs cannot be seen, so look at the seeds, too.`;
    place.className = "";
    place.replaceChildren(...found.rankings.flatMap((ranking) => (found.rankings.length > 1 ? [headOf(ranking), tableOfRanking(ranking, isTime)] : [tableOfRanking(ranking, isTime)])));
    if (!found.rankings.length) place.append(make("div", { className: "empty" }, make("p", { textContent: "No entries yet. An entry needs several seeds of one setting:" }), make("code", { className: "command", textContent: "terrarium sweep EXP --seeds 0..2" })));
    if (found.left_out.length) place.append(make("p", { className: "soft", textContent: `Left out: ${found.left_out.join("; ")}` }));
  }
  return { element, refresh, shows: () => true };
}

const SIDES = { test: "test prompts", val: "validation prompts" };

// What the entries of a ranking have in common. Others cannot be compared with them.
const headOf = ({ experiment, data, side }) => make("h2", { textContent: [experiment, data ? `data ${data.slice(0, 8)}` : "data not known", SIDES[side]].filter(Boolean).join(", ") });

// The entries of a ranking, the best first.
function tableOfRanking({ entries, side }, isTime) {
  const ends = entries.flatMap(({ value, low, high }) => [value, low, high]).filter((one) => one !== null);
  const [from, to] = [Math.min(...ends), Math.max(...ends)];
  const said = isTime ? (one) => `${written(one)} s` : percent;
  const isOne = new Set(entries.map(({ lab }) => lab)).size < 2;
  const rows = entries.map((entry) => [
    String(entry.place ?? "–"), ...(isOne ? [] : [entry.lab]), make("a", { href: `#run=${encodeURIComponent(entry.runs[0])}`, textContent: `${entry.experiment}: ${entry.name}` }), interval(entry, from, to, said),
    `${entry.seeds.length}: ${entry.seeds.join(", ")}`, duration(entry.seconds), make("code", { textContent: entry.commits.map(commitOf).join(", ") }),
    entry.command ? button("Copy command", `Copy: ${entry.command}`, () => copy(entry.command)) : "",
  ]);
  return tableOf(["", ...(isOne ? [] : ["folder"]), "entry", isTime ? "time to target" : exactMatch(side), "seeds", "time of a run", "commit", ""], rows, "board-table");
}
