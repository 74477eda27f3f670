// Questions in a <dialog>: a title, fields, one button that acts, and the server's refusal where there is one.
import { ApiError } from "/page/api.js";
import { make } from "/page/dom.js";

// Ask, and act. fields: elements; act() may refuse by an ApiError, which is shown, and the dialog stays. trouble: where it is shown. Returns what act gave; null if it was left.
export function ask(title, fields, { action, act, harm = false, wide = false, trouble = make("p", { className: "error", hidden: true }) }) {
  trouble.setAttribute("role", "alert");
  const leave = make("button", { type: "button", textContent: action ? "Cancel" : "Close", autofocus: !action });
  const go = make("button", { type: "submit", textContent: action, className: harm ? "harm" : "main" });
  const form = make("form", { method: "dialog" }, make("h2", { textContent: title }), ...fields, trouble, make("div", { className: "buttons" }, leave, ...(action ? [go] : [])));
  const dialog = make("dialog", { className: wide ? "question wide" : "question" }, form);
  dialog.setAttribute("aria-label", title);
  document.body.append(dialog);
  return new Promise((resolve) => {
    let found = null;
    leave.onclick = () => dialog.close();
    dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
    dialog.onclose = () => { dialog.remove(); resolve(found); };
    form.onsubmit = async (event) => {
      event.preventDefault();
      trouble.hidden = true;
      go.disabled = true;
      try {
        found = await act();
        dialog.close();
      } catch (error) {
        if (!(error instanceof ApiError)) throw error;
        trouble.textContent = error.message;
        trouble.hidden = false;
      } finally {
        go.disabled = false;
      }
    };
    dialog.showModal();
  });
}

// A field with its label and a hint.
export function field(label, input, hint = "") {
  const made = make("label", { className: "field" }, make("span", { textContent: label }), input);
  if (hint) made.append(make("small", { textContent: hint }));
  return made;
}

// A choice of texts, or of [value, text].
export function choice(values, chosen = "") {
  const made = make("select", {}, ...values.map((one) => (Array.isArray(one) ? make("option", { value: one[0], textContent: one[1] }) : make("option", { value: one, textContent: one }))));
  if (chosen) made.value = chosen;
  return made;
}
