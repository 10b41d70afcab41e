// What the figures of a run show: lines, stacked shares and heat maps.

const DASHES = { solid: "solid", dashed: "dash", dotted: "dot" };
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon"]; // no meaning by colour alone
const BLUE_ORANGE = (paper) => [[0, "#d55e00"], [0.5, paper], [1, "#0072b2"]];

const drawnLine = (one, number) => ({
  type: "scatter", mode: one.markers ? "lines+markers" : "lines", name: plain(one.name), x: one.x, y: one.y,
  line: { color: one.colour, dash: DASHES[one.line], width: 2 }, marker: { color: one.colour, size: 8, symbol: SYMBOLS[number % SYMBOLS.length] },
  error_y: one.error.some((value) => value) ? { type: "data", array: one.error.map((value) => value ?? 0), color: one.colour, thickness: 1.2 } : undefined,
});

const drawnShares = (one) => ({ type: "bar", name: plain(one.name), x: one.x.map(String), y: one.y, marker: { color: one.colour }, text: one.y.map((value) => (value >= 6 ? value.toFixed(0) : "")), textposition: "inside" });

const panelFigure = (chart, panel) => figure({
  title: chart.panels.length > 1 || panel.title ? `${chart.title}: ${panel.title}` : chart.title,
  caption: [chart.caption, panel.note].filter(Boolean).join(" "),
  said: `${panel.title}: ${panel.y} over ${panel.x}, by ${panel.series.map((one) => one.name).join(", ")}. The numbers are in the CSV file below.`,
  height: 380,
  make: (ink, grid) => ({
    data: panel.series.map((one, number) => (panel.shares ? drawnShares(one) : drawnLine(one, number))),
    layout: {
      xaxis: { ...axis(panel.x, ink, grid), type: panel.shares ? "category" : panel.log ? "log" : "linear", ...(panel.log && !panel.shares ? { tickvals: [...new Set(panel.series.flatMap((one) => one.x))] } : {}) },
      yaxis: axis(panel.y, ink, grid), barmode: "stack", showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, margin: { l: 56, r: 16, t: 60, b: 46 },
    },
  }),
  lines: [["series", panel.x, panel.y, "error"], ...panel.series.flatMap((one) => one.x.map((x, i) => [one.name, x, one.y[i], one.error[i] ?? ""]))],
});

// Rows by columns; `relative`: shades are of each row's largest, values are in words.
const heatFigure = ({ title, caption, rows, columns, across, down, values, relative, unit, texts = null }) => {
  const largest = (row) => Math.max(...row.map((value) => Math.abs(value ?? 0)), 0);
  const most = Math.max(...values.map(largest), 0);
  const shades = values.map((row) => row.map((value) => (value === null ? null : value / ((relative ? largest(row) : most) || 1))));
  const said = (r, c) => `${rows[r]}, ${across} ${columns[c]}: ${values[r][c] === null ? "none" : `${shownScore(values[r][c])} ${unit}`}`;
  const few = columns.length <= 24;
  const lines = (number) => [[down, ...columns.map((name) => `${across} ${name}`)], ...rows.map((name, r) => [name, ...values[r].map((value, c) => (texts?.[r][c] ? `${texts[r][c]} (${number(value)})` : value ?? ""))])];
  // The largest of a scale with three digits, the others of it with as many places.
  const cell = (value, top) => (top >= 1e6 || top < 1e-5 ? shownScore(value) : value.toFixed(Math.min(7, Math.max(0, 2 - Math.floor(Math.log10(top))))).replace("-", "−").replace(/^−(0(\.0*)?)$/, "$1"));
  return figure({
    title, caption,
    said: `${title}: ${down} by ${across}. The numbers are in the CSV file below.`,
    height: 120 + 26 * rows.length,
    make: (ink, grid) => {
      const paper = themed("--panel");
      return {
        data: [{
          type: "heatmap", z: shades, x: columns.map((name) => `${plain(name)} `), y: rows.map((name) => `${plain(name)} `), zmin: -1, zmax: 1, colorscale: BLUE_ORANGE(paper), showscale: false, xgap: 2, ygap: 2, hoverongaps: false,
          text: values.map((row, r) => row.map((value, c) => (value === null ? "" : few ? plain(texts ? texts[r][c] : cell(value, relative ? largest(row) : most)) : ""))), texttemplate: few ? "%{text}" : undefined, textfont: { size: 10 },
          hoverinfo: "text", hovertext: values.map((row, r) => row.map((_, c) => plain(texts?.[r][c] ? `${texts[r][c]}: ${said(r, c)}` : said(r, c)))),
        }],
        layout: { xaxis: { ...axis(across, ink, grid), type: "category", showgrid: false }, yaxis: { ...axis("", ink, grid), type: "category", autorange: "reversed", showgrid: false } },
      };
    },
    lines: lines(String), shown: lines(shownScore),
  });
};

const drawRunFigures = (data) => {
  for (const place of document.querySelectorAll("[data-chart]")) {
    const chart = data.charts.find((one) => one.name === place.dataset.chart);
    if (chart.kind === "heat") {
      place.replaceChildren(heatFigure({ ...chart, columns: chart.values[0].map((_, layer) => String(layer)), across: "layer", down: "method" }));
    } else {
      place.replaceChildren(...chart.panels.map((panel) => panelFigure(chart, panel)));
    }
  }
};
