// What a sweep's page shows: lists by the name of their view (`made`), one thing by the name in its address (`VIEWS`).

const MOST_SETTINGS = 8; // means beside each other; of more settings the lowest and the highest

const jobsOverview = (data) => {
  const table = virtualTable("Jobs", [
    ...jobColumns(data, (j) => data.jobs[j]).slice(0, 1),
    { name: "Outcome", width: 7, cell: (j) => statusBadge(data.jobs[j]), value: (j) => data.jobs[j].status },
    ...jobColumns(data, (j) => data.jobs[j]).slice(1),
    ...data.headline.map((i) => measuredColumn([data.numbers.metric(i), data.numbers.rest(i, data.headline)].filter(Boolean).join(", "), (j) => measured(data, i, data.jobs[j]))),
    ...(data.jobs.some((job) => job.message) ? [{ name: "Message", width: 30, cell: (j) => h("span", { dir: "auto" }, data.jobs[j].message), value: (j) => data.jobs[j].message }] : []),
  ], { rows: data.jobs.map((_, j) => j), height: Math.min(20, data.jobs.length) });
  return table;
};

const extremes = (data, i) => {
  const found = data.settings.map((name, at) => ({ name, mean: meanOf(data, i, at) })).filter((one) => Number.isFinite(one.mean[0])).sort((a, b) => a.mean[0] - b.mean[0]);
  return [found[0], found[found.length - 1]];
};

const numbersOverview = (data) => {
  const { numbers } = data;
  const few = data.settings.length <= MOST_SETTINGS;
  const across = few
    ? data.settings.map((name, at) => measuredColumn(data.settings.length > 1 ? name : "Mean ± error", (i) => meanOf(data, i, at)))
    : ["Lowest", "Highest"].flatMap((name, end) => [measuredColumn(name, (i) => extremes(data, i)[end]?.mean ?? [NaN, NaN]), { name: "in", width: 10, cell: (i) => extremes(data, i)[end]?.name ?? "", value: (i) => extremes(data, i)[end]?.name ?? "" }]);
  const table = virtualTable("Means over seeds", [
    { name: "Metric", width: 11, cell: (i) => h("span", {}, numberLink(data, i), ` ${numbers.better(i)}`), value: numbers.metric },
    { name: "Method", width: 10, cell: numbers.about.method, value: numbers.about.method },
    { name: "Evaluation", width: 8, cell: (i) => evaluationLink(data, i), value: numbers.about.evaluation },
    { name: "Of", width: 9, cell: (i) => numbers.rest(i), value: (i) => numbers.rest(i) },
    ...across,
  ]);
  const search = searched(numbers, table, "number");
  return { element: h("div", {}, search.element, few ? "" : h("p", { class: "muted" }, `The lowest and the highest mean of ${data.settings.length} settings; open a number for all of them.`), table.element), ready: table.ready };
};

const pairsOverview = (data) => {
  const { cell, size, total } = data.pairs;
  const settings = new Map(data.jobs.map((job) => [String(job.job), data.settings[job.setting] ?? ""]));
  const setting = (lead) => (i) => settings.get(cell[`${lead}job`](i)) ?? "";
  const job = (lead) => (i) => link({ job: cell[`${lead}job`](i) }, `job ${cell[`${lead}job`](i)}`);
  const table = virtualTable("Pairs of jobs", [
    { name: "Metric", width: 16, cell: cell.metric, value: cell.metric },
    { name: "k", width: 4, numeric: true, cell: cell.k, value: (i) => Number(cell.k(i)) },
    ...["", "reference_"].flatMap((lead) => [
      { name: lead ? "Second" : "First", width: 5, cell: job(lead), value: (i) => Number(cell[`${lead}job`](i)) },
      { name: "Method", width: 9, cell: cell[`${lead}method`], value: cell[`${lead}method`] },
      ...(data.settings.length > 1 ? [{ name: "Setting", width: 10, cell: setting(lead), value: setting(lead) }] : []),
    ]),
    measuredColumn("Value ± error", (i) => [cell.value(i), cell.stderr(i)]),
    { name: "n", width: 4, numeric: true, cell: cell.n, value: (i) => Number(cell.n(i)) },
  ]);
  const rows = Array.from({ length: size }, (_, i) => i);
  const metrics = [...new Set(rows.map(cell.metric))];
  const filter = (metric) => table.setRows(rows.filter((i) => !metric || cell.metric(i) === metric));
  filter("");
  return { element: h("div", {}, h("div", { class: "tools" }, chooser("Metric", [["", "all"], ...metrics.map((name) => [name, name])], "", filter)),
    total > size ? h("p", { class: "muted" }, `The first ${size} of ${total} rows; comparison.csv has all.`) : "", table.element), ready: table.ready };
};

const made = { jobs: jobsOverview, numbers: numbersOverview, pairs: pairsOverview };
const VIEWS = { job: jobView, number: numberView, evaluation: evaluationView };
