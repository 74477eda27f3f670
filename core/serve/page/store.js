// What the browser keeps: each conversation under a key of its own, so that tabs do not overwrite each other's, and settings.
// Where nothing can be kept (private windows, a full disk), it lives in this page only, and `kept()` says so.

const CHAT = "terrarium.chat.";
const memory = new Map();
let whole = true;

// Whether everything could be kept so far.
export const kept = () => whole;

function put(key, text) {
  memory.set(key, text);
  try {
    localStorage.setItem(key, text);
  } catch {
    whole = false;
  }
}

function get(key) {
  try {
    return localStorage.getItem(key) ?? (whole ? null : memory.get(key) ?? null);
  } catch {
    whole = false;
    return memory.get(key) ?? null;
  }
}

function keys() {
  const found = new Set(whole ? [] : memory.keys());
  try {
    for (let at = 0; at < localStorage.length; at++) found.add(localStorage.key(at));
  } catch {
    whole = false;
  }
  return [...found];
}

// A conversation as it must be; null for what another program, or an accident, has left under its key.
function chatFrom(text) {
  try {
    const chat = JSON.parse(text);
    const right = typeof chat.id === "string" && Array.isArray(chat.messages)
      && chat.messages.every((m) => (m.role === "user" || m.role === "assistant") && typeof m.content === "string");
    return right ? { title: "", system: "", updated: 0, ...chat } : null;
  } catch {
    return null;
  }
}

export function newChat() {
  return { id: `${Date.now().toString(36)}${Math.random().toString(36).slice(2, 8)}`, title: "", model: "", system: "", messages: [], updated: Date.now() };
}

// All conversations, the newest first.
export function chats() {
  return keys().filter((key) => key.startsWith(CHAT)).map((key) => chatFrom(get(key))).filter(Boolean)
    .sort((one, two) => two.updated - one.updated);
}

export const load = (id) => chatFrom(get(CHAT + id));

export function save(chat) {
  chat.updated = Date.now();
  put(CHAT + chat.id, JSON.stringify(chat));
}

export function remove(id) {
  memory.delete(CHAT + id);
  try {
    localStorage.removeItem(CHAT + id);
  } catch {
    whole = false;
  }
}

export function setting(name, otherwise) {
  try {
    return JSON.parse(get(`terrarium.${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export const keepSetting = (name, value) => put(`terrarium.${name}`, JSON.stringify(value));

// Call back when another tab has changed something.
export const onChange = (call) => addEventListener("storage", call);
