// Pieces that every page is made of. What others have written is only ever set as text, never as HTML.

// The element with this id.
export const $ = (id) => document.getElementById(id);

// An element with properties and children.
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// A button. label: what it does, for those who hear it, and for the mouse.
export function button(text, label, click) {
  const made = make("button", { type: "button", textContent: text, title: label, onclick: click });
  made.setAttribute("aria-label", label);
  return made;
}

const said = make("div", { id: "toast", hidden: true });
said.setAttribute("role", "alert");
document.body.append(said);

// Say something for eight seconds, with one thing that can be done about it. isBad: something has failed.
export function toast(text, action = "", act = null, isBad = false) {
  const close = () => { said.hidden = true; };
  said.replaceChildren(make("span", { textContent: text }));
  if (action) said.append(make("button", { type: "button", textContent: action, onclick: () => { close(); act(); } }));
  said.className = isBad ? "bad" : "";
  said.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(close, 8000);
}

// Put a text on the clipboard.
export function copy(text) {
  const failed = () => toast("The browser does not let this page copy. Select the text instead.");
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(() => toast("Copied."), failed);
  else failed(); // pages without encryption from another machine have none
}

// Offer a text as a file.
export function download(text, name, type) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000); // the browser reads it after the click
}
