// One example in all runs: its text, what each run predicts, and the lists of one method side by side.

const ofExample = (data, row) => data.runs.map((run) => ({ run, example: run.example(row) }));

const comparedExample = (data, state, go) => {
  const row = data.index.indexOf(Number(state.test));
  const first = data.runs[0];
  if (row < 0) return missingHere(`The runs have no ${first.tests.split} example ${state.test} in common on this page. It keeps those on which they disagree most.`);
  const places = ofExample(data, row);
  const step = (by, text) => (row + by >= 0 && row + by < data.size ? comparedLinkAs(data, row + by, text, state) : "");
  return h("article", { class: "example", "data-index": data.index[row] },
    h("header", {}, h("h2", { tabindex: "-1" }, `${first.tests.split[0].toUpperCase()}${first.tests.split.slice(1)} example ${data.index[row]}`), badge(data.same[row] ? "same prediction" : "predictions differ", data.same[row] ? "" : "wrong"),
      h("span", { class: "steps" }, step(-1, "← previous"), " ", step(1, "next →"))),
    h("div", { class: "verdict" }, h("div", {}, fields(first.tests, places[0].example)), predictions(places)),
    comparedLens(data, row, "instance", "instances", "Training instances", state, go),
    comparedLens(data, row, "neuron", "method", "Neurons", state, go));
};

const comparedLinkAs = (data, row, text, state) => link({ ...state, test: data.index[row] }, text);

const predictions = (places) => h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Predictions" }, h("table", { "aria-label": "Predictions" },
  h("thead", {}, h("tr", {}, ["Run", "Prediction", "Probability", "Label", "In its report"].map((name) => h("th", { scope: "col", class: name === "Probability" ? "num" : "" }, name)))),
  h("tbody", {}, places.map(({ run, example }) => h("tr", {}, h("th", { scope: "row" }, run.letter),
    h("td", { dir: "auto" }, run.tests.prediction(example), " ", run.tests.verdict(example) === "unlabelled" ? "" : badge(run.tests.verdict(example), run.tests.verdict(example))),
    h("td", { class: "num" }, shownPercent(run.tests.prob[example])), h("td", { dir: "auto" }, run.tests.label(example)),
    h("td", {}, run.home ? testLink(run, example) : h("span", { class: "muted" }, "none")))))));

// Methods of a lens that some run has, those of all runs first.
const methodsOf = (data, kind) => {
  const counts = new Map();
  for (const run of data.runs) for (const method of run.of(kind)) counts.set(method.name, (counts.get(method.name) ?? 0) + (method.control ? 0 : 1));
  return [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
};

// What an entry is in all runs: the number of a common train instance, or a unit's address in runs of one model.
const nameOf = (data, run, kind) => (at) => (kind === "instance" ? run.common.get(at) : data.oneModel ? run.units.key[at] : undefined);

// Ranks in a list by what all runs call its entries; what another run does not have is left out.
const commonRanks = (data, run, kind, method, list) => new Map(method && list !== undefined
  ? entries(method, list).map((entry) => [nameOf(data, run, kind)(entry.at), entry.rank]).filter(([name]) => name !== undefined) : []);

const comparedLens = (data, row, kind, key, title, state, go) => {
  const names = methodsOf(data, kind);
  if (!names.length) return "";
  const chosen = names.includes(state[key]) ? state[key] : names[0];
  const lists = ofExample(data, row).map(({ run, example }) => {
    const method = run.of(kind).find((one) => one.name === chosen);
    const list = method ? listOf(method, example) : undefined;
    return { run, example, method, list, ranks: commonRanks(data, run, kind, method, list) };
  });
  const told = data.shared.filter((one) => one.each && one.method === chosen && one.kind === kind).map((one) => `${letters(data, one)} share ${Number.isNaN(one.each[row]) ? "none" : `${shownScore(Math.round(one.each[row]))} %`} of their first ${one.k}`);
  return h("section", { "data-lens": kind, "aria-label": title }, h("h3", {}, title),
    h("div", { class: "tools" }, chooser("Method", names.map((name) => [name, name]), chosen, (name) => go({ ...state, [key]: name }))),
    told.length ? h("p", {}, `${told.join("; ")}.`) : "",
    h("div", { class: "sides", "--sides": String(data.runs.length) }, lists.map((one) => comparedList(data, one, lists, kind, chosen))));
};

const comparedList = (data, { run, example, method, list }, lists, kind, name) => {
  const head = h("h4", {}, `${run.letter} · ${run.name}`);
  if (!method) return h("section", { "data-run": run.letter }, head, h("p", { class: "muted" }, `This run has no ${name}.`));
  // Ranks of the other runs' lists by this run's own places, which the lines show as "also B #3".
  const ranks = new Map(lists.filter((other) => other.run !== run).map((other) => [other.run.letter, new Map(
    entries(method, list).map((entry) => [entry.at, other.ranks.get(nameOf(data, run, kind)(entry.at))]).filter(([, rank]) => rank !== undefined))]));
  const lines = kind === "instance"
    ? instanceList(run, method, list, example, ranks, null, {})
    : unitList(run, method, list, example, ranks, {}, null);
  return h("section", { "data-run": run.letter }, head, aboutOf(method, list), worthOf(method), lines);
};
