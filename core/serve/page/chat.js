// The page: conversations on the left, the open one on the right. Text of a model or a user is only ever set as text.
import { ApiError, ask, keepToken, models, takeToken } from "./api.js";
import * as store from "./store.js";

const $ = (id) => document.getElementById(id);
let known = []; // models
let chat = store.newChat();
let writing = null; // the AbortController of the answer on its way

// Elements -------------------------------------------------------------------------------------------------------------

// An element with text and properties.
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function button(text, label, click) {
  const made = make("button", { type: "button", textContent: text, onclick: click });
  made.setAttribute("aria-label", label);
  made.title = label;
  return made;
}

function toast(text, action = "", act = null) {
  $("toast").replaceChildren(text);
  if (action) $("toast").append(make("button", { type: "button", textContent: action, onclick: () => { $("toast").hidden = true; act(); } }));
  $("toast").hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { $("toast").hidden = true; }, 8000);
}

// Conversations --------------------------------------------------------------------------------------------------------

const titleOf = (one) => one.title || one.messages[0]?.content.slice(0, 60) || "New conversation";

function showChats() {
  const items = store.chats().map((one) => {
    const open = make("button", { type: "button", className: "title", textContent: titleOf(one), title: titleOf(one), onclick: () => openChat(one.id) });
    const item = make("li", { className: one.id === chat.id ? "current" : "" }, open);
    if (one.id === chat.id) open.setAttribute("aria-current", "true");
    const rename = button("✎", "Rename", () => renameChat(one.id, item));
    const remove = button("✕", "Delete", () => deleteChat(one.id));
    rename.className = remove.className = "tool";
    item.append(rename, remove);
    return item;
  });
  $("chats").replaceChildren(...items);
}

function openChat(id) {
  stop();
  chat = store.load(id) ?? store.newChat();
  const model = known.find((one) => one.id === chat.model);
  if (model) $("model").value = model.id;
  closeSide();
  showAll();
  $("text").focus();
}

function renameChat(id, item) {
  const one = store.load(id);
  if (!one) return;
  const input = make("input", { value: titleOf(one) });
  input.setAttribute("aria-label", "Name of the conversation");
  const done = (keep) => {
    input.onblur = null;
    if (keep) {
      one.title = input.value.trim();
      store.save(one);
      if (id === chat.id) chat.title = one.title;
    }
    showChats();
  };
  input.onblur = () => done(true);
  input.onkeydown = (event) => {
    if (event.key === "Enter") done(true);
    if (event.key === "Escape") { event.stopPropagation(); done(false); }
  };
  item.replaceChildren(input);
  input.select();
}

function deleteChat(id) {
  const one = store.load(id);
  store.remove(id);
  if (id === chat.id) openChat("");
  showChats();
  if (one) toast("Deleted.", "Undo", () => { store.save(one); showChats(); });
}

// Before anything is changed: what another tab has added to this conversation must not be lost.
function refresh() {
  const stored = store.load(chat.id);
  if (stored && stored.updated > chat.updated) chat = stored;
}

function keep() {
  chat.model = $("model").value;
  store.save(chat);
  if (!store.kept()) $("status").textContent = "This browser keeps nothing: conversations end with this page.";
  showChats();
}

// The open conversation ------------------------------------------------------------------------------------------------

const chosen = () => known.find((one) => one.id === $("model").value);
const canChat = () => chosen()?.meta.chat ?? true;

function showAll() {
  $("system").value = chat.system;
  $("system-label").hidden = !canChat();
  $("text").placeholder = canChat() ? "Say something" : "A text to continue";
  $("status").textContent = "";
  $("log").replaceChildren(...(chat.messages.length ? chat.messages.map(turnOf) : [greeting()]));
  $("log").scrollTop = $("log").scrollHeight;
  showChats();
}

function greeting() {
  const name = chosen()?.id ?? "";
  const what = canChat() ? "Say something, and it answers." : "It was not trained on conversations. Give it the beginning of a text, and it goes on.";
  return make("div", { className: "empty" }, make("img", { src: "/page/icon.svg", alt: "" }), make("h1", { textContent: name }), make("p", { textContent: what }));
}

function turnOf(message, number) {
  const said = make("div", { className: "said", textContent: message.content });
  const turn = make("article", { className: `turn ${message.role}` }, said);
  turn.setAttribute("aria-label", message.role === "user" ? "You" : "Assistant");
  const tools = make("div", { className: "tools" });
  if (message.role === "user") {
    tools.append(button("Edit", "Edit this message; what follows is replaced", () => edit(turn, number)));
  } else {
    const note = noteOf(message);
    if (note) turn.append(make("div", { className: message.error ? "note error" : "note", textContent: note }));
    if (message.content) tools.append(button("Copy", "Copy this answer", () => navigator.clipboard?.writeText(message.content).then(() => toast("Copied."))));
    if (number === chat.messages.length - 1) tools.append(button(message.error ? "Try again" : "Regenerate", "Answer once more", regenerate));
  }
  turn.append(tools);
  return turn;
}

function noteOf(message) {
  if (message.error) return message.error;
  if (message.stopped) return "(stopped)";
  if (message.cut) return "(the answer was cut at its longest length)";
  return message.content ? "" : "(no answer)";
}

function edit(turn, number) {
  const message = chat.messages[number];
  const input = make("textarea", { value: message.content, rows: Math.min(8, message.content.split("\n").length + 1) });
  input.setAttribute("aria-label", "Your message");
  const send = () => {
    const text = input.value.trim();
    if (!text) return;
    stop();
    chat.messages = chat.messages.slice(0, number);
    say(text);
  };
  const cancel = () => turn.replaceWith(turnOf(message, number));
  input.onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
    if (event.key === "Escape") { event.stopPropagation(); cancel(); }
  };
  turn.replaceChildren(input, make("div", { className: "tools" }, button("Send", "Send the changed message", send), button("Cancel", "Leave it as it was", cancel)));
  input.focus();
}

function regenerate() {
  if (writing) return;
  refresh();
  while (chat.messages.at(-1)?.role === "assistant") chat.messages.pop();
  if (chat.messages.length) answer();
}

// Answers --------------------------------------------------------------------------------------------------------------

function say(text) {
  chat.messages.push({ role: "user", content: text });
  answer();
}

// The request for the next answer: its address and body.
function wanted() {
  const body = { model: $("model").value, temperature: Number($("temperature").value), top_k: Number($("top-k").value) || 0 };
  if (!canChat()) return ["/v1/completions", { ...body, prompt: chat.messages.at(-1).content }];
  // A turn without an answer has no place in a conversation of turns.
  const turns = [];
  for (const { role, content } of chat.messages) {
    if (role === "user" && turns.at(-1)?.role === "user") turns.pop();
    if (content) turns.push({ role, content });
  }
  const system = chat.system.trim() ? [{ role: "system", content: chat.system.trim() }] : [];
  return ["/v1/chat/completions", { ...body, messages: [...system, ...turns] }];
}

async function answer() {
  const mine = chat; // another conversation may be opened meanwhile
  const [path, body] = wanted();
  const message = { role: "assistant", content: "" };
  const controller = new AbortController();
  writing = controller;
  keep();
  showAll();
  const said = make("div", { className: "said" });
  const live = make("article", { className: "turn assistant writing" }, said, make("div", { className: "tools" }));
  live.setAttribute("aria-live", "polite");
  $("log").append(live);
  $("log").scrollTop = $("log").scrollHeight;
  showBusy(true);
  let result = null;
  try {
    result = await ask(path, body, controller.signal, (piece) => {
      message.content += piece;
      const atEnd = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 60;
      said.append(piece);
      if (atEnd) $("log").scrollTop = $("log").scrollHeight;
    });
    message.cut = result.reason === "length";
  } catch (error) {
    if (error.name === "AbortError") message.stopped = true;
    else if (error instanceof ApiError) message.error = error.message;
    else throw error;
    if (error.status === 401) await askForToken();
  } finally {
    if (writing === controller) { writing = null; showBusy(false); }
    mine.messages.push(message);
    if (store.load(mine.id)) store.save(mine); // it may have been deleted meanwhile
  }
  if (mine !== chat) return;
  live.replaceWith(turnOf(message, chat.messages.length - 1));
  $("status").textContent = result ? statusOf(result) : "";
  showChats();
}

function statusOf({ timings }) {
  const parts = [$("model").value];
  if (timings.predicted_n) parts.push(`${timings.predicted_n} tokens`);
  if (timings.predicted_per_second) parts.push(`${Math.round(timings.predicted_per_second)} tokens/s`);
  if (timings.left_out) parts.push(`the oldest ${timings.left_out} turns no longer fit, and the model does not see them`);
  return parts.join(" · ");
}

function showBusy(busy) {
  $("send").hidden = busy;
  $("stop").hidden = !busy;
}

function stop() {
  writing?.abort();
  writing = null;
  showBusy(false);
}

// Settings, models, keys -----------------------------------------------------------------------------------------------

function setTheme(theme) {
  const dark = theme === "dark" || (theme === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" }[theme];
  store.keepSetting("theme", theme);
}

function showSettings() {
  $("temperature-value").textContent = Number($("temperature").value).toFixed(2);
}

function grow() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight + 2}px`;
}

function closeSide() {
  $("side").classList.remove("open");
  $("veil").hidden = true;
  $("menu").setAttribute("aria-expanded", "false");
}

function exportChat() {
  const system = chat.system ? [{ role: "system", content: chat.system }] : [];
  const messages = [...system, ...chat.messages.map(({ role, content }) => ({ role, content }))];
  const file = new Blob([`${JSON.stringify({ messages })}\n`], { type: "application/jsonl" });
  const link = make("a", { href: URL.createObjectURL(file), download: "conversation.jsonl" });
  link.click();
  URL.revokeObjectURL(link.href);
}

async function askForToken() {
  $("ask-token").showModal();
  await new Promise((resolve) => $("ask-token").addEventListener("close", resolve, { once: true }));
  keepToken($("token").value);
  $("token").value = "";
}

async function loadModels() {
  for (;;) {
    try {
      known = await models();
      break;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.status === 401) { await askForToken(); continue; }
      toast(error.message, "Try again", loadModels);
      return;
    }
  }
  $("model").replaceChildren(...known.map(({ id }) => make("option", { value: id, textContent: id })));
  const last = known.find((one) => one.id === store.setting("model", "")) ?? known.find((one) => one.meta.chat);
  if (last) $("model").value = last.id;
  showAll();
}

function listen() {
  $("new").onclick = () => openChat("");
  $("export").onclick = exportChat;
  $("theme").onclick = () => setTheme({ auto: "light", light: "dark", dark: "auto" }[store.setting("theme", "auto")]);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(store.setting("theme", "auto")));
  $("menu").onclick = () => {
    $("side").classList.add("open");
    $("veil").hidden = false;
    $("menu").setAttribute("aria-expanded", "true");
    $("new").focus();
  };
  $("veil").onclick = closeSide;
  $("open-settings").onclick = () => {
    const below = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight; // what is read stays in view
    $("settings").hidden = !$("settings").hidden;
    $("log").scrollTop = $("log").scrollHeight - $("log").clientHeight - below;
    $("open-settings").setAttribute("aria-expanded", String(!$("settings").hidden));
  };
  $("settings").onsubmit = (event) => event.preventDefault();
  $("temperature").oninput = () => { showSettings(); store.keepSetting("temperature", Number($("temperature").value)); };
  $("top-k").onchange = () => {
    $("top-k").value = String(Math.max(0, Math.trunc(Number($("top-k").value) || 0)));
    store.keepSetting("top-k", Number($("top-k").value));
  };
  $("system").onchange = () => { chat.system = $("system").value; if (chat.messages.length) keep(); };
  $("model").onchange = () => { store.keepSetting("model", $("model").value); showAll(); };
  $("stop").onclick = stop;
  $("composer").onsubmit = (event) => {
    event.preventDefault();
    const text = $("text").value.trim();
    if (!text || writing || !known.length) return;
    refresh();
    $("text").value = "";
    grow();
    say(text);
  };
  $("text").oninput = grow;
  $("text").onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("composer").requestSubmit(); }
  };
  addEventListener("keydown", (event) => { if (event.key === "Escape") { stop(); closeSide(); } });
  store.onChange(() => {
    if (!writing) refresh();
    showChats();
  });
}

takeToken();
setTheme(store.setting("theme", "auto"));
$("temperature").value = String(store.setting("temperature", 0.7));
$("top-k").value = String(store.setting("top-k", 0));
showSettings();
listen();
showAll();
await loadModels();
