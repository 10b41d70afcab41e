// One example: its text and prediction, both lenses side by side, what methods share, layers by best units.

const BEST = 8; // units of each layer in the heat map

const exampleView = (data, state, go) => {
  const { tests } = data;
  const example = tests.place.get(Number(state.test));
  if (example === undefined) return missing(`This page has no ${tests.split} example ${state.test}.`);
  const name = `${tests.split[0].toUpperCase()}${tests.split.slice(1)} example ${tests.index[example]}`;
  const [instances, neurons, units] = ["instance", "neuron", "unit"].map((kind) => (!state.lens || state.lens === kind ? data.of(kind) : []));
  const byInstances = pick(instances, state.instances ?? state.method);
  const byNeurons = pick(neurons, state.method);
  const completion = tests.completion(example);
  const steps = completion.length > 1 ? Math.min(completion.length, Math.max(0, ...neurons.map((one) => one.token?.width ?? 0))) : 0;
  const token = tokenOf(state, steps);
  const parts = [exampleHead(data, example, name, state), exampleBody(data, example, byInstances), steps ? exampleTokens(data, completion, token, steps, state) : ""];
  if (instances.length || neurons.length) {
    parts.push(h("div", { class: `lenses${instances.length && neurons.length ? "" : " one"}` },
      instances.length ? instanceLens(data, example, instances, byInstances, state, go) : "",
      neurons.length ? neuronLens(data, example, neurons, byNeurons, byInstances, state, go, token) : ""));
  }
  parts.push(...data.certificates.map((one) => certificateOf(data, one, example)));
  parts.push(...units.map((method) => builtBy(data, method, example)));
  parts.push(agreement(data, example, instances, "training instances", (at) => trainLink(data, at, { from: tests.index[example] })));
  parts.push(agreement(data, example, neurons, "neurons", (at) => unitLink(data, at)));
  if (byNeurons && listOf(byNeurons, example) !== undefined) parts.push(unitHeat(data, byNeurons, example));
  return h("article", { class: "example", "data-verdict": tests.verdict(example), "data-index": tests.index[example], ...stepsBeside(token, steps, state, true) }, parts);
};

// Tokens of a completion, to step through the neurons of each.
const exampleTokens = (data, completion, token, steps, state) => h("div", {}, completionStrip(completion, token, steps, state, true),
  h("p", { class: "muted" }, token === null ? "Lists are of the whole completion. Choose a token, or step with the keys ← and →, for the listed neurons by their share of it." : "Neurons are ordered by their share of this token, among those that are listed for the whole completion. Lists of training instances are of the whole completion."));

const missing = (sentence) => h("div", {}, h("h2", { tabindex: "-1" }, "Not on this page"), h("p", {}, sentence, " Lists of this page are cut as it says in its overview; the run's files have everything."));

// The method that the address names; else the first that is no control.
const pick = (methods, name) => methods.find((one) => one.name === name) ?? methods.find((one) => !one.control) ?? methods[0];

const exampleHead = (data, example, name, state) => {
  const { tests } = data;
  const verdict = tests.verdict(example);
  const source = tests.source[example];
  const kept = { method: state.method, instances: state.instances, lens: state.lens };
  const looked = data.prompts.find((one) => one.index === tests.index[example]);
  return h("header", {}, h("h2", { tabindex: "-1" }, name), verdict === "unlabelled" ? badge("no label") : badge(verdict, verdict), marksOf(tests.marks(example)),
    source >= 0 && source !== tests.index[example] ? h("span", { class: "muted" }, `row ${source} of the source`) : "",
    looked ? link({ prompt: looked.index, token: looked.steps.length > 1 ? state.token : undefined }, "taken apart as a prompt") : "",
    h("span", { class: "steps" }, example > 0 ? link({ test: tests.index[example - 1], ...kept }, "← previous") : "", " ", example + 1 < tests.size ? link({ test: tests.index[example + 1], ...kept }, "next →") : ""));
};

const exampleBody = (data, example, method) => {
  const { tests } = data;
  const shared = new Set();
  if (method) {
    const own = wordsOfExample(tests, example);
    for (const entry of entries(method, listOf(method, example)).slice(0, 3)) sharedWords(data, own, wordsOfExample(data.train, entry.at)).forEach((word) => shared.add(word));
  }
  const [prediction, label, counts] = [tests.prediction(example), tests.label(example), tests.counts(example)];
  const prob = Number.isFinite(tests.prob[example]) ? shownPercent(tests.prob[example]) : "";
  const folded = counts && counts !== prediction;
  const answered = tests.answered ? [prob ? `, ${tests.completion(example).length > 1 ? "the whole completion" : label ? "the answer" : ""} with ${prob}`.replace(",  with", " with") : ""] : null;
  const said = prediction
    ? ["Predicted ", h("b", { dir: "auto" }, prediction), folded ? [", which counts as ", h("b", {}, counts), ","] : "", prob && !answered ? ` with ${prob}` : "", label ? [", labelled ", h("b", { dir: "auto" }, label)] : "", answered ?? ""]
    : label ? ["Labelled ", h("b", { dir: "auto" }, label), prob ? `, probability ${prob}` : ""] : [];
  return h("div", { class: "verdict" },
    h("div", {}, fields(tests, example, shared), shared.size ? h("p", { class: "muted" }, `Marked: words shared with the first three instances of ${method.name}.`) : ""),
    h("div", {}, h("p", {}, said), h("ul", { class: "bars" }, tests.classes(example).map((one) => h("li", { class: "probability" },
      h("span", { class: !counts && one.name === label ? "given" : "" }, one.name, !counts && one.name === label ? h("span", { class: "muted" }, " label") : ""),
      h("span", { class: "bar", "--w": String(one.prob), "aria-hidden": "true" }), h("span", { class: "num" }, shownPercent(one.prob)))))));
};

// Words of an example that may be marked in its instances.
const wordsToMark = (data, example) => {
  const own = wordsOfExample(data.tests, example);
  return sharedWords(data, own, own);
};

const lens = (data, example, title, methods, method, change) => [h("h3", {}, title),
  h("div", { class: "tools" }, chooser("Method", methods.map((one) => [one.name, one.control ? `${one.name} (control)` : one.name]), method.name, change)),
  aboutOf(method, listOf(method, example)), worthOf(method)];

const instanceLens = (data, example, methods, method, state, go) => h("section", { "data-method": method.name, "aria-label": `Training instances of ${data.tests.split} example ${data.tests.index[example]}` },
  lens(data, example, "Training instances", methods, method, (name) => go({ ...state, instances: name })),
  instanceList(data, method, listOf(method, example), example, new Map(methods.map((one) => [one.name, ranksIn(one, example, COMPARED)])), wordsToMark(data, example), state));

const neuronLens = (data, example, methods, method, behind, state, go, token) => h("section", { "data-method": method.name, "aria-label": `Neurons of ${data.tests.split} example ${data.tests.index[example]}` },
  lens(data, example, "Neurons", methods, method, (name) => go({ ...state, method: name, instances: state.instances ?? behind?.name })),
  unitList(data, method, listOf(method, example), example, new Map(methods.map((one) => [one.name, ranksIn(one, example, COMPARED)])), state, behind, token));

// What a certificate says of this example: predicted and realised change of each part, with the interval.
const PARTS = new Map([["instances", "the instances alone"], ["neurons", "the neurons alone"], ["joint", "both at once"], ["sum", "the two changes, added"]]);
const TRUTHS = new Map([["refit", "the head refitted without the rows"], ["retrained", "the whole model trained without the rows"]]);

const certificateOf = (data, one, example) => {
  const lines = [...(one.lines[example] ?? [])].sort((a, b) => [...PARTS.keys()].indexOf(a[0]) - [...PARTS.keys()].indexOf(b[0]));
  if (!lines.length) return "";
  const title = `Certificate: without its first ${one.removed} instances and ${one.ablated} neurons`;
  return h("section", { "data-certificate": one.name }, h("h3", {}, title),
    h("p", { class: "muted" }, `Change of the answer's log-probability, in nats, by ${one.methods}; intervals that hold ${shownPercent(one.level)} of the changes of other examples.`),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, h("table", { "aria-label": title, "data-csv": `${title} of ${data.tests.split} ${data.tests.index[example]}` },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Without"), h("th", { scope: "col", class: "num" }, "Predicted"), h("th", { scope: "col", class: "num" }, "Interval"), h("th", { scope: "col", class: "num" }, "Realised"), h("th", { scope: "col" }, "Inside"), h("th", { scope: "col" }, "Measured with"))),
      h("tbody", {}, lines.map(([part, truth, predicted, low, high, realised, holds]) => h("tr", {}, h("th", { scope: "row" }, PARTS.get(part) ?? part), h("td", { class: "num" }, shownScore(predicted)), h("td", { class: "num" }, `${shownScore(low)} to ${shownScore(high)}`), h("td", { class: "num" }, h("b", {}, shownScore(realised))), h("td", {}, holds ? "yes" : badge("no", "wrong")), h("td", {}, TRUTHS.get(truth) ?? truth)))))));
};

// Lists of train instances by the units that they built, where the run has them.
const builtBy = (data, method, example) => {
  const lists = method.lists.get(example) ?? [];
  if (!lists.length) return "";
  return h("section", {}, h("h3", {}, `What built its neurons, by ${method.name}`), aboutOf(method, undefined), worthOf(method),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `What built its neurons, by ${method.name}` }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Neuron"), h("th", { scope: "col" }, "Of"), h("th", { scope: "col" }, "First training instances, with scores"))),
      h("tbody", {}, lists.slice(0, 30).map((list) => h("tr", {}, h("th", { scope: "row" }, unitLink(data, method.unit[list])), h("td", { dir: "auto" }, method.target(list)), h("td", {}, entries(method, list).slice(0, 5).map((entry, i) => [i ? ", " : "", trainLink(data, entry.at), ` ${shownScore(entry.score)}`]))))))));
};

const agreement = (data, example, methods, noun, linked) => {
  const pairs = sharedPairs(methods.filter((one) => !one.control), example);
  if (!pairs.length) return "";
  const title = `Which ${noun} two methods share`;
  return h("section", {}, h("h3", {}, title), h("p", { class: "muted" }, `Among the first ${COMPARED} of each list.`),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, h("table", { "aria-label": title },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Methods"), h("th", { scope: "col", class: "num" }, "Shared"), h("th", { scope: "col" }, "Which"))),
      h("tbody", {}, pairs.map(({ a, b, shared }) => h("tr", {}, h("th", { scope: "row" }, `${a}, ${b}`), h("td", { class: "num" }, String(shared.length)), h("td", {}, shared.map((at, i) => [i ? ", " : "", linked(at)]))))))));
};

const unitHeat = (data, method, example) => {
  const found = entries(method, listOf(method, example));
  const layers = Math.max(0, ...data.units.layer) + 1;
  const byLayer = Array.from({ length: layers }, () => []);
  found.forEach((entry) => byLayer[data.units.layer[entry.at]].push(entry));
  const width = Math.min(BEST, Math.max(1, ...byLayer.map((one) => one.length)));
  const grid = (of) => byLayer.map((one) => Array.from({ length: width }, (_, i) => (one[i] ? of(one[i]) : null)));
  return heatFigure({
    title: `Layers by best units, ${method.name}`, caption: `The listed neurons of each layer, best first, with their scores${method.measure ? ` in ${method.measure}` : ""}. Blue is positive, orange negative; cells name the unit.`,
    rows: byLayer.map((_, layer) => `layer ${layer}`), columns: Array.from({ length: width }, (_, i) => String(i + 1)), across: "place", down: "layer", unit: method.measure, relative: false,
    values: grid((entry) => entry.score), texts: grid((entry) => data.units.name[entry.at].replace(/^L\d+ · /, "")),
  });
};
