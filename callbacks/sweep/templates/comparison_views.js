// What the page of a comparison shows: lists by the name of their view (`made`), an example by its address (`VIEWS`).

const sharedOverview = (data) => {
  const { shared } = data;
  return virtualTable("What their lists share", [
    { name: "Method", width: 10, cell: (i) => shared[i].method, value: (i) => shared[i].method },
    { name: "Lens", width: 7, cell: (i) => shared[i].kind, value: (i) => shared[i].kind },
    { name: "Runs", width: 6, cell: (i) => letters(data, shared[i]), value: (i) => letters(data, shared[i]) },
    { name: "First entries", width: 7, numeric: true, cell: (i) => String(shared[i].k), value: (i) => shared[i].k },
    measuredColumn("Shared, % ± error", (i) => [shared[i].value, shared[i].error]),
    { name: "Examples", width: 5, numeric: true, cell: (i) => String(shared[i].n), value: (i) => shared[i].n },
  ], { rows: shared.map((_, i) => i), height: Math.min(14, Math.max(1, shared.length)), empty: "No method of one run has lists in another one that could be compared." });
};

const numbersOverview = (data) => {
  const { numbers, runs } = data;
  const table = virtualTable("Numbers side by side", [
    { name: "Metric", width: 11, cell: (i) => `${numbers.metric(i)} ${numbers.better(i)}`, value: numbers.metric },
    { name: "Method", width: 9, cell: numbers.about.method, value: numbers.about.method },
    { name: "Evaluation", width: 8, cell: numbers.about.evaluation, value: numbers.about.evaluation },
    { name: "Of", width: 8, cell: (i) => numbers.rest(i), value: (i) => numbers.rest(i) },
    ...runs.map((run) => measuredColumn(run.letter, (i) => [numbers.value(i, run.place), numbers.error(i, run.place)])),
    ...runs.slice(1).flatMap((run) => [
      measuredColumn(`${run.letter} − A`, (i) => [numbers.difference(i, run.place - 1), numbers.differenceError(i, run.place - 1)]),
      { name: "Errors apart", width: 6.5, numeric: true, cell: (i) => shownScore(apart(numbers, i, run)), value: (i) => apart(numbers, i, run) },
      { name: "Error of", width: 6.5, cell: (i) => (Number.isNaN(numbers.difference(i, run.place - 1)) ? "" : numbers.paired(i, run.place - 1) ? "pairs" : "two means"), value: (i) => numbers.paired(i, run.place - 1) },
    ]),
  ]);
  const search = searched(numbers, table, "number");
  return { element: h("div", {}, search.element, table.element), ready: table.ready };
};

const apart = (numbers, i, run) => {
  const [value, error] = [numbers.difference(i, run.place - 1), numbers.differenceError(i, run.place - 1)];
  return error > 0 ? Math.abs(value) / error : NaN;
};

const settingsOverview = (data) => virtualTable("Settings that differ", [
  { name: "Setting", width: 18, cell: (i) => data.settings[i][0], value: (i) => data.settings[i][0] },
  ...data.runs.map((run) => ({ name: run.letter, width: 14, cell: (i) => data.settings[i][1][run.place] ?? h("span", { class: "muted" }, "not set"), value: (i) => data.settings[i][1][run.place] ?? "" })),
], { rows: data.settings.map((_, i) => i), empty: "No setting differs that changes a number." });

const examplesOverview = (data) => {
  const first = data.runs[0];
  const shares = perExample(data);
  const outcome = (run) => (row) => run.tests.prediction(run.example(row));
  const table = virtualTable("Examples", [
    { name: "Example", width: 6, cell: (row) => comparedLink(data, row), value: (row) => data.index[row] },
    { name: "Predictions", width: 6.5, cell: (row) => (data.same[row] ? badge("same") : badge("differ", "wrong")), value: (row) => (data.same[row] ? "same" : "differ") },
    ...data.runs.map((run) => ({ name: run.letter, width: 8, cell: (row) => h("span", { dir: "auto" }, outcome(run)(row)), value: outcome(run) })),
    { name: "Label", width: 7, cell: (row) => h("span", { dir: "auto" }, first.tests.label(first.example(row))), value: (row) => first.tests.label(first.example(row)) },
    ...shares.map((one) => ({ name: `${one.name} %`, width: Math.max(5, one.name.length * 0.56 + 3), numeric: true, cell: (row) => shownScore(Math.round(one.each[row])), value: (row) => one.each[row] })),
    { name: "Text", width: 24, cell: (row) => h("span", { dir: "auto" }, first.tests.brief(first.example(row)) || empty("")), csv: (row) => first.tests.brief(first.example(row), Infinity) },
  ]);
  const rows = { size: data.size, lowered: (row) => data.runs.map((run) => run.tests.lowered(run.example(row))).join("\n") };
  const kept = { only: "" };
  const which = chooser("Predictions", [["", "all"], ["differ", "differ"], ["same", "same"]], "", (value) => { kept.only = value; search.filter(); });
  const search = searched(rows, table, "example", which, (row) => !kept.only || (kept.only === "same") === Boolean(data.same[row]));
  return { element: h("div", {}, search.element, shares.length ? h("p", { class: "muted" }, "Behind the name of a method: the share of the first ten entries that the lists have in common.") : "", table.element), ready: table.ready };
};

const made = { overview: sharedOverview, numbers: numbersOverview, differing: settingsOverview, examples: examplesOverview };
const VIEWS = { test: comparedExample };
