// Which runs are ticked, and the colour of each run's curve. A colour stays with its run as long as it is ticked.
import { keepSetting, setting } from "/page/store.js";

const NAME = "live.ticked";
const AT_ONCE = 10; // curves that are shown when none is ticked
const kept = setting(NAME, []);
const ticked = new Map((Array.isArray(kept) ? kept : []).filter((id) => typeof id === "string").map((id, at) => [id, at]));
let offered = []; // the runs on top of the list
let told = () => {};

// Call back when another choice is shown.
export const onTick = (call) => { told = call; };

function changed() {
  keepSetting(NAME, [...ticked.keys()]);
  told();
}

export const isTicked = (id) => ticked.has(id);
export const tickedIds = () => [...ticked.keys()];

// The runs whose curves are shown: the ticked ones, or the first of the list.
export const shownIds = () => (ticked.size ? tickedIds() : offered);

// The number of a run's colour; -1 where its curve is not shown.
export const colourOf = (id) => (ticked.size ? ticked.get(id) ?? -1 : offered.indexOf(id));

// Tick a run, or take the tick away.
export function toggle(id, on = !ticked.has(id)) {
  if (on === ticked.has(id)) return;
  const used = new Set(ticked.values());
  let free = 0;
  while (used.has(free)) free++;
  if (on) ticked.set(id, free); else ticked.delete(id);
  changed();
}

// Take away ticks: all, or those of some runs.
export function clear(ids = tickedIds()) {
  ids.forEach((id) => ticked.delete(id));
  changed();
}

// Runs are no longer there.
export function forget(ids) {
  offered = offered.filter((id) => !ids.includes(id));
  clear(ids);
}

// Say which runs stand on top of the list.
export function offer(ids) {
  const next = ids.slice(0, AT_ONCE);
  if (next.join("\n") === offered.join("\n")) return;
  offered = next;
  if (!ticked.size) told();
}
