// A sweep's jobs and numbers, from its unpacked block. A number is a row, a job or a setting a column.

const readPage = async () => {
  const { header, column, words } = readBlock(await unpacked("island"));
  const packed = header.numbers;
  const read = readNumbers(packed, column, words);
  const numbers = {
    ...read,
    value: read.grid("value", packed.jobs.length), error: read.grid("stderr", packed.jobs.length),
    mean: read.grid("mean_value", header.settings.length), meanError: read.grid("mean_stderr", header.settings.length), seeds: read.grid("mean_seeds", header.settings.length),
  };
  numbers.name = (i) => [read.about.evaluation(i), read.about.method(i), numbers.metric(i), numbers.rest(i)].filter(Boolean).join(" · ");
  // Columns of the grid, in the order of jobs of the page; −1 for a job without results.
  const jobs = header.jobs.map((job) => ({ ...job, column: packed.jobs.indexOf(job.job) }));
  const pairs = { total: header.pairs.total, size: header.pairs.size, cell: {} };
  for (const [name, place] of Object.entries(header.pairs.columns)) {
    const cells = place.words ? words(place) : column(place);
    pairs.cell[name] = place.words ? cells : (i) => cells[i];
  }
  return { charts: header.charts, settings: header.settings, swept: header.swept, headline: header.headline, jobs, numbers, pairs };
};

const jobLink = (job, text = `job ${job.job}`) => link({ job: job.job }, text);
const numberLink = (data, i, text = data.numbers.metric(i)) => link({ number: i }, text);
const evaluationLink = (data, i) => link({ evaluation: data.numbers.about.evaluation(i), method: data.numbers.about.method(i) }, data.numbers.about.evaluation(i) || "other");

// A relative address: the file lies beside the page.
const reportLink = (job) => (job.report ? h("a", { href: job.report, "aria-label": `Report of job ${job.job}` }, "report") : h("span", { class: "muted" }, "none"));

const statusBadge = (job) => badge(job.status, job.status === "done" ? "right" : "wrong");

// Columns that say which job a row is of, from a row's id to its job.
const jobColumns = (data, of) => [
  { name: "Job", width: 5, cell: (id) => jobLink(of(id)), value: (id) => of(id).job },
  { name: "Report", width: 5, cell: (id) => reportLink(of(id)), value: (id) => of(id).report },
  ...Object.entries(data.swept).map(([key, name]) => ({ name, width: headWidth(name, 6), cell: (id) => of(id).values[key] ?? h("span", { class: "muted" }, "default"), value: (id) => sortable(of(id).values[key] ?? "") })),
];

const sortable = (text) => (text !== "" && Number.isFinite(Number(text)) ? Number(text) : text);

// A number of a job with its own error.
const measured = (data, number, job) => [data.numbers.value(number, job.column), data.numbers.error(number, job.column)];
