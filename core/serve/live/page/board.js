// The board of a class: who reaches the target in the shortest time, or the most; each entry with its seeds and interval.
import { button, copy, make } from "/page/dom.js";
import { written } from "./chart.js";
import { tableOf } from "./compare.js";
import { get } from "./lab.js";
import { counted, duration, valueOf } from "./words.js";

// What stands in the place of an entry's figure: the interval as a line with its middle, on one scale for all.
function interval({ value, low, high }, from, to) {
  if (value === null || value === undefined) return make("span", { className: "soft", textContent: "not reached" });
  const at = (one) => `${to > from ? ((one - from) / (to - from)) * 100 : 50}%`;
  const line = make("span", { className: "interval-line" }), dot = make("span", { className: "interval-dot" });
  const known = low !== null && low !== undefined && high !== null && high !== undefined;
  line.style.left = at(known ? low : value);
  line.style.right = `calc(100% - ${at(known ? high : value)})`;
  dot.style.left = at(value);
  const words = known ? `${written(value)} (${written(low)} to ${written(high)})` : `${written(value)} (one seed: no interval)`;
  return make("span", { className: "interval" }, make("span", { className: "interval-track" }, line, dot), make("span", { textContent: words }));
}

// The board as a view.
export function boardView() {
  const element = make("section", { className: "board" });

  async function refresh() {
    if (!element.isConnected) return;
    const { target, entries, sentence } = await get("board");
    const ends = entries.flatMap(({ value, low, high }) => [value, low, high]).filter((one) => typeof one === "number");
    const [from, to] = [Math.min(...ends), Math.max(...ends)];
    const rows = entries.map((entry, at) => [
      String(entry.place ?? at + 1), entry.lab, entry.experiment, interval(entry, from, to), counted(entry.seeds?.length ?? entry.seeds ?? 0, "seed"), duration(entry.seconds),
      make("code", { textContent: String(entry.commit ?? "").slice(0, 8) || "–" }),
      entry.command ? button("Copy command", `Copy: ${entry.command}`, () => copy(entry.command)) : "",
    ]);
    element.replaceChildren(
      make("h1", { textContent: "Board" }),
      make("p", { className: "soft", textContent: sentence ?? `Ranked by ${valueOf(target)}. An entry counts with all its seeds, by the worse end of its interval, so a lucky seed does not win.` }),
      entries.length ? tableOf(["", "lab", "experiment", "figure", "seeds", "time", "commit", ""], rows, "board-table")
        : make("div", { className: "empty" }, make("p", { textContent: "No entries yet. An entry needs several seeds of one setting:" }), make("code", { className: "command", textContent: "terrarium sweep EXP --seeds 0..2" })));
  }
  return { element, refresh, shows: () => true };
}
