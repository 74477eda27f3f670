// The page: conversations on the left, the open one on the right; what happens when something is clicked, typed or answered.
import { ApiError, ask, model, models, takeToken } from "./api.js";
import { $, button, copy, download, make, toast } from "./dom.js";
import * as store from "./store.js";
import { listenToTheme } from "./theme.js";
import { askForToken } from "./token.js";
import { callOf, editor, greeting, isAtEnd, isSending, shortened, statusOf, titleOf, toEnd, turnOf, turnsOf, writingTurn } from "./view.js";

const NUMBERS = { "top-k": 0, seed: 0, length: 1 }; // settings that are whole numbers, with the least they may be
let known = []; // models
let chat = store.newChat();
let writing = null; // the AbortController of the answer on its way

// Conversations --------------------------------------------------------------------------------------------------------

// Show the list of conversations, unless one is being renamed in it.
function showChats() {
  if ($("chats").querySelector("input")) return;
  $("chats").replaceChildren(...store.chats().map((one) => {
    const open = make("button", { type: "button", className: "title", textContent: titleOf(one), title: titleOf(one), onclick: () => openChat(one.id) });
    const item = make("li", { className: one.id === chat.id ? "current" : "" }, open);
    if (one.id === chat.id) open.setAttribute("aria-current", "true");
    const rename = button("✎", `Rename ${titleOf(one)}`, () => renameChat(one.id, item));
    const remove = button("✕", `Delete ${titleOf(one)}`, () => deleteChat(one.id));
    rename.className = remove.className = "tool";
    item.append(rename, remove);
    return item;
  }));
}

// Open a conversation; "" begins a new one. An answer on its way stops, and what is there of it stays.
function openChat(id) {
  closeSide();
  $("text").focus();
  if (id === chat.id) return;
  stop();
  chat = store.load(id) ?? store.newChat();
  if (known.some((one) => one.id === chat.model)) $("model").value = chat.model;
  $("status").textContent = "";
  showAll();
}

// Have a conversation's name typed in its place in the list.
function renameChat(id, item) {
  const one = store.load(id);
  if (!one) return;
  const input = make("input", { value: titleOf(one) });
  input.setAttribute("aria-label", "Name of the conversation");
  const done = (keep) => {
    input.onblur = null;
    if (keep) store.rename(id, input.value.trim());
    if (keep && id === chat.id) chat.title = input.value.trim();
    item.replaceChildren();
    showChats();
    $("chats").querySelector("[aria-current]")?.focus();
  };
  input.onblur = () => done(true);
  input.onkeydown = (event) => {
    if (event.key === "Enter") done(true);
    if (event.key === "Escape") { event.stopPropagation(); done(false); }
  };
  item.replaceChildren(input);
  input.select();
}

// Delete a conversation, which can be undone for a moment.
function deleteChat(id) {
  const one = store.load(id);
  store.remove(id);
  if (id === chat.id) openChat("");
  showChats();
  if (one) toast(`Deleted “${shortened(titleOf(one))}”.`, "Undo", () => { store.save(one); showChats(); });
}

// Keep the open conversation.
function keep() {
  chat.model = $("model").value;
  store.save(chat);
  showChats();
}

// Take over what another tab has changed, unless something is being written here: then both are kept when that is saved.
function takeOver() {
  const stored = store.load(chat.id);
  if (stored) chat.title = stored.title;
  if (stored && stored.updated > chat.updated && !writing && !$("log").querySelector("textarea")) {
    chat = stored;
    showAll();
  }
  showChats();
}

// The open conversation ------------------------------------------------------------------------------------------------

const chosen = () => known.find((one) => one.id === $("model").value);
const canChat = () => chosen()?.meta?.chat ?? true;

// Whether a model has yet to be opened by the server: only then is known what it can do.
const isClosed = (one) => one?.meta?.opened === false && !one.problem;

// Have a model opened, and show what it can do.
async function openModel(one) {
  $("status").textContent = `${one.id} is being opened`;
  try {
    Object.assign(one, await model(one.id));
    one.meta.opened = true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    one.problem = error.message;
  }
  if (one !== chosen()) return;
  $("status").textContent = one.problem ?? "";
  showAll();
}

// What somebody typed. A text to continue may depend on the space at its end.
const typed = (text) => (canChat() ? text.trim() : text);

// Show the open conversation, at its end.
function showAll() {
  showSettings();
  document.body.classList.toggle("continues", !canChat());
  $("system").value = chat.system;
  $("system-label").hidden = !canChat();
  $("length-label").hidden = canChat();
  $("text").placeholder = canChat() ? "Say something" : "A text to continue";
  $("send").textContent = canChat() ? "Send" : "Continue";
  $("log").replaceChildren(...(chat.messages.length ? chat.messages.map(shownTurn) : [greeting(chosen(), canChat())]));
  toEnd();
  showChats();
  if (isClosed(chosen())) openModel(chosen());
}

// The element of a message, with its buttons.
function shownTurn(message, number) {
  const tools = [];
  if (message.role === "user") tools.push(button("Edit", "Edit this message; what follows is replaced", () => edit(turn, number)));
  else {
    if (message.content) tools.push(button("Copy", "Copy this answer", () => copy(message.content)));
    if (number === chat.messages.length - 1) {
      const again = message.error || !message.content;
      tools.push(button(again ? "Try again" : "Regenerate", "Answer once more", regenerate));
      if (!canChat() && message.content) tools.push(button("Go on", "Continue after this text", () => answer(chat.messages.pop().content)));
    }
  }
  const turn = turnOf(message, tools);
  return turn;
}

// Have a message changed; what follows it is replaced by a new answer.
function edit(turn, number) {
  const message = chat.messages[number];
  const send = (text) => {
    stop();
    chat.messages = chat.messages.slice(0, number);
    say(typed(text));
  };
  const parts = editor(message.content, send, () => {
    turn.replaceWith(shownTurn(message, number));
    $("text").focus();
  });
  turn.replaceChildren(...parts);
  parts[0].focus();
}

// Answer the last message once more.
function regenerate() {
  if (writing) return;
  while (chat.messages.at(-1)?.role === "assistant") chat.messages.pop();
  if (chat.messages.length) answer();
}

// Answers --------------------------------------------------------------------------------------------------------------

// Add a message and have it answered.
function say(text) {
  chat.messages.push({ role: "user", content: text });
  answer();
}

// The turns of the open conversation. One of the user's without an answer has no place between others.
function validTurns() {
  const turns = [];
  for (const message of chat.messages) {
    if (message.role === "user" && turns.at(-1)?.role === "user") turns.pop();
    turns.push(...turnsOf(message));
  }
  return turns;
}

// The request for the next answer: its address and body. begun: what is there of it.
function wanted(begun) {
  const body = { model: $("model").value, temperature: Number($("temperature").value), top_k: Number($("top-k").value) || 0 };
  if ($("seed").value) body.seed = Number($("seed").value);
  if (!canChat()) {
    if ($("length").value) body.max_tokens = Number($("length").value);
    return ["/v1/completions", { ...body, prompt: chat.messages.at(-1).content + begun }];
  }
  const turns = validTurns();
  const system = chat.system.trim() ? [{ role: "system", content: chat.system.trim() }] : [];
  return ["/v1/chat/completions", { ...body, messages: [...system, ...turns], show_calls: true }];
}

// Have the model write the next answer, and show it as it comes. begun: what is there of it.
async function answer(begun = "") {
  const mine = chat; // another conversation may be opened meanwhile
  const [path, body] = wanted(begun);
  const message = { role: "assistant", content: begun };
  const controller = new AbortController();
  writing = controller;
  keep();
  showAll();
  mine.messages.push(message);
  const live = writingTurn();
  const said = live.firstChild;
  said.append(begun);
  $("log").append(live);
  toEnd();
  showBusy(true);
  const leave = () => { message.stopped = true; store.save(mine); }; // the page is closed: what is there stays
  addEventListener("pagehide", leave);
  let timings = {};
  let refused = false;
  try {
    const result = await ask(path, body, controller.signal, (piece) => {
      message.content += piece;
      const follow = isAtEnd();
      said.append(piece);
      if (follow) toEnd();
    }, (call) => {
      message.calls = [...(message.calls ?? []), call];
      said.append(callOf(call));
      toEnd();
    });
    message.cut = result.reason === "length";
    timings = result.timings;
  } catch (error) {
    // A page that is closed loses its connection; that is no mistake of the server's.
    if (error.name === "AbortError" || message.stopped) message.stopped = true;
    else if (error instanceof ApiError) message.error = error.message;
    else throw error;
    refused = error.status === 401;
  } finally {
    removeEventListener("pagehide", leave);
    if (writing === controller) { writing = null; showBusy(false); }
    if (store.load(mine.id)) store.save(mine); // it may have been deleted meanwhile
  }
  showChats();
  if (mine !== chat || !mine.messages.includes(message)) return;
  const follow = isAtEnd();
  live.replaceWith(shownTurn(message, mine.messages.length - 1));
  if (follow) toEnd();
  $("heard").textContent = message.error ?? (message.content || "(no answer)");
  $("status").textContent = statusOf(body.model, timings) + (store.kept() ? "" : " · The browser's storage is full or closed: this ends with the page.");
  if (refused && await askForToken()) regenerate();
}

// While an answer is written it can be stopped, and nothing be sent.
function showBusy(busy) {
  const focused = document.activeElement;
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  if (busy) $("status").textContent = `${$("model").value} is writing`;
  if (focused === $("stop") || focused === $("send")) (busy ? $("stop") : $("text")).focus();
}

// End the answer on its way. What is there of it stays.
function stop() {
  if (!writing) return;
  writing.abort();
  writing = null;
  showBusy(false);
}

// Models and the token -------------------------------------------------------------------------------------------------

// Fetch the models, and show the page with the one that was used last. Where there are none, say why.
async function loadModels() {
  try {
    known = await models();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401 && await askForToken()) return loadModels();
    const again = make("button", { type: "button", textContent: "Try again", onclick: loadModels });
    $("log").replaceChildren(make("div", { className: "empty" }, make("p", { className: "error", textContent: error.message }), again));
    return undefined;
  }
  $("model").replaceChildren(...known.map(({ id }) => make("option", { value: id, textContent: id })));
  const asked = new URLSearchParams(location.hash.slice(1)).get("model"); // a link of the live page names one
  const named = (name) => known.find((one) => one.id === name);
  const last = named(asked) ?? named(store.setting("model", "")) ?? known.find((one) => one.meta.chat);
  if (last) $("model").value = last.id;
  return showAll();
}

// Settings and keys ----------------------------------------------------------------------------------------------------

// Show the settings that are kept; where there are none, those of the model's run.
function showSettings() {
  const own = chosen()?.meta ?? {};
  $("temperature").value = String(store.setting("temperature", own.temperature ?? 0.7));
  $("temperature-value").textContent = Number($("temperature").value).toFixed(2);
  for (const name of Object.keys(NUMBERS)) $(name).value = store.setting(name, name === "top-k" ? String(own.top_k ?? 0) : "");
}

// Make the field as high as its text.
function grow() {
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight + 2}px`;
}

// Open the drawer that a phone has for conversations.
function openSide() {
  $("side").classList.add("open");
  $("veil").hidden = false;
  $("menu").setAttribute("aria-expanded", "true");
  $("new").focus();
}

// Close the drawer.
function closeSide() {
  if (!$("side").classList.contains("open")) return;
  $("side").classList.remove("open");
  $("veil").hidden = true;
  $("menu").setAttribute("aria-expanded", "false");
  $("menu").focus();
}

// Save the open conversation as a line of JSON, in the form of a dataset.
function exportChat() {
  const system = chat.system ? [{ role: "system", content: chat.system }] : [];
  const turns = validTurns();
  if (turns.at(-1)?.role === "user") turns.pop(); // nobody has answered it
  const messages = [...system, ...turns];
  download(`${JSON.stringify({ messages })}\n`, "conversation.jsonl", "application/jsonl");
}

// Show or hide the settings. What is read stays in view.
function toggleSettings() {
  const below = $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight;
  $("settings").hidden = !$("settings").hidden;
  $("log").scrollTop = $("log").scrollHeight - $("log").clientHeight - below;
  $("open-settings").setAttribute("aria-expanded", String(!$("settings").hidden));
}

// Send what was typed.
function submit(event) {
  event.preventDefault();
  const text = typed($("text").value);
  if (!text.trim() || writing || !known.length || isClosed(chosen())) return;
  $("text").value = "";
  grow();
  say(text);
}

// What the settings do.
function listenToSettings() {
  $("settings").onsubmit = (event) => event.preventDefault();
  $("temperature").oninput = () => { store.keepSetting("temperature", Number($("temperature").value)); showSettings(); };
  for (const [name, least] of Object.entries(NUMBERS)) {
    $(name).onchange = () => {
      const number = Math.trunc(Number($(name).value));
      const right = $(name).value !== "" && number >= least && number <= Number($(name).max || Number.MAX_SAFE_INTEGER);
      store.keepSetting(name, right ? String(number) : "");
      showSettings();
    };
  }
  $("system").onchange = () => { chat.system = $("system").value; if (chat.messages.length) keep(); };
  $("model").onchange = () => { stop(); store.keepSetting("model", $("model").value); showAll(); };
}

// What buttons and keys do.
function listen() {
  $("new").onclick = () => openChat("");
  $("export").onclick = exportChat;
  $("menu").onclick = openSide;
  $("veil").onclick = closeSide;
  $("open-settings").onclick = toggleSettings;
  $("stop").onclick = stop;
  $("composer").onsubmit = submit;
  $("text").oninput = grow;
  $("text").onkeydown = (event) => {
    if (isSending(event)) { event.preventDefault(); $("composer").requestSubmit(); }
  };
  addEventListener("keydown", (event) => { if (event.key === "Escape") { stop(); closeSide(); } });
  store.onChange(takeOver);
}

takeToken();
listenToTheme();
showSettings();
listen();
listenToSettings();
showAll();
await loadModels();
