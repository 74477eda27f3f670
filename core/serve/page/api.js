// The server's API: its models, and answers in pieces.

// A refusal or a failure, in the server's words. status: of HTTP; 0 where there was no answer.
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// The token: from the address (#token=...), which then forgets it, or from this tab's memory.
export function takeToken() {
  const found = /[#&]token=([^&]+)/.exec(location.hash);
  if (!found) return;
  keepToken(decodeURIComponent(found[1]));
  history.replaceState(null, "", location.pathname + location.search);
}

let token = "";
export function keepToken(text) {
  token = text;
  try {
    sessionStorage.setItem("terrarium.token", text);
  } catch { /* it then lasts as long as the page */ }
}

function headers() {
  try {
    token = token || sessionStorage.getItem("terrarium.token") || "";
  } catch { /* as above */ }
  return { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) };
}

async function request(path, options) {
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

export async function models() {
  return (await (await request("/v1/models")).json()).data;
}

// Ask for an answer. onText(piece) is called as it comes. Returns {reason, timings}; an abort of the signal raises AbortError.
export async function ask(path, body, signal, onText) {
  const answer = await request(path, { method: "POST", body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const found = { reason: "", timings: {} };
  let held = "";
  for (;;) {
    let read;
    try {
      read = await reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The connection was lost before the answer was complete.", 0);
    }
    if (read.done) break;
    held += read.value;
    const lines = held.split("\n"); // the last one may be half a line
    held = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new ApiError(event.error.message, 500);
      const choice = event.choices[0];
      const piece = choice?.delta?.content ?? choice?.text ?? "";
      if (piece) onText(piece);
      found.reason = choice?.finish_reason ?? found.reason;
      found.timings = event.timings ?? found.timings;
    }
  }
  if (!found.reason) throw new ApiError("The connection was lost before the answer was complete.", 0);
  return found;
}
