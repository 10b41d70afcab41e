// One unit: the examples and train instances that share it, the texts that activate it most, the data that built it.

const neuronView = (data, state) => {
  const unit = data.units.place.get(state.neuron);
  if (unit === undefined) return missing(`No list of this page names the unit ${state.neuron}.`);
  const found = data.of("neuron").flatMap((method) => namedIn(method, unit).map((one) => ({ ...one, method })));
  const own = acting(data).flatMap((method) => namedIn(method, unit).map((one) => ({ ...one, method })));
  const passages = data.units.passages[unit] ?? [];
  const from = data.tests.place.get(Number(state.from ?? NaN));
  const tests = new Set(found.map((one) => one.example)).size;
  const name = data.units.name[unit];
  return h("article", { class: "example", "data-unit": state.neuron },
    h("header", {}, h("h2", { tabindex: "-1" }, `Neuron ${name}`), h("span", { class: "muted" }, `layer ${data.units.layer[unit]}`)),
    h("p", {}, `It stands in the lists of ${counted(tests, `${data.tests.split} example`)} of ${data.tests.size}`, acting(data).length ? ` and of ${counted(new Set(own.map((one) => one.example)).size, "training instance")}` : "", ".",
      from === undefined ? "" : [" From ", testLink(data, from, { method: state.method }), "."]),
    labelCounts(data, found),
    data.units.words[unit] ? h("p", {}, "Its value raises most: ", wordChips(data.units.words[unit])) : "",
    promptsOf(data, state.neuron),
    h("section", {}, h("h3", {}, "Examples that share it"), virtualTable(`Examples that share ${name}`, [
      { name: "Example", width: 7, cell: (i) => testLink(data, found[i].example, { method: found[i].method.name }), value: (i) => data.tests.index[found[i].example] },
      { name: "Method", width: 9, cell: (i) => found[i].method.name, value: (i) => found[i].method.name },
      { name: "Rank", width: 5, numeric: true, cell: (i) => String(found[i].rank), value: (i) => found[i].rank },
      { name: "Score", width: 6, numeric: true, cell: (i) => shownScore(found[i].score), value: (i) => found[i].score },
      { name: "Towards", width: 9, cell: (i) => h("span", { dir: "auto" }, found[i].method.target(found[i].list)), value: (i) => found[i].method.target(found[i].list) },
      { name: "Text", width: 22, cell: (i) => h("span", { dir: "auto" }, data.tests.brief(found[i].example)), csv: (i) => data.tests.brief(found[i].example, Infinity) },
    ], { rows: found.map((_, i) => i), sorted: 2, falling: false, height: 10 }).element),
    acting(data).length ? h("section", {}, h("h3", {}, "Training instances that share it"), virtualTable(`Training instances that share ${name}`, [
      { name: "Instance", width: 7, cell: (i) => trainLink(data, own[i].example), value: (i) => data.train.index[own[i].example] },
      { name: "Method", width: 9, cell: (i) => own[i].method.name, value: (i) => own[i].method.name },
      { name: "Rank", width: 5, numeric: true, cell: (i) => String(own[i].rank), value: (i) => own[i].rank },
      { name: "Score", width: 6, numeric: true, cell: (i) => shownScore(own[i].score), value: (i) => own[i].score },
      { name: "Label", width: 9, cell: (i) => data.train.label(own[i].example), value: (i) => data.train.label(own[i].example) },
      { name: "Text", width: 22, cell: (i) => h("span", { dir: "auto" }, data.train.brief(own[i].example)), csv: (i) => data.train.brief(own[i].example, Infinity) },
    ], { rows: own.map((_, i) => i), sorted: 2, falling: false, height: 8 }).element) : "",
    passages.length ? h("section", {}, h("h3", {}, "Training texts that activate it most"), passages.map((passage) => passageLine(data, passage))) : "",
    data.of("unit").map((method) => builtFrom(data, method, unit, name)), building(data).map((method) => builtItMost(data, method, unit, name)));
};

// The instances among whose most built units it stands.
const builtItMost = (data, method, unit, name) => {
  const found = namedIn(method, unit);
  return h("section", {}, h("h3", {}, `Training instances that built it more than other units, by ${method.name}`), virtualTable(`Training instances that built ${name} by ${method.name}`, [
    { name: "Instance", width: 7, cell: (i) => trainLink(data, found[i].example), value: (i) => data.train.index[found[i].example] },
    { name: "Rank", width: 5, numeric: true, cell: (i) => String(found[i].rank), value: (i) => found[i].rank },
    { name: "Score", width: 6, numeric: true, cell: (i) => shownScore(found[i].score), value: (i) => found[i].score },
    { name: "Label", width: 9, cell: (i) => data.train.label(found[i].example), value: (i) => data.train.label(found[i].example) },
    { name: "Text", width: 22, cell: (i) => h("span", { dir: "auto" }, data.train.brief(found[i].example)), csv: (i) => data.train.brief(found[i].example, Infinity) },
  ], { rows: found.map((_, i) => i), sorted: 2, height: 8, empty: `It stands in no kept list of ${method.name}.` }).element);
};

// The prompts that list it, best places first.
const promptsOf = (data, key) => {
  const found = inPrompts(data, key).sort((a, b) => a.rank - b.rank).slice(0, 20);
  return found.length ? h("p", {}, "Prompts that list it: ", found.map(({ prompt, step, number, title, rank, score }, i) => [i ? ", " : "",
    link({ prompt: prompt.index, token: prompt.steps.length > 1 ? number + 1 : undefined }, `${prompt.index} → ${shownToken(step.target).trim()}`), ` (${title.toLowerCase().replace("ffn", "FFN")} #${rank}, ${shownScore(score ?? NaN)} nats)`]), ".") : "";
};

// What the explained outputs of its lists are: the classes that it is listed for.
const labelCounts = (data, found) => {
  const counts = new Map();
  for (const one of found) {
    const target = one.method.control ? "" : one.method.target(one.list);
    if (target) counts.set(target, (counts.get(target) ?? 0) + 1);
  }
  const most = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 6);
  return most.length ? h("p", {}, "Listed towards ", most.map(([name, count], i) => [i ? ", " : "", h("b", { dir: "auto" }, name), ` (${count})`]), ".") : "";
};

const MOST = 5; // instances of a list that are counted and shown

// Over all lists of a unit: the instances that stand first in most of them, then every list in a line.
const builtFrom = (data, method, unit, name) => {
  const lists = Array.from(method.unit.keys()).filter((list) => method.unit[list] === unit);
  const firsts = lists.map((list) => entries(method, list).slice(0, MOST));
  const counts = new Map();
  for (const { at } of firsts.flat()) counts.set(at, (counts.get(at) ?? 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1]).slice(0, MOST);
  return h("section", { "data-method": method.name }, h("h3", {}, `The data that built it, by ${method.name}`), lists.length ? [
    h("ol", { class: "list" }, most.map(([at, count], i) => h("li", {}, h("span", { class: "rank" }, String(i + 1)), h("div", {}, h("span", { class: "quote", dir: "auto" }, data.train.brief(at)), trainLink(data, at), " ", h("span", { class: "muted" }, `among the first ${MOST} of ${count} of ${counted(lists.length, "list")}`))))),
    virtualTable(`What built ${name}, by ${method.name}`, [
      { name: "Example", width: 6.5, cell: (i) => testLink(data, method.row[lists[i]]), value: (i) => data.tests.index[method.row[lists[i]]] },
      { name: "First training instances", width: 22, cell: (i) => firsts[i].map(({ at }, k) => [k ? ", " : "", trainLink(data, at)]), csv: (i) => firsts[i].map(({ at }) => data.train.index[at]).join(" ") },
      { name: "Of", width: 20, cell: (i) => h("span", { dir: "auto" }, method.target(lists[i])), value: (i) => method.target(lists[i]) },
    ], { rows: lists.map((_, i) => i), height: 8 }).element] : h("p", { class: "muted" }, `${method.name} was not asked about ${name}.`));
};
