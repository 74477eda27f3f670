// What the browser keeps: each conversation under a key of its own, so that tabs do not overwrite each other's, and settings.
// What cannot be kept (private windows, a full disk) lives in this page only, and `kept()` says so.

const CHAT = "terrarium.chat.";
const unkept = new Map(); // what the browser did not take; it is newer than what stands there

// Whether everything could be kept.
export const kept = () => unkept.size === 0;

// Keep a text.
function put(key, text) {
  try {
    localStorage.setItem(key, text);
    unkept.delete(key);
  } catch {
    unkept.set(key, text);
  }
}

// A text that was kept; null where there is none.
function get(key) {
  if (unkept.has(key)) return unkept.get(key);
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

// The keys of everything that was kept.
function keys() {
  const found = new Set(unkept.keys());
  try {
    for (let at = 0; at < localStorage.length; at++) found.add(localStorage.key(at));
  } catch { /* nothing is kept here */ }
  return [...found];
}

// A conversation as it must be; null for what another program, or an accident, has left under its key.
function chatFrom(text, id) {
  try {
    const { title, model, system, messages, updated } = JSON.parse(text);
    const isCall = (c) => typeof c?.call === "string" && typeof c.result === "string" && Number.isInteger(c.at);
    const right = Array.isArray(messages)
      && messages.every((m) => (m.role === "user" || m.role === "assistant") && typeof m.content === "string")
      && messages.every(({ calls = [] }) => Array.isArray(calls) && calls.every(isCall));
    const words = (value) => (typeof value === "string" ? value : "");
    return right ? { id, title: words(title), model: words(model), system: words(system), messages, updated: Number(updated) || 0 } : null;
  } catch {
    return null;
  }
}

// A name that no other conversation has.
const newId = () => `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`;

// A conversation in which nothing was said. updated: 0 until it is kept.
export const newChat = () => ({ id: newId(), title: "", model: "", system: "", messages: [], updated: 0 });

// All conversations, the newest first.
export function chats() {
  return keys().filter((key) => key.startsWith(CHAT)).map((key) => load(key.slice(CHAT.length))).filter(Boolean)
    .sort((one, two) => two.updated - one.updated);
}

// One conversation; null where there is none.
export const load = (id) => chatFrom(get(CHAT + id), id);

// Keep a conversation. If another tab has gone on with it meanwhile, this one becomes a conversation of its own, so both are kept.
export function save(chat) {
  const stored = load(chat.id);
  if (stored && stored.updated > chat.updated) chat.id = newId();
  chat.updated = Math.max(Date.now(), chat.updated + 1);
  put(CHAT + chat.id, JSON.stringify(chat));
}

// Give a conversation a name. Its other parts stay what they are, also where another tab has them.
export function rename(id, title) {
  const chat = load(id);
  if (chat) put(CHAT + id, JSON.stringify({ ...chat, title }));
}

// Forget a conversation.
export function remove(id) {
  unkept.delete(CHAT + id);
  try {
    localStorage.removeItem(CHAT + id);
  } catch { /* nothing is kept here */ }
  for (const [key, text] of [...unkept]) put(key, text); // now there may be room
}

// A setting, or another value where there is none of that kind.
export function setting(name, otherwise) {
  try {
    const found = JSON.parse(get(`terrarium.${name}`));
    return found !== null && typeof found === typeof otherwise ? found : otherwise;
  } catch {
    return otherwise;
  }
}

// Keep a setting.
export const keepSetting = (name, value) => put(`terrarium.${name}`, JSON.stringify(value));

// Call back when another tab has changed something.
export const onChange = (call) => addEventListener("storage", call);
