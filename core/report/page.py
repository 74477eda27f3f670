"""Write a report as a web page: one file that opens from disk and loads nothing from the network."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from core.report.document import Cards, Cell, Code, Dialogue, Document, PageTable, Paragraph, Part
from core.report.plots import svg

# Light or dark as the reader's system is. No font, script or image from elsewhere.
STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #5c6670; --line: #d9dee3; --paper: #ffffff; --panel: #f5f7f8;
  --good: #00714f; --bad: #b3410a; --blue: #0072b2; --orange: #d55e00; --green: #009e73; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #9aa4ae; --line: #363d44; --paper: #15181b;
  --panel: #1e2226; --good: #4cc79c; --bad: #f08a52; --blue: #56b4e9; --orange: #e69f00; --green: #4cc79c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 860px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.75rem 0 .75rem; }
p { margin: .5rem 0; }
a { color: var(--blue); text-underline-offset: .15em; }
.soft { color: var(--soft); }
.lead { font-size: 1.05rem; margin-top: .75rem; white-space: pre-wrap; }
.good { color: var(--good); }
.bad { color: var(--bad); }
.notice { border-left: 3px solid var(--bad); padding: .4rem .9rem; background: var(--panel); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.6rem, 1fr)); gap: .6rem; margin-top: 1.5rem; }
.card { background: var(--panel); border-radius: 8px; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.3; }
.card span { color: var(--soft); font-size: .82rem; display: block; line-height: 1.35; }
figure { margin: 0; display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 370px), 1fr)); gap: 1rem .5rem; }
figure svg { width: 100%; height: auto; display: block; }
svg text { font-family: inherit !important; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .38rem .8rem .38rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
td.mark { font-variant-numeric: tabular-nums; white-space: nowrap; width: 1%; padding-right: 1.2rem; }
td.bar { width: 60%; }
.bar i { display: block; height: .55rem; margin-top: .5rem; border-radius: 3px; background: var(--blue); }
code, pre, td.text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .86rem; }
td.lines { white-space: pre-line; overflow-wrap: anywhere; }
td.own { font-weight: 600; }
td.own small { font-weight: 400; }
td.text { white-space: pre-wrap; overflow-wrap: anywhere; }
pre { background: var(--panel); border-radius: 8px; padding: .9rem 1.1rem; margin: .6rem 0; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; }
td.sample { min-width: 8.5rem; }
.cards + p, .scroll + p { margin-top: .8rem; }
.scroll + p:not(.soft) { margin-top: 1.7rem; }
td small { display: block; color: var(--soft); font-size: .8rem; line-height: 1.35; }
td.good small, td.bad small { color: inherit; }
.talk { display: grid; gap: .45rem; margin: .8rem 0 1.4rem; }
.turn { max-width: 88%; padding: .45rem .8rem; border-radius: 10px; background: var(--panel); justify-self: start;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.turn.user { justify-self: end; background: none; border: 1px solid var(--line); }
.turn b { display: block; font-size: .75rem; font-weight: 500; color: var(--soft); }
.turn small { display: block; color: var(--soft); font-size: .8rem; }
details summary { cursor: pointer; color: var(--soft); }
details table { margin-top: .75rem; }
@media print { details > *, details::details-content { display: block; content-visibility: visible; height: auto; }
  main { padding-top: 0; } .scroll { overflow: visible; } table { font-size: .8rem; } th, td { padding: .2rem .35rem; }
  h2 { break-after: avoid; } svg, tr, pre { break-inside: avoid; } figure:has(svg + svg) { grid-template-columns: 1fr 1fr; }
  details table, details th, details td { font-size: .65rem; padding: 0 .35rem; } }
"""


def page(document: Document) -> str:
    """The whole page."""
    sections = [
        (section.title, [shown for part in section.parts if (shown := show(part))]) for section in document.sections
    ]
    blocks = [f"<h1>{escape(document.title)}</h1>", *map(show, document.head)]
    blocks += [
        f"<section>\n<h2>{escape(title)}</h2>\n{line_break(parts)}\n</section>" for title, parts in sections if parts
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(document.title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{line_break(blocks)}\n</main>\n</body>\n</html>\n"
    )


def line_break(blocks: Iterable[str]) -> str:
    return "\n".join(block for block in blocks if block)


def show(part: Part) -> str:
    """One part as HTML; "" if it has no content."""
    if isinstance(part, Paragraph):
        kind = f' class="{part.kind}"' if part.kind else ""
        return f"<p{kind}>{escape(part.text)}</p>" if part.text else ""
    if isinstance(part, Cards):
        return cards(part)
    if isinstance(part, PageTable):
        return fold(part.folded, table(part)) if part.folded else table(part)
    if isinstance(part, Dialogue):
        return fold(part.folded, dialogue(part)) if part.folded else dialogue(part)
    if isinstance(part, Code):
        start = f'<span class="soft">{escape(part.start)}</span>' if part.start.strip() else ""
        return f"<pre>{start}{escape(part.text)}</pre>"
    drawings = line_break(svg(draw(), label) for label, draw in part.drawings.items())
    return f"<figure>\n{drawings}\n</figure>" if drawings else ""


def dialogue(part: Dialogue) -> str:
    """A conversation: the user's turns on the right, all others on the left."""
    turns = line_break(
        f'<div class="turn{" user" * (turn.role == "user")}"><b>{escape(turn.role)}</b>{escape(turn.text)}'
        + (f"<small>{escape(turn.note)}</small>" if turn.note else "")
        + "</div>"
        for turn in part.turns
    )
    return f'<div class="talk">\n{turns}\n</div>' if turns else ""


def cards(part: Cards) -> str:
    """Figures side by side."""
    shown = line_break(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span>'
        + (f"<span>{escape(remark)}</span>" if remark else "")
        + "</div>"
        for value, name, remark in part.figures
    )
    return f'<div class="cards">\n{shown}\n</div>' if shown else ""


def table(part: PageTable) -> str:
    """A table that scrolls on its own if it is too wide."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in part.columns)
    top = f"<thead><tr>{titles}</tr></thead>\n" if titles else ""
    body = line_break(f"<tr>{''.join(map(cell, row))}</tr>" for row in part.rows)
    return f'<div class="scroll"><table>\n{top}<tbody>\n{body}\n</tbody></table></div>' if body else ""


def cell(shown: Cell) -> str:
    """A table's cell: text, a link, or a bar. A note stands below its text."""
    if shown.share is not None:
        return f'<td class="bar"><i style="width:{100 * min(1.0, max(0.0, shown.share)):.1f}%"></i></td>'
    text = escape(shown.text)
    text = f'<a href="{escape(quote(shown.link))}">{text}</a>' if shown.link else text
    text += f"<small>{escape(shown.note)}</small>" if shown.note else ""
    return f'<td class="{shown.kind}">{text}</td>' if shown.kind else f"<td>{text}</td>"


def fold(summary: str, content: str) -> str:
    """HTML that is shown on a click; "" if it has no content."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>" if content else ""
