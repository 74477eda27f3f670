// What is seen, made from values. Text of a model or a user is only ever set as text, never as HTML.
import { $, button, make } from "./dom.js";

// What a conversation is called.
export const titleOf = (chat) => chat.title || chat.messages[0]?.content.trim().slice(0, 60) || "New conversation";

// The beginning of a long text.
export const shortened = (text) => (text.length > 30 ? `${text.slice(0, 29).trimEnd()}…` : text);

// A count with its noun.
const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

// The line below the conversation: model, tokens, speed, and what the model no longer sees.
export function statusOf(model, timings) {
  const parts = [model];
  if (timings.predicted_n) parts.push(counted(timings.predicted_n, "token"));
  if (timings.predicted_per_second) parts.push(`${Math.round(timings.predicted_per_second).toLocaleString("en")} tokens/s`);
  const left = timings.left_out ?? 0;
  if (left === 1) parts.push("the oldest turn no longer fits");
  if (left > 1) parts.push(`the oldest ${left.toLocaleString("en")} turns no longer fit`);
  return parts.join(" · ");
}

// What is said about an answer besides its text.
export function noteOf(message) {
  if (message.error) return message.error;
  if (message.stopped) return message.content ? "(stopped)" : "(stopped before the answer began)";
  if (!message.content) return "(no answer)";
  return message.cut ? "(the answer has reached its longest length)" : "";
}

// A model in a few words.
export function sizeOf(model) {
  const { n_params: params, n_ctx_train: context } = model.meta;
  const size = `${new Intl.NumberFormat("en", { notation: "compact" }).format(params)} parameters`;
  return context ? `${size} · sees ${counted(context, "token")}` : size;
}

// What an empty conversation shows.
export function greeting(model, canChat) {
  const what = model?.meta.opened === false ? model.problem ?? "It is being opened." : canChat ? "Say something, and it answers." : "It was not trained on conversations. Give it the beginning of a text, and it goes on.";
  return make("div", { className: "empty" },
    make("img", { src: "/page/icon.svg", alt: "", width: 88, height: 88 }),
    make("h1", { textContent: model?.id ?? "Terrarium" }),
    make("p", { textContent: model ? what : "" }),
    make("p", { className: "size", textContent: model ? sizeOf(model) : "" }));
}

// The text of a message in parts, each with the call of a tool that ends it; the last has none. Places count whole characters.
function partsOf({ content, calls = [] }) {
  const letters = [...content];
  const ends = [0, ...calls.map(({ at }) => at), letters.length];
  return ends.slice(1).map((end, number) => ({ text: letters.slice(ends[number], end).join(""), call: calls[number] }));
}

// A message as turns of a conversation: a call ends a turn, and its result is one. A call without an answer behind it is left out.
export function turnsOf(message) {
  const { role } = message;
  const turns = partsOf(message).flatMap(({ text, call }) => {
    if (call) return [{ role, content: text, call: call.call }, { role: "tool", content: call.result }];
    return text ? [{ role, content: text }] : [];
  });
  while (turns.at(-1)?.role === "tool") {
    const [{ content }] = turns.splice(-2);
    if (content) turns.push({ role, content });
  }
  return turns;
}

// A call of a tool with its result, as a line between the text.
export const callOf = ({ call, result }) => make("div", { className: "call", textContent: `${call} = ${result}` });

// A message. tools: the buttons below it.
export function turnOf(message, tools) {
  const said = partsOf(message).flatMap(({ text, call }) => (call ? [text, callOf(call)] : [text]));
  const turn = make("article", { className: `turn ${message.role}` }, make("div", { className: "said" }, ...said.filter(Boolean)));
  turn.setAttribute("aria-label", message.role === "user" ? "You" : "Answer");
  const note = message.role === "assistant" ? noteOf(message) : "";
  if (note) turn.append(make("div", { className: message.error ? "note error" : "note", textContent: note }));
  turn.append(make("div", { className: "tools" }, ...tools));
  return turn;
}

// The place of an answer that is on its way; it is as high as one with tools, so that nothing jumps at its end.
export const writingTurn = () => make("article", { className: "turn assistant writing" }, make("div", { className: "said" }), make("div", { className: "tools" }));

// A message that is being changed. send(text) and cancel() are called when that is over.
export function editor(text, send, cancel) {
  const input = make("textarea", { value: text, rows: Math.min(8, text.split("\n").length + 1) });
  input.setAttribute("aria-label", "Your message");
  const sendIt = () => { if (input.value.trim()) send(input.value.trim()); };
  input.onkeydown = (event) => {
    if (isSending(event)) { event.preventDefault(); sendIt(); }
    if (event.key === "Escape") { event.stopPropagation(); cancel(); }
  };
  return [input, make("div", { className: "tools" }, button("Send", "Send the changed message", sendIt), button("Cancel", "Leave it as it was", cancel))];
}

// Whether a key sends: Enter, but not where it chooses a character of an input method.
export const isSending = (event) => event.key === "Enter" && !event.shiftKey && !event.isComposing;

// Whether the end of the conversation is seen.
export const isAtEnd = () => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 60;

// Show the end of the conversation.
export const toEnd = () => { $("log").scrollTop = $("log").scrollHeight; };
