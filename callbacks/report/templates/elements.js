// Elements and words. Everything that comes from data goes through `h` as text: markup in it is shown, never run.

const h = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  const kept = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== "");
  element.append(...kept);
  return element;
};

// Three significant digits, whole numbers and thousands in full, with a minus sign that aligns.
const shownScore = (value) => {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "–" : String(value);
  const size = Math.abs(value);
  const digits = Number.isInteger(value) && size < 1e6 ? String(value) : size >= 1e3 && size < 1e6 ? value.toFixed(0) : value.toPrecision(3);
  return digits.replace("-", "−").replace(/e\+/, "e");
};

const shownPercent = (value) => (Number.isFinite(value) ? `${(100 * value).toFixed(1)}\u00a0%` : "–");

// A value with its standard error, both with as many decimals as two digits of the error take.
const shownWithError = (value, error) => {
  if (!Number.isFinite(value) || !Number.isFinite(error)) return shownScore(value);
  if (error <= 0) return `${shownScore(value)} ± 0`;
  const decimals = Math.max(0, 1 - Math.floor(Math.log10(error)));
  return decimals > 8 || Math.abs(value) >= 1e9 ? `${shownScore(value)} ± ${shownScore(error)}` : `${value.toFixed(decimals).replace("-", "−")} ± ${error.toFixed(decimals)}`;
};

const counted = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

// A link to what an address says; `home` is another file that has it.
const link = (state, text, attributes = {}, home = "") => h("a", { href: home + addressOf(state), ...attributes }, text);

const addressOf = (state) => `#${new URLSearchParams(Object.entries(state).filter(([, value]) => value !== undefined && value !== null && value !== ""))}`;

const chooser = (label, options, chosen, change) => {
  const select = h("select", { onchange: (event) => change(event.target.value) },
    options.map(([value, name]) => h("option", { value, selected: value === chosen }, name)));
  return h("label", {}, label, select);
};

const badge = (text, kind = "") => h("span", { class: `badge ${kind}` }, text);

const empty = (text) => text || h("span", { class: "muted" }, "(empty)");

// A file made in the page and saved by the browser.
const save = (name, type, content) => {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const anchor = h("a", { href: address, download: name });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
};

const fileName = (title, suffix) => `${title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "_").replace(/^_+|_+$/g, "").slice(0, 60) || "table"}.${suffix}`;

// A spreadsheet runs a cell that begins like a formula: an apostrophe before it keeps it a text.
const csvCell = (value) => {
  const text = typeof value === "number" ? (Number.isFinite(value) ? String(value) : "") : String(value ?? "");
  const guarded = typeof value !== "number" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(guarded) ? `"${guarded.replaceAll('"', '""')}"` : guarded;
};

const csvText = (lines) => `${lines.map((line) => line.map(csvCell).join(",")).join("\n")}\n`;

const saveButton = (kind, what, make) => h("button", { type: "button", class: "save", "aria-label": `${what} as ${kind}`, onclick: make }, kind);

// What a view says where an address names nothing of the page.
const missingHere = (sentence) => h("div", {}, h("h2", { tabindex: "-1" }, "Not on this page"), h("p", {}, sentence));
