// The question for the server's token: a dialog #ask-token with a field #token.
import { keepToken } from "./api.js";
import { make } from "./dom.js";

const field = make("input", { id: "token", type: "password", autocomplete: "off" });
const label = make("label", {}, "This server asks for a token. It was shown where the server was started.", field);
const dialog = make("dialog", { id: "ask-token" }, make("form", { method: "dialog" }, label, make("button", { type: "submit", textContent: "Use it" })));
dialog.setAttribute("aria-label", "Token");
document.body.append(dialog);

// Ask for the token of the server. Returns whether one was given.
export async function askForToken() {
  if (!dialog.open) dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  const given = field.value.trim();
  field.value = "";
  if (given) keepToken(given);
  return given !== "";
}
