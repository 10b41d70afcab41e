// Lists of all examples, all train instances and all units, with a search.

const cutNote = (examples) => (examples.cut ? h("p", { class: "muted" }, `Texts of the ${examples.split} split are cut after ${examples.cut} characters; the run's files have them whole.`) : "");

const examplesOverview = (data) => {
  const { tests } = data;
  const table = virtualTable("Examples", [
    { name: "Example", width: 6.5, cell: (i) => testLink(data, i), value: (i) => tests.index[i] },
    { name: "Outcome", width: 6, cell: (i) => (tests.verdict(i) === "unlabelled" ? "no label" : badge(tests.verdict(i), tests.verdict(i))), value: (i) => tests.verdict(i) },
    { name: "Prediction", width: 10, cell: (i) => h("span", { dir: "auto" }, tests.prediction(i)), value: (i) => tests.prediction(i) },
    { name: "Probability", width: 6.5, numeric: true, cell: (i) => shownPercent(tests.prob[i]), value: (i) => tests.prob[i] },
    { name: "Label", width: 10, cell: (i) => h("span", { dir: "auto" }, tests.label(i)), value: (i) => tests.label(i) },
    { name: "Text", width: 30, cell: (i) => h("span", { dir: "auto" }, tests.brief(i) || empty("")), csv: (i) => tests.brief(i, Infinity) },
  ]);
  const kept = { verdict: "" };
  const outcome = chooser("Outcome", [["", "all"], ["wrong", "wrong"], ["right", "right"]], "", (value) => { kept.verdict = value; search.filter(); });
  const search = searched(tests, table, "example", outcome, (i) => !kept.verdict || tests.verdict(i) === kept.verdict);
  return { element: h("div", {}, search.element, cutNote(tests), table.element), ready: table.ready };
};

const instancesOverview = (data) => {
  const { train } = data;
  const methods = data.of("instance").filter((one) => one.summary);
  const chosen = { method: pick(methods, null) };
  const number = (name) => (i) => (chosen.method ? chosen.method.summary[name][i] : NaN);
  const column = (name, said) => ({ name: said, width: 6, numeric: true, cell: (i) => shownScore(number(name)(i)), value: number(name) });
  const table = virtualTable("Training instances", [
    { name: "Instance", width: 6.5, cell: (i) => trainLink(data, i), value: (i) => train.index[i] },
    ...(methods.length ? [column("votes", "Votes"), column("mean", "Mean"), column("max", "Largest"), column("self_influence", "Self-infl.")] : []),
    { name: "Label", width: 10, cell: (i) => h("span", { dir: "auto" }, train.label(i)), value: (i) => train.label(i) },
    { name: "Marks", width: 8, cell: (i) => train.marks(i), value: (i) => train.marks(i) },
    { name: "Text", width: 28, cell: (i) => h("span", { dir: "auto" }, train.brief(i) || empty("")), csv: (i) => train.brief(i, Infinity) },
  ], methods.length ? { sorted: 1 } : {});
  const choose = methods.length ? chooser("Votes by", methods.map((one) => [one.name, one.control ? `${one.name} (control)` : one.name]), chosen.method.name, (name) => { chosen.method = pick(methods, name); search.filter(); }) : "";
  const search = searched(train, table, "instance", choose);
  return { element: h("div", {}, search.element, cutNote(train), table.element), ready: table.ready };
};

const unitsOverview = (data) => {
  const methods = data.of("neuron").filter((one) => !one.control);
  const counts = new Map();
  for (const method of methods) {
    for (const [example, lists] of method.lists) {
      for (const { at, rank } of entries(method, lists[0])) {
        const one = counts.get(at) ?? counts.set(at, { examples: new Set(), best: rank }).get(at);
        one.examples.add(example);
        one.best = Math.min(one.best, rank);
      }
    }
  }
  const table = virtualTable("Neurons", [
    { name: "Neuron", width: 10, cell: (i) => unitLink(data, i), value: (i) => data.units.name[i] },
    { name: "Layer", width: 5, numeric: true, cell: (i) => String(data.units.layer[i]), value: (i) => data.units.layer[i] },
    { name: "Examples", width: 7, numeric: true, cell: (i) => String(counts.get(i).examples.size), value: (i) => counts.get(i).examples.size },
    { name: "Best rank", width: 7, numeric: true, cell: (i) => String(counts.get(i).best), value: (i) => counts.get(i).best },
  ], { sorted: 2, rows: [...counts.keys()] });
  return { element: h("div", {}, h("p", { class: "muted" }, `${counted(counts.size, "unit")} in the lists of ${methods.map((one) => one.name).join(", ")}${data.length < 100 ? `, whose first ${data.length} entries this page keeps` : ""}.`), table.element), ready: table.ready };
};
