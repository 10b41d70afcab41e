// One job: how it ended, its settings, and its numbers beside the means of its setting.

const jobView = (data, state) => {
  const job = data.jobs.find((one) => String(one.job) === state.job);
  if (!job) return missingHere(`This sweep has no job ${state.job}.`);
  const { numbers } = data;
  const own = numbers.all.filter((i) => Number.isFinite(measured(data, i, job)[0]));
  const table = virtualTable(`Numbers of job ${job.job}`, [
    { name: "Evaluation", width: 9, cell: (i) => evaluationLink(data, i), value: numbers.about.evaluation },
    { name: "Method", width: 10, cell: numbers.about.method, value: numbers.about.method },
    { name: "Metric", width: 11, cell: (i) => numberLink(data, i), value: numbers.metric },
    { name: "Of", width: 10, cell: (i) => numbers.rest(i), value: (i) => numbers.rest(i) },
    measuredColumn("Value ± error", (i) => measured(data, i, job)),
    measuredColumn("Mean of its setting", (i) => meanOf(data, i, job.setting)),
    { name: "Seeds", width: 5, numeric: true, cell: (i) => String(numbers.seeds(i, job.setting)), value: (i) => numbers.seeds(i, job.setting) },
  ], { rows: own });
  const at = data.jobs.indexOf(job);
  return h("article", { class: "example" }, h("header", {}, h("h2", { tabindex: "-1" }, `Job ${job.job}`), statusBadge(job), job.report ? h("a", { href: job.report }, "its report") : "",
    h("span", { class: "steps" }, at > 0 ? jobLink(data.jobs[at - 1], "← previous") : "", " ", at + 1 < data.jobs.length ? jobLink(data.jobs[at + 1], "next →") : "")),
  job.message ? h("p", { class: "warnings", dir: "auto" }, job.message) : "",
  h("p", {}, "Settings given: ", h("code", {}, job.overrides || "none"), job.setting >= 0 && data.settings.length > 1 ? `. It is a seed of “${data.settings[job.setting]}”.` : ""),
  own.length ? [h("h3", {}, "Its numbers"), table.element] : h("p", { class: "muted" }, "It has no numbers."));
};
