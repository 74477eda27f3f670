// Light, dark, or as the system is: a button #theme, whose choice is kept.
import { $, make } from "./dom.js";
import { keepSetting, setting } from "./store.js";

const THEMES = { auto: ["◐", "Auto"], light: ["☀", "Light"], dark: ["☾", "Dark"] };

// The theme that is kept.
const theme = () => (setting("theme", "auto") in THEMES ? setting("theme", "auto") : "auto");

// Show a theme: auto is the system's.
function showTheme() {
  const dark = theme() === "dark" || (theme() === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const [mark, word] = THEMES[theme()];
  $("theme").replaceChildren(mark, make("span", { className: "word", textContent: ` ${word}` }));
  $("theme").title = "Light, dark, or as the system is";
}

// Show the theme that is kept, and whatever is chosen later.
export function listenToTheme() {
  showTheme();
  $("theme").onclick = () => {
    keepSetting("theme", { auto: "light", light: "dark", dark: "auto" }[theme()]);
    showTheme();
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
}
