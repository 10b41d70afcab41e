// Tokens: words as chips with their numbers, and the tokens of a completion to step through.

const shownToken = (text) => (text.trim() ? text : JSON.stringify(text));

const wordChips = (words) => h("span", { class: "chips" }, words.map((word) => h("bdi", { class: "token" }, shownToken(word))));

const titled = ([text, number]) => (number >= 0 ? `token ${number}` : text);

const tokenChips = (tokens) => h("span", { class: "chips" }, tokens.map((token) => h("bdi", { class: "token", title: titled(token) }, shownToken(token[0]))));

// A word with its number beside it.
const namedToken = ([text, number]) => [h("b", {}, h("bdi", {}, shownToken(text))), number >= 0 ? h("span", { class: "muted" }, ` (token ${number})`) : ""];

// The token that the address names, counted from 1 there; null: none, or not one of so many.
const tokenOf = (state, count) => {
  const number = Number(state.token ?? NaN);
  return Number.isInteger(number) && number >= 1 && number <= count ? number - 1 : null;
};

// Links to each token of a completion; `whole` adds one to all together. The arrow keys follow data-before, data-after.
const completionStrip = (completion, chosen, steps, state, whole) => {
  const to = (token) => ({ ...state, token: token === null ? undefined : token + 1 });
  const each = completion.map((token, i) => (i < steps
    ? link(to(i), shownToken(token[0]), { class: "token", title: titled(token), "aria-current": i === chosen ? "step" : null })
    : h("bdi", { class: "token muted", title: titled(token) }, shownToken(token[0]))));
  return h("div", { class: "completion", role: "group", "aria-label": "Tokens of the completion" },
    whole ? link(to(null), "whole completion", { "aria-current": chosen === null ? "step" : null }) : "", h("span", { class: "chips" }, each));
};

// Addresses of the tokens before and after, for the arrow keys.
const stepsBeside = (chosen, steps, state, whole) => {
  const at = (token) => (token >= 0 && token < steps ? addressOf({ ...state, token: token + 1 }) : null);
  if (steps < 2) return {};
  if (chosen === null) return { "data-after": at(0) };
  return { "data-before": at(chosen - 1) ?? (whole ? addressOf({ ...state, token: undefined }) : null), "data-after": at(chosen + 1) };
};

addEventListener("keydown", (event) => {
  const side = { ArrowLeft: "before", ArrowRight: "after" }[event.key];
  if (!side || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest?.("input, select, textarea, .scroll, .canvas")) return;
  const shown = [...document.querySelectorAll("article[data-before], article[data-after]")].find((one) => one.checkVisibility());
  if (!shown?.dataset[side]) return;
  event.preventDefault();
  location.hash = shown.dataset[side];
});
