// The address says what is shown: `#test=17&method=ig&lens=neuron`, one thing by a name of `VIEWS`, or the name of a view.

const views = [...document.querySelectorAll("[data-view]")];
const show = (name) => {
  for (const view of views) view.hidden = view.dataset.view !== name;
  document.body.dataset.shown = name;
  for (const anchor of document.querySelectorAll("nav a")) {
    if (anchor.getAttribute("href") === `#${name}`) anchor.setAttribute("aria-current", "page"); else anchor.removeAttribute("aria-current");
  }
};

const reader = (data) => {
  const ready = {};
  let before = {};
  return (moved) => {
    const hash = address();
    const state = Object.fromEntries(new URLSearchParams(hash));
    const kind = Object.keys(VIEWS).find((name) => name in state);
    const stepped = kind && before[kind] === state[kind] && before.token !== state.token; // the place on the page stays
    before = state;
    if (kind) {
      const one = document.getElementById("one");
      one.replaceChildren(VIEWS[kind](data, state, go));
      show("one");
      document.title = `${one.querySelector("h2").textContent} · ${TITLE}`;
      if (moved) {
        one.querySelector("h2").focus({ preventScroll: true });
        if (!stepped && (one.getBoundingClientRect().top < 0 || kind !== moved.kind)) one.scrollIntoView({ block: "start" });
      }
      return kind;
    }
    document.getElementById("one").replaceChildren();
    const anchor = hash && !hash.includes("=") ? document.getElementById(hash) : null;
    const view = anchor?.closest("[data-view]") ?? views[0];
    show(view.dataset.view);
    document.title = TITLE;
    const make = made[view.dataset.view];
    if (make && !ready[view.dataset.view]) {
      ready[view.dataset.view] = make(data);
      view.querySelector(".made").replaceChildren(ready[view.dataset.view].element);
    }
    ready[view.dataset.view]?.ready();
    if (anchor && anchor !== view) anchor.scrollIntoView();
    return null;
  };
};

const TITLE = document.title;
const THEMES = { automatic: "", light: "light", dark: "dark" };

const themes = () => {
  const button = document.getElementById("theme");
  const names = Object.keys(THEMES);
  let at = 0;
  button.hidden = false;
  button.addEventListener("click", () => {
    at = (at + 1) % names.length;
    document.documentElement.dataset.theme = THEMES[names[at]];
    button.textContent = `Theme: ${names[at]}`;
    redrawFigures();
  });
};

const begin = async () => {
  themes();
  openLater();
  finishTables(document);
  show("overview");
  const data = await readPage();
  drawRunFigures(data);
  const read = reader(data);
  let kind = null;
  const follow = (moved) => {
    kind = read(moved);
    document.documentElement.dataset.address = location.hash; // what is shown, for programs that wait for it
  };
  follow(null);
  addEventListener("hashchange", () => follow({ kind }));
  if (inCell) beginCell();
  document.documentElement.dataset.ready = "true";
};

begin();
