// Figures by the charting library, which is unpacked when the first one comes into view; without it their numbers.

let library = null;
const charting = () => (library ??= unpacked("library").then((bytes) => {
  const script = h("script");
  script.textContent = new TextDecoder().decode(bytes); // the page's policy allows it by its hash
  document.head.append(script);
  return globalThis.Plotly;
}));

const drawn = new Set();
const inView = new IntersectionObserver((seen) => {
  for (const one of seen) {
    if (!one.isIntersecting) continue;
    inView.unobserve(one.target);
    one.target.draw();
  }
}, { rootMargin: "200px" });

// The library reads some markup in its labels: `<` must not be one.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const themed = (name) => { // a custom property of two colours, as the one that holds now
  const probe = h("span", { "--probe": `var(${name})`, class: "probe" });
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};

const axis = (title, ink, grid) => ({ title: { text: plain(title), font: { size: 13 } }, color: ink, gridcolor: grid, zerolinecolor: grid, linecolor: ink, automargin: true });

const layoutOf = (spec) => {
  const [ink, grid] = [themed("--ink"), themed("--line")];
  const layout = spec(ink, grid);
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 13 }, dragmode: false,
    margin: { l: 56, r: 16, t: 28, b: 46 }, hoverlabel: { namelength: -1 }, ...layout,
  };
};

// Numbers of a figure as a table, where the page does not carry the library (in a notebook's cell).
const numbers = (title, lines) => h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, h("table", { "aria-label": title },
  h("thead", {}, h("tr", {}, lines[0].map((name) => h("th", { scope: "col" }, name)))),
  h("tbody", {}, lines.slice(1).map((line) => h("tr", {}, line.map((cell, c) => h(c ? "td" : "th", { scope: c ? null : "row" }, typeof cell === "number" ? shownScore(cell) : String(cell))))))));

const FOLDED = 20; // rows of numbers from which on they are folded

const listedFigure = (title, caption, lines, shown) => h("figure", { class: "figure" }, h("h3", {}, title),
  shown.length > FOLDED ? h("details", {}, h("summary", {}, counted(shown.length - 1, "row")), numbers(title, shown)) : numbers(title, shown), h("figcaption", {}, caption),
  h("p", { class: "files" }, saveButton("CSV", title, () => save(fileName(title, "csv"), "text/csv", csvText(lines)))));

// One figure: `make(ink, grid)` gives {data, layout}, `lines` its numbers as rows of a CSV file, `shown` the same for readers.
const figure = ({ title, caption, said, height, make, lines, shown = lines }) => {
  if (!document.getElementById("library")) return listedFigure(title, caption, lines, shown);
  const canvas = h("div", { class: "canvas", role: "img", "aria-label": said, "--height": `${height}px` });
  canvas.draw = async () => {
    const Plotly = await charting();
    if (!canvas.isConnected) return;
    let data;
    const layout = layoutOf((ink, grid) => { const made = make(ink, grid); data = made.data; return made.layout; });
    await Plotly.react(canvas, data, { ...layout, height }, { displayModeBar: false, responsive: true, scrollZoom: false });
    drawn.add(canvas);
    canvas.dataset.drawn = document.documentElement.dataset.theme || "automatic";
  };
  const svg = async () => {
    await canvas.draw();
    const image = await (await charting()).toImage(canvas, { format: "svg", width: canvas.clientWidth || 800, height });
    save(fileName(title, "svg"), "image/svg+xml", decodeURIComponent(image.slice(image.indexOf(",") + 1)));
  };
  inView.observe(canvas);
  return h("figure", { class: "figure" }, h("h3", {}, title), canvas, h("figcaption", {}, caption),
    h("p", { class: "files" }, saveButton("SVG", title, svg), saveButton("CSV", title, () => save(fileName(title, "csv"), "text/csv", csvText(lines)))));
};

const redrawFigures = () => {
  for (const canvas of drawn) {
    if (canvas.isConnected) canvas.draw(); else drawn.delete(canvas);
  }
};
