// The list of runs: any number of them, of which only the rows in view are elements. Rows are fetched by the hundred, as they are scrolled to.
import { make } from "/page/dom.js";
import { colourOf, isTicked, toggle } from "./ticks.js";
import { ago, lossOf, markOf, nameOf, percent, progressOf, shortNameOf } from "./words.js";

export const ROW = 50; // px, as in live.css
const PAGE = 100;
const LONG = 13; // characters of a name that has two lines, where there is no room for it in one
const SPARE = 6; // rows above and below those that are seen

// A list in an element. fetchRows(offset, limit) gives {total, rows}; open(row), star(row) and mark(id) are what happens to a row.
// homeOf(row): what its experiment is called.
export function runsTable(grid, { fetchRows, open, star, mark, canAct, loaded, homeOf }) {
  const body = make("div", { className: "rows" });
  body.setAttribute("role", "presentation");
  const built = new Map(); // place -> {element, key}
  let pages = new Map(), total = 0, current = -1, asked = new Set(), turn = 0, chosen = "", fresh = true;
  grid.replaceChildren(body);

  const rowAt = (place) => pages.get(Math.floor(place / PAGE))?.[place % PAGE];

  // The cells of a row.
  function cells(row, place) {
    const cell = (className, ...children) => {
      const made = make("div", { className }, ...children);
      made.setAttribute("role", "gridcell");
      return made;
    };
    const tick = make("input", { type: "checkbox", checked: isTicked(row.id), tabIndex: -1 });
    tick.setAttribute("aria-label", `Compare ${nameOf(row)}`);
    const box = cell("tick", tick);
    const colour = colourOf(row.id);
    if (colour >= 0) box.style.setProperty("--own", `var(--curve-${colour % 10})`);
    const stars = make(canAct() ? "button" : "span", { className: "star", textContent: row.starred ? "★" : canAct() ? "☆" : "", tabIndex: -1, title: row.starred ? "starred" : "" });
    if (canAct()) stars.setAttribute("aria-label", row.starred ? `Take the star from ${nameOf(row)}` : `Star ${nameOf(row)}`);
    const about = [homeOf(row), row.variant && row.variant !== row.run ? row.variant : "", row.sweep ? `sweep ${row.sweep.split("/").at(-1)}` : ""].filter(Boolean);
    const small = make("small", {}, about.join(" · "), ...row.tags.map((tag) => make("span", { className: "tag", textContent: tag })));
    const called = shortNameOf(row);
    const name = cell(called.length > LONG ? "name long" : "name", make("a", { href: `#run=${encodeURIComponent(row.id)}`, tabIndex: -1, title: [called, row.description].filter(Boolean).join("\n") }, ...(called.length > LONG ? called.split(/(?<=[-=_,])/).flatMap((part) => [part, make("wbr")]) : [called])), small);
    const state = make("span", { className: `state ${row.status}` }, make("span", { className: "mark", textContent: markOf(row.status) }), ` ${row.status}`);
    state.firstChild.setAttribute("aria-hidden", "true");
    const how = cell("how", state);
    if (row.status === "running") {
      const bar = make("progress", { max: 1, value: row.progress ?? 0 });
      bar.setAttribute("aria-label", "progress");
      how.append(bar);
    }
    how.append(make("small", { textContent: progressOf(row) }));
    return [box, cell("starred", stars), name, how, cell("number", lossOf(row.val_loss)), cell("number accuracy", percent(row.val_accuracy)), cell("when", ago(row.started))];
  }

  // Put the rows in view on the page; those that are as they were stay the same elements.
  function draw() {
    const first = Math.max(0, Math.floor(grid.scrollTop / ROW) - SPARE);
    const last = Math.min(total, Math.ceil((grid.scrollTop + grid.clientHeight) / ROW) + SPARE);
    for (const [place, { element }] of built) {
      if (place < first || place >= last) { element.remove(); built.delete(place); }
    }
    for (let place = first; place < last; place++) {
      const row = rowAt(place);
      need(Math.floor(place / PAGE));
      const key = row ? JSON.stringify([row, isTicked(row.id), colourOf(row.id), row.id === chosen, place === current, ago(row.started), canAct()]) : "";
      let one = built.get(place);
      if (!one) {
        one = { element: make("div", { id: `row-${place}` }), key: null };
        one.element.setAttribute("role", "row");
        one.element.setAttribute("aria-rowindex", place + 1);
        one.element.style.transform = `translateY(${place * ROW}px)`;
        built.set(place, one);
        body.append(one.element);
      }
      if (one.key === key) continue;
      one.key = key;
      one.element.className = `row${row?.id === chosen ? " chosen" : ""}${place === current ? " current" : ""}${row?.hidden ? " put-away" : ""}`;
      one.element.setAttribute("aria-selected", String(Boolean(row && isTicked(row.id))));
      one.element.replaceChildren(...(row ? cells(row, place) : [make("div", { className: "waiting", textContent: "…" })]));
    }
  }

  // Fetch a page of rows unless it is there or on its way.
  async function need(page) {
    if (pages.has(page) || asked.has(page)) return;
    await load(page);
  }

  async function load(page) {
    const mine = turn;
    asked.add(page);
    try {
      const found = await fetchRows(page * PAGE, PAGE);
      if (mine !== turn) return;
      pages.set(page, found.rows);
      total = found.total;
      for (const known of pages.keys()) if (known * PAGE >= total && known > 0) pages.delete(known);
      grid.setAttribute("aria-rowcount", total);
      body.style.height = `${total * ROW}px`;
      if (page === 0) loaded(found);
      if (fresh) { fresh = false; grid.scrollTop = 0; }
    } finally {
      if (mine === turn) asked.delete(page);
    }
    draw();
  }

  const inView = () => {
    const first = Math.floor(grid.scrollTop / ROW / PAGE), last = Math.floor((grid.scrollTop + grid.clientHeight) / ROW / PAGE);
    return [...new Set([0, first, last])].filter((page) => page * PAGE < Math.max(total, 1));
  };

  // Make a row the current one, and bring it into view.
  function go(place) {
    if (!total) return;
    current = Math.max(0, Math.min(total - 1, place));
    const top = current * ROW;
    if (top < grid.scrollTop) grid.scrollTop = top;
    if (top + ROW > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + ROW - grid.clientHeight;
    draw();
    grid.setAttribute("aria-activedescendant", `row-${current}`);
    mark(rowAt(current)?.id ?? "");
  }

  const placeOf = (event) => Number(event.target.closest(".row")?.id.slice(4) ?? -1);

  grid.onscroll = draw;
  grid.onclick = (event) => {
    const place = placeOf(event), row = rowAt(place);
    if (!row) return;
    current = place;
    if (event.target.closest(".tick")) toggle(row.id);
    else if (event.target.closest("button.star")) star(row);
    else if (!(event.ctrlKey || event.metaKey)) { event.preventDefault(); open(row); }
    draw();
  };
  grid.onmouseover = (event) => mark(rowAt(placeOf(event))?.id ?? "");
  grid.onmouseleave = () => mark("");
  grid.onfocus = () => { if (current < 0) go(0); };
  grid.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const seen = Math.max(1, Math.floor(grid.clientHeight / ROW) - 1);
    const move = { ArrowDown: current + 1, ArrowUp: current - 1, PageDown: current + seen, PageUp: current - seen, Home: 0, End: total - 1 }[event.key];
    const row = rowAt(current);
    if (move !== undefined) go(move);
    else if (event.key === " " && row) toggle(row.id);
    else if (event.key === "Enter" && row) open(row);
    else if (event.key === "s" && row && canAct()) star(row);
    else return;
    event.preventDefault();
  };
  new ResizeObserver(draw).observe(grid);

  return {
    draw,
    // Start again with another filter.
    async reset() {
      turn++;
      pages = new Map();
      asked = new Set();
      current = -1;
      fresh = true;
      await load(0);
    },
    // Fetch again what is in view, without a flicker.
    async refresh() {
      const seen = inView();
      for (const page of [...pages.keys()]) if (!seen.includes(page)) pages.delete(page);
      await Promise.all(seen.filter((page) => !asked.has(page)).map(load));
    },
    rowOf: (id) => { for (const rows of pages.values()) { const found = rows.find((row) => row.id === id); if (found) return found; } return undefined; },
    choose(id) { chosen = id; draw(); },
    shown: () => [...built.keys()].map(rowAt).filter(Boolean).map(({ id }) => id),
  };
}
