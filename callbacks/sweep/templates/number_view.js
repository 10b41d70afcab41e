// One number in all jobs, and all numbers of one evaluation and method as jobs by numbers.

const MOST_ACROSS = 20; // numbers beside each other

const meanOf = (data, number, setting) => [data.numbers.mean(number, setting), data.numbers.meanError(number, setting)];

const numberView = (data, state) => {
  const number = Number(state.number);
  const { numbers } = data;
  if (!numbers.all.includes(number)) return missingHere(`This page has no number ${state.number}.`);
  const jobs = data.jobs.filter((job) => Number.isFinite(measured(data, number, job)[0]));
  const settings = data.settings.map((name, at) => ({ name, mean: meanOf(data, number, at), seeds: numbers.seeds(number, at) })).filter((one) => one.seeds);
  const title = numbers.name(number);
  const byJob = virtualTable(`${title}, by job`, [...jobColumns(data, (j) => jobs[j]), measuredColumn("Value ± error of the job", (j) => measured(data, number, jobs[j]))], { rows: jobs.map((_, j) => j) });
  const bySetting = virtualTable(`${title}, by setting`, [
    { name: "Setting", width: 18, cell: (s) => settings[s].name, value: (s) => settings[s].name },
    measuredColumn("Mean ± error", (s) => settings[s].mean),
    { name: "Seeds", width: 5, numeric: true, cell: (s) => String(settings[s].seeds), value: (s) => settings[s].seeds },
  ], { rows: settings.map((_, s) => s), height: Math.min(14, settings.length) });
  const better = { "↑": "Higher is better. ", "↓": "Lower is better. " }[numbers.better(number)] ?? "";
  return h("article", {}, h("h2", { tabindex: "-1" }, title), h("p", { class: "muted" }, better, evaluationLink(data, number), " has more of this kind."),
    h("h3", {}, "By setting"), h("p", { class: "muted" }, "Mean over seeds ± standard error of that mean; with one seed the error is over its examples."), bySetting.element,
    settingsFigure(data, number, title, settings, jobs), h("h3", {}, "By job"), byJob.element);
};

// Each job a mark, each setting's mean with its error.
const settingsFigure = (data, number, title, settings, jobs) => figure({
  title: `${title}, by setting`, caption: "A ring is a job, a square the mean over the seeds of a setting with its standard error.",
  said: `${title} of ${counted(jobs.length, "job")} in ${counted(settings.length, "setting")}. The numbers are in the CSV file below.`,
  height: 360,
  make: (ink, grid) => {
    const name = (one) => `${plain(one.name)} `;
    const marks = jobs.filter((job) => job.setting >= 0);
    return {
      data: [
        { type: "scatter", mode: "markers", name: "job", x: marks.map((job) => `${plain(data.settings[job.setting])} `), y: marks.map((job) => measured(data, number, job)[0]), text: marks.map((job) => `job ${job.job}`), hoverinfo: "text+y", marker: { symbol: "circle-open", size: 9, color: "#0072B2" } },
        { type: "scatter", mode: "markers", name: "mean", x: settings.map(name), y: settings.map((one) => one.mean[0]), hoverinfo: "x+y", marker: { symbol: "square", size: 10, color: "#D55E00" }, error_y: { type: "data", array: settings.map((one) => (Number.isFinite(one.mean[1]) ? one.mean[1] : 0)), color: "#D55E00" } },
      ],
      layout: { xaxis: { ...axis("", ink, grid), type: "category" }, yaxis: axis(data.numbers.metric(number), ink, grid), showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, margin: { l: 56, r: 16, t: 50, b: 46 } },
    };
  },
  lines: [["setting", "job", "seed", "value", "error"], ...jobs.map((job) => [data.settings[job.setting], job.job, job.seed, ...measured(data, number, job)])],
});

// Jobs down, the numbers of one evaluation and method across.
const evaluationView = (data, state, go) => {
  const { about, all } = data.numbers;
  const evaluations = [...new Set(all.map(about.evaluation))];
  if (!evaluations.includes(state.evaluation)) return missingHere(`This page has no evaluation ${state.evaluation}.`);
  const mine = all.filter((i) => about.evaluation(i) === state.evaluation);
  const methods = [...new Set(mine.map(about.method))];
  const method = methods.includes(state.method ?? "") ? state.method ?? "" : methods[0];
  const found = mine.filter((i) => about.method(i) === method);
  const shown = found.slice(0, MOST_ACROSS);
  const jobs = data.jobs.filter((job) => shown.some((i) => Number.isFinite(measured(data, i, job)[0])));
  const title = `Jobs by numbers: ${state.evaluation}${method ? ` of ${method}` : ""}`;
  const table = virtualTable(title, [...jobColumns(data, (j) => jobs[j]),
    ...shown.map((i) => measuredColumn([data.numbers.metric(i), data.numbers.rest(i, shown)].filter(Boolean).join(", ") + data.numbers.better(i), (j) => measured(data, i, jobs[j])))], { rows: jobs.map((_, j) => j) });
  return h("article", {}, h("h2", { tabindex: "-1" }, title),
    h("div", { class: "tools" }, chooser("Evaluation", evaluations.map((name) => [name, name || "other"]), state.evaluation, (name) => go({ evaluation: name, method })),
      methods.length > 1 ? chooser("Method", methods.map((name) => [name, name || "the model"]), method, (name) => go({ ...state, method: name })) : ""),
    h("p", { class: "muted" }, "Value ± error of each job, over its examples.", found.length > shown.length ? ` The first ${shown.length} of ${found.length} numbers; the others stand under Numbers.` : ""),
    table.element, h("ul", { class: "inline" }, shown.map((i) => h("li", {}, numberLink(data, i, data.numbers.metric(i) + (data.numbers.rest(i, shown) && `, ${data.numbers.rest(i, shown)}`))))));
};
