// A table that holds only the rows in view. Columns: {name, cell(id), value(id), numeric, width in rem}.

const ROW = 34; // pixels, the height that explorer.css gives a row
const SPARE = 8; // rows above and below the view, so that a tab or a turn of the wheel finds the next one

const PRINTED = 1000; // rows of a table that are printed; its CSV file has all

const virtualTable = (title, columns, { rows = [], height = 14, sorted = null, falling = null, empty: none = "Nothing is listed." } = {}) => {
  const state = { rows, shown: rows, column: null, falling: true, live: new Map(), printing: false, top: 0, tall: height * ROW };
  const body = h("tbody");
  const table = h("table", { class: "virtual", "aria-label": title });
  const tall = h("div", { class: "tall" }, table);
  const view = h("div", { class: "scroll window", tabindex: "0", role: "region", "aria-label": title, "data-touched": "0", "--rows": String(height) }, tall);
  const note = h("p", { class: "muted", hidden: true }, none);

  const heads = columns.map((column, c) => h("th", { scope: "col", class: column.numeric ? "num" : "", "--width": `${column.width ?? 6}rem` },
    column.value ? h("button", { type: "button", class: "sort", onclick: () => sortBy(c) }, column.name, h("span", { class: "arrow", "aria-hidden": "true" })) : column.name));
  table.append(h("colgroup", {}, columns.map((column) => h("col", { "--width": `${column.width ?? 6}rem` }))), h("thead", {}, h("tr", { "aria-rowindex": "1" }, heads)), body);
  tall.style.setProperty("min-width", `${columns.reduce((sum, column) => sum + (column.width ?? 6), 0)}rem`);

  const line = (place) => {
    const id = state.shown[place];
    view.dataset.touched = String(Number(view.dataset.touched) + 1);
    return h("tr", { "aria-rowindex": String(place + 2) }, columns.map((column, c) => h(c === 0 ? "th" : "td", { scope: c === 0 ? "row" : null, class: column.numeric ? "num" : "" }, column.cell(id))));
  };

  const draw = () => {
    const first = state.printing ? 0 : Math.max(0, Math.floor(state.top / ROW) - SPARE);
    const last = Math.min(state.shown.length, state.printing ? PRINTED : Math.ceil((state.top + state.tall) / ROW) + SPARE);
    for (const [place, row] of state.live) {
      if (place >= first && place < last) continue;
      row.remove();
      state.live.delete(place);
    }
    for (let place = first; place < last; place += 1) {
      if (state.live.has(place)) continue;
      const row = line(place);
      const next = state.live.get(place + 1);
      if (next) body.insertBefore(row, next); else body.append(row);
      state.live.set(place, row);
    }
    table.style.setProperty("margin-top", `${first * ROW}px`);
  };

  const redraw = () => {
    body.replaceChildren();
    state.live.clear();
    table.setAttribute("aria-rowcount", String(state.shown.length + 1));
    tall.style.setProperty("height", `${(state.shown.length + 1) * ROW}px`);
    view.hidden = state.shown.length === 0;
    note.hidden = state.shown.length > 0;
    if (state.top > 0) view.scrollTop = 0;
    state.top = 0;
    draw();
  };

  const order = () => {
    const value = state.column === null ? null : columns[state.column].value;
    state.shown = value ? [...state.rows].sort((a, b) => compare(value(a), value(b)) * (state.falling ? -1 : 1)) : state.rows;
    heads.forEach((head, c) => {
      if (c === state.column) head.setAttribute("aria-sort", state.falling ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
      const arrow = head.querySelector(".arrow");
      if (arrow) arrow.textContent = c === state.column ? (state.falling ? " ↓" : " ↑") : "";
    });
    redraw();
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? (Number.isNaN(a) ? (Number.isNaN(b) ? 0 : -1) : Number.isNaN(b) ? 1 : a - b) : String(a).localeCompare(String(b)));
  const sortBy = (c) => {
    [state.falling, state.column] = [state.column === c ? !state.falling : Boolean(columns[c].numeric), c];
    order();
  };

  // Where the view stands is read when it moves, not when its rows change: then a browser would lay out the page at once.
  const look = () => {
    [state.top, state.tall] = [view.scrollTop, Math.max(view.clientHeight, height * ROW)];
    draw();
  };
  view.addEventListener("scroll", look, { passive: true });
  const cut = h("p", { class: "muted printed" });
  view.print = (printing) => {
    state.printing = printing;
    cut.textContent = state.shown.length > PRINTED ? `The first ${PRINTED} of ${state.shown.length} rows are printed; the CSV file has all.` : "";
    draw();
  };
  const all = () => csvText([columns.map((column) => column.name), ...state.shown.map((id) => columns.map((column) => (column.csv ?? column.value ?? column.cell)(id)))]);
  const csv = saveButton("CSV", title, () => save(fileName(title, "csv"), "text/csv", all()));
  if (sorted !== null) [state.column, state.falling] = [sorted, falling ?? Boolean(columns[sorted].numeric)];
  order();
  return {
    element: h("div", { class: "listing" }, view, cut, note, h("p", { class: "files" }, csv)),
    setRows: (next) => { state.rows = next; order(); },
    count: () => state.shown.length,
    ready: look,
  };
};

// A search field over examples: all words must occur. `extra` are further choosers.
const searched = (examples, table, noun, extra = [], keep = () => true) => {
  const output = h("output", { "aria-live": "polite" });
  const field = h("input", { type: "search", autocomplete: "off" });
  const everything = Array.from({ length: examples.size }, (_, i) => i);
  const filter = () => {
    const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = everything.filter((i) => keep(i) && wanted.every((word) => examples.lowered(i).includes(word)));
    table.setRows(found);
    output.textContent = `${found.length} of ${counted(examples.size, noun)}`;
  };
  field.addEventListener("input", filter);
  filter();
  prepare(examples);
  return { element: h("div", { class: "tools" }, h("label", { class: "grow" }, "Search by words", field), extra, output), filter };
};

const AT_ONCE = 100; // examples made ready for a search at a time, so that nothing waits for all of them

// What a search looks through, made while nothing else is to be done: else the first letter waits for it.
const prepare = (examples, from = 0) => (globalThis.requestIdleCallback ?? setTimeout)(() => {
  const end = Math.min(from + AT_ONCE, examples.size);
  for (let i = from; i < end; i += 1) examples.lowered(i);
  if (end < examples.size) prepare(examples, end);
});

// Tables of the page itself get a button for CSV, and folded ones are made when they are opened.
const finishTables = (root) => {
  for (const table of root.querySelectorAll("table[data-csv]")) {
    const lines = () => [...table.rows].map((row) => [...row.cells].map((cell) => cell.innerText.trim()));
    table.closest(".scroll").after(h("p", { class: "files" }, saveButton("CSV", table.dataset.csv, () => save(fileName(table.dataset.csv, "csv"), "text/csv", csvText(lines())))));
  }
};

const openLater = () => {
  for (const details of document.querySelectorAll("details.folded")) {
    const template = details.querySelector("template");
    details.addEventListener("toggle", () => {
      if (details.open && template.isConnected) {
        template.replaceWith(template.content.cloneNode(true));
        finishTables(details);
      }
    });
  }
};

// What is printed has all rows of its tables, up to the bound; afterwards they hold those in view again.
const printTables = (printing) => {
  for (const view of document.querySelectorAll(".window")) if (!printing || view.checkVisibility()) view.print(printing);
};
addEventListener("beforeprint", () => printTables(true));
addEventListener("afterprint", () => printTables(false));
