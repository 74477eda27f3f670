// The question for the server's token: a dialog #ask-token with a field #token.
import { keepToken } from "./api.js";
import { $ } from "./dom.js";

// Ask for the token of the server. Returns whether one was given.
export async function askForToken() {
  if (!$("ask-token").open) $("ask-token").showModal();
  await new Promise((resolve) => $("ask-token").addEventListener("close", resolve, { once: true }));
  const given = $("token").value.trim();
  $("token").value = "";
  if (given) keepToken(given);
  return given !== "";
}
