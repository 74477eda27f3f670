// The live view's API: what the server knows of runs, what it is asked to do, and what has changed.
import { linesOf, request } from "/page/api.js";

const SILENCE = 45000; // ms; the server says that it is still there every 15 s

// An address with its values: lists are repeated, what is empty is left out.
function address(path, values = {}) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== "" && one !== null && one !== undefined && one !== false) asked.append(name, one === true ? "1" : one);
    }
  }
  const text = asked.toString();
  return `/live/${path}${text ? `?${text}` : ""}`;
}

// What stands at an address. An abort of the signal raises AbortError, a refusal ApiError.
export const get = async (path, values, signal) => (await request(address(path, values), { signal })).json();

// Have something done.
export const post = async (path, body) => (await request(`/live/${path}`, { method: "POST", body: JSON.stringify(body) })).json();

// What has changed, as it happens: {changed: [ids], jobs}. Ends when the server does, or is silent for long.
export async function* events(signal) {
  const silent = new AbortController();
  const stop = () => silent.abort();
  let timer = setTimeout(stop, SILENCE);
  signal.addEventListener("abort", stop);
  try {
    const answer = await request("/live/events", { signal: silent.signal });
    yield { changed: [] }; // it is there
    for await (const line of linesOf(answer.body)) {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE);
      if (line.startsWith("data:")) yield JSON.parse(line.slice(5));
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    stop();
  }
}
