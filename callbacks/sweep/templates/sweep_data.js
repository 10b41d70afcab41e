// A sweep's jobs and numbers, from its unpacked block. A number is a row, a job or a setting a column.

const OF_A_NUMBER = ["split", "group", "reference_group", "variant", "setting", "explain"]; // shown where they say something

const readPage = async () => {
  const { header, column, words } = readBlock(await unpacked("island"));
  const packed = header.numbers;
  const about = Object.fromEntries(Object.entries(packed.about).map(([name, place]) => [name, words(place)]));
  const grid = (name, width) => {
    const cells = column(packed[name]);
    return (number, at) => (at < 0 ? NaN : cells[number * width + at]);
  };
  const lowered = [];
  const all = Array.from({ length: packed.size }, (_, i) => i);
  const names = new Map();
  const restNames = (among) => names.get(among) ?? names.set(among, OF_A_NUMBER.filter((name) => new Set(among.map(about[name])).size > 1)).get(among);
  const numbers = {
    size: packed.size, about, all, control: column(packed.control), better: words(packed.better),
    value: grid("value", packed.jobs.length), error: grid("stderr", packed.jobs.length),
    mean: grid("mean_value", header.settings.length), meanError: grid("mean_stderr", header.settings.length), seeds: grid("mean_seeds", header.settings.length),
    metric: (i) => [about.metric(i), about.k(i) && `@${about.k(i)}`].filter(Boolean).join(" "),
    // What else it is of, as far as others differ in it.
    rest: (i, among = all) => restNames(among).map((name) => about[name](i)).filter(Boolean).join(", "),
    // What a search looks through.
    lowered: (i) => (lowered[i] ??= Object.values(about).map((of) => of(i)).join("\n").toLowerCase()),
  };
  numbers.name = (i) => [about.evaluation(i), about.method(i), numbers.metric(i), numbers.rest(i)].filter(Boolean).join(" · ");
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

const headWidth = (name, least) => Math.min(17, Math.max(least, name.length * 0.56 + 2));

// Columns that say which job a row is of, from a row's id to its job.
const jobColumns = (data, of) => [
  { name: "Job", width: 5, cell: (id) => jobLink(of(id)), value: (id) => of(id).job },
  { name: "Report", width: 5, cell: (id) => reportLink(of(id)), value: (id) => of(id).report },
  ...Object.entries(data.swept).map(([key, name]) => ({ name, width: headWidth(name, 6), cell: (id) => of(id).values[key] ?? h("span", { class: "muted" }, "default"), value: (id) => sortable(of(id).values[key] ?? "") })),
];

const sortable = (text) => (text !== "" && Number.isFinite(Number(text)) ? Number(text) : text);

// A number of a job with its own error.
const measured = (data, number, job) => ({ value: data.numbers.value(number, job.column), error: data.numbers.error(number, job.column) });
const measuredColumn = (name, of) => ({ name, width: headWidth(name, 8), numeric: true, cell: (id) => shownWithError(of(id).value, of(id).error), value: (id) => of(id).value });
