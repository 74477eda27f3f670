// The server: requests with their token and refusals, the models, and answers in pieces.

const TOKEN = "terrarium.token";
const LOST = "The connection was lost before the answer was complete.";
let token = "";

// A refusal or a failure, in the server's words. status: of HTTP; 0 where there was no answer.
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// Take the token from the address (#token=...), which then forgets it.
export function takeToken() {
  const found = /[#&]token=([^&]+)/.exec(location.hash);
  if (!found) return;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    keepToken(decodeURIComponent(found[1]));
  } catch { /* not a token that a server has made: the page asks for one */ }
}

// Use a token from now on, in this tab.
export function keepToken(text) {
  token = text;
  try {
    sessionStorage.setItem(TOKEN, text);
  } catch { /* it then lasts as long as the page */ }
}

// Whether a token is there.
export function hasToken() {
  try {
    token = token || sessionStorage.getItem(TOKEN) || "";
  } catch { /* as above */ }
  return token !== "";
}

// The headers of every request.
function headers() {
  hasToken();
  // A header takes Latin-1 only; other characters cannot be in a token anyway.
  const sent = token.replace(/[^\x21-\x7e]+/g, (text) => (text === " " ? text : ""));
  return { "Content-Type": "application/json", ...(sent ? { Authorization: `Bearer ${sent}` } : {}) };
}

// Fetch an address; whatever is not a success becomes an ApiError.
export async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers() });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it still running?", 0);
  }
  if (answer.ok) return answer;
  const found = await answer.json().catch(() => null);
  throw new ApiError(found?.error?.message ?? `The server says ${answer.status}.`, answer.status);
}

// The server's models.
export async function models() {
  return (await (await request("/v1/models")).json()).data;
}

// One model with all that is known of it. The server opens it first, which takes seconds.
export async function model(name) {
  return (await request(`/v1/models/${name.split("/").map(encodeURIComponent).join("/")}`)).json();
}

// The lines of a stream as they become complete. Characters and lines may arrive in halves.
export async function* linesOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    let read;
    try {
      read = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(LOST, 0);
    }
    if (read.done) break;
    const lines = (held + read.value).split(/\r?\n/);
    held = lines.pop();
    yield* lines;
  }
  if (held) yield held;
}

// The JSON of an event.
function eventOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError("The server has sent something that is not JSON.", 0);
  }
}

// Ask for an answer. onText(piece) is called as it comes, onCall({call, result, at}) with each call of a tool.
// Returns {reason, timings}; an abort of the signal raises AbortError.
export async function ask(path, body, signal, onText, onCall) {
  const asked = JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } });
  const answer = await request(path, { method: "POST", body: asked, signal });
  const found = { reason: "", timings: {} };
  for await (const line of linesOf(answer.body)) {
    const text = line.startsWith("data:") ? line.slice(5).trim() : "";
    if (text === "[DONE]") break;
    if (!text) continue;
    const event = eventOf(text);
    if (event.error) throw new ApiError(event.error.message ?? "The server could not answer.", 500);
    const choice = event.choices?.[0];
    const piece = choice?.delta?.content ?? choice?.text ?? "";
    if (piece) onText(piece);
    (choice?.delta?.calls ?? []).forEach(onCall);
    found.reason = choice?.finish_reason ?? found.reason;
    found.timings = event.timings ?? found.timings;
  }
  if (!found.reason) throw new ApiError(LOST, 0);
  return found;
}
