// Pictures of a model on a canvas: the canvas itself, and attention as a heat map.

export const SIDE = 420; // of a picture, CSS pixels

// A canvas of a size in CSS pixels, cleared, with what the page's colours are now.
export function drawingOn(canvas, width, height) {
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  canvas.style.width = `${width}px`;
  canvas.style.aspectRatio = `${width} / ${height}`;
  const pen = canvas.getContext("2d");
  pen.scale(density, density);
  const style = getComputedStyle(canvas);
  // light-dark() in a custom property is resolved only where it is a colour.
  const colour = (name) => { canvas.style.outlineColor = `var(--${name})`; return style.outlineColor; };
  const colours = { ink: colour("ink"), soft: colour("soft"), line: colour("line"), leaf: colour("leaf"), raised: colour("raised") };
  canvas.style.outlineColor = "";
  return { pen, colours };
}

// A heat map of weights (T, T): the row's token looks at the column's. A dashed line ends the prompt.
export function drawAttention(canvas, { tokens, asked, weights }, layer, head) {
  const heads = weights[layer], count = tokens.length;
  const at = (row, column) => (head < 0 ? heads.reduce((sum, each) => sum + each[row][column], 0) / heads.length : heads[head][row][column]);
  const names = tokens.map((token) => (token.length > 8 ? `${token.slice(0, 7)}…` : token));
  const longest = Math.max(...names.map((name) => name.length)), room = 14 + 7.5 * longest;
  const cell = Math.max(4, Math.min(28, (SIDE - room) / count));
  const side = room + cell * count + 2;
  const { pen, colours } = drawingOn(canvas, side, side);
  pen.font = `${Math.min(12, Math.max(8, cell - 2))}px ui-monospace, Menlo, Consolas, monospace`;
  for (let row = 0; row < count; row++) for (let column = 0; column <= row; column++) {
    const x = room + column * cell, y = room + row * cell;
    pen.globalAlpha = 1;
    pen.fillStyle = colours.raised;
    pen.fillRect(x, y, cell, cell);
    pen.globalAlpha = Math.sqrt(at(row, column)); // so that a tenth can be seen
    pen.fillStyle = colours.leaf;
    pen.fillRect(x, y, cell - 0.5, cell - 0.5);
  }
  pen.globalAlpha = 1;
  pen.fillStyle = colours.ink;
  const every = Math.ceil(9 / cell); // names that would lie on each other are left out
  pen.textBaseline = "middle";
  for (let place = 0; place < count; place += every) {
    const middle = room + (place + 0.5) * cell;
    pen.textAlign = "right";
    pen.fillText(names[place], room - 5, middle);
    pen.save();
    pen.translate(middle, room - 5);
    if (longest > 1) pen.rotate(-Math.PI / 2);
    pen.textAlign = longest > 1 ? "left" : "center";
    pen.fillText(names[place], 0, longest > 1 ? 0 : -4);
    pen.restore();
  }
  if (asked > 0 && asked < count) {
    const edge = room + asked * cell;
    pen.setLineDash([3, 3]);
    pen.strokeStyle = colours.soft;
    pen.beginPath();
    pen.moveTo(room, edge); pen.lineTo(side, edge); pen.moveTo(edge, room); pen.lineTo(edge, side);
    pen.stroke();
  }
}
