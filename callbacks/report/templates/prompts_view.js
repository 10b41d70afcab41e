// Prompts that were looked into: tokens, log-probability by layer, heads by position, neurons, what editing one does.

const promptName = (prompt) => `${prompt.steps[0].tokens.map(([text]) => text).join("").trim().slice(-60)} → ${prompt.steps[0].target.trim()}`;

const promptsOverview = (data) => {
  const { prompts } = data;
  const listed = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Prompts" }, h("table", { "aria-label": "Prompts", "data-csv": "prompts" },
    h("thead", {}, h("tr", {}, ["Example", "Prompt", "Answer", "Probability", "Tokens"].map((name, c) => h("th", { scope: "col", class: c > 2 ? "num" : "" }, name)))),
    h("tbody", {}, prompts.map((prompt) => h("tr", {}, h("th", { scope: "row" }, link({ prompt: prompt.index }, `${data.tests.split} ${prompt.index}`)), h("td", {}, h("bdi", {}, prompt.steps[0].tokens.map(([text]) => text).join(""))),
      h("td", {}, namedToken([prompt.steps[0].target, prompt.steps[0].id])), h("td", { class: "num" }, shownProbability(prompt.steps[0].log_prob.at(-1))), h("td", { class: "num" }, String(prompt.steps.length)))))));
  const element = h("div", {}, prompts.length > 1 ? listed : promptArticle(data, prompts[0], {}, "h3"));
  finishTables(element);
  return { element, ready: () => {} };
};

const promptView = (data, state) => {
  const prompt = data.prompts.find((one) => one.index === Number(state.prompt));
  if (!prompt) return missing(`No prompt of ${data.tests.split} example ${state.prompt} was looked into.`);
  const article = promptArticle(data, prompt, state, "h2");
  finishTables(article);
  return article;
};

const promptArticle = (data, prompt, state, level) => {
  const steps = prompt.steps.length;
  const own = { ...state, prompt: prompt.index };
  const chosen = tokenOf(state, steps) ?? 0;
  const step = prompt.steps[chosen];
  const at = data.prompts.indexOf(prompt);
  const beside = [[data.prompts[at - 1], "← previous prompt"], [data.prompts[at + 1], "next prompt →"]].filter(([one]) => one && data.prompts.length > 1);
  const [last, first] = [step.log_prob.at(-1) ?? NaN, step.log_prob[0] ?? NaN];
  return h("article", { class: "example prompt", "data-index": prompt.index, ...stepsBeside(chosen, steps, own, false) },
    h("header", {}, h(level, { tabindex: "-1" }, steps > 1 ? `Prompt ${prompt.index}, token ${chosen + 1} of its completion` : `Prompt ${prompt.index}`),
      data.tests.place.has(prompt.index) ? h("span", {}, "lists of all methods: ", testLink(data, data.tests.place.get(prompt.index), steps > 1 ? { token: chosen + 1 } : {})) : "",
      h("span", { class: "steps" }, beside.map(([one, said], i) => [i ? " " : "", link({ prompt: one.index }, said)]))),
    h("div", { class: "strip" }, tokenChips(step.tokens.slice(0, step.tokens.length - chosen)), completionBehind(prompt, chosen, steps, own)),
    steps > 1 ? h("p", { class: "muted" }, `Every token of the completion by itself, behind the ones before it${prompt.completion.length > steps ? `; the first ${steps} of ${prompt.completion.length} were looked into` : ""}. The keys ← and → step through them.`) : "",
    h("p", {}, namedToken([step.target, step.id]), `: ${shownProbability(last)} (log-probability ${shownScore(last)} nats)`, step.others.length ? [". Best other tokens: ", othersLine(step.others)] : "", "."),
    h("div", { class: "pair" }, stepFigures(data, step, first, last)),
    recordNote(step), step.neurons.map((kind) => promptNeurons(data, kind, step)));
};

const completionBehind = (prompt, chosen, steps, own) => (steps > 1
  ? completionStrip(prompt.completion, chosen, steps, own, false)
  : [h("span", { "aria-hidden": "true" }, "→"), h("span", { class: "chips" }, h("bdi", { class: "token answer" }, shownToken(prompt.steps[0].target)))]);

const othersLine = (others) => others.map(([text, number, logProb], i) => [i ? ", " : "", h("bdi", { title: `token ${number}` }, shownToken(text)), ` ${shownProbability(logProb)}`]);

// Of a log-probability in nats; one that rounds to nothing is still one.
const shownProbability = (logProb) => {
  const value = Math.exp(logProb ?? NaN);
  return value > 0 && value < 0.0005 ? "< 0.1\u00a0%" : shownPercent(value);
};

const stepFigures = (data, step, first, last) => {
  const layers = step.log_prob.map((_, layer) => String(layer));
  const named = new Map(step.heads);
  const width = Math.max(0, ...step.heads.map(([head]) => Number(head.split(".")[1]) + 1));
  const heads = layers.map((layer) => Array.from({ length: width }, (_, head) => named.get(`a${layer}.${head}`) ?? null));
  return [
    figure({
      title: "Log-probability of the answer after each layer", caption: "The final log-probability less what later layers add (logit lens), in nats.", said: `From ${shownScore(first)} after layer 0 to ${shownScore(last)}. The numbers are in the CSV file below.`, height: 260,
      make: (ink, grid) => ({ data: [drawnLine({ name: step.target, x: layers.map(Number), y: step.log_prob, error: [], colour: "#0072B2", line: "solid", markers: true }, 0)], layout: { xaxis: { ...axis("layer", ink, grid), ...(layers.length <= 16 ? { dtick: 1 } : {}) }, yaxis: axis("nats", ink, grid) } }),
      lines: [["layer", "log-probability"], ...step.log_prob.map((value, layer) => [layer, value])],
    }),
    heatFigure({ title: "What each layer adds", caption: "Attention and feed-forward outputs, in nats. Blue raises the answer, orange lowers it.", rows: ["attention", "feed-forward"], columns: layers, across: "layer", down: "output", unit: "nats", values: [step.attention, step.ffn], relative: false }),
    heatFigure({ title: "What each head adds", caption: "Layers by heads, in nats.", rows: layers.map((layer) => `layer ${layer}`), columns: Array.from({ length: width }, (_, head) => String(head)), across: "head", down: "layer", unit: "nats", values: heads, relative: false }),
    step.positions.length ? heatFigure({ title: "Best heads by position", caption: "What a head adds from each token, in nats.", rows: step.positions.map(([head]) => head), columns: step.tokens.map(([text], number) => `${number} ${text.trim()}`), across: "token", down: "head", unit: "nats", values: step.positions.map(([, values]) => values), relative: false }) : "",
  ];
};

const FACTOR_WORDS = new Map([[0, "off"], [2, "doubled"], [-1, "turned round"]]);
const factorName = (factor) => `×${shownScore(factor)}`;

const recordNote = (step) => {
  const count = step.neurons.reduce((sum, kind) => sum + kind.listed.filter(([, , , edits]) => edits.length).length, 0);
  const words = step.factors.map((factor) => `${factorName(factor)}${FACTOR_WORDS.has(factor) ? ` (${FACTOR_WORDS.get(factor)})` : ""}`).join(", ");
  return h("p", { class: "note" }, count
    ? [h("b", {}, "Recorded: "), `for ${counted(count, "listed neuron")}, what the run saw when each alone was set to ${words} at every token, by a forward of its own. A button has the change of the answer's log-probability in nats; press it for what the model then says. Nothing is computed in this page, and nothing is known of other neurons or of two at once.`]
    : "What happens when a neuron is edited was not recorded in this run.");
};

const promptNeurons = (data, { title, listed }, step) => (listed.length ? h("section", {}, h("h3", {}, title),
  h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, h("table", { class: "neurons", "aria-label": title, "data-csv": title },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Neuron"), h("th", { scope: "col", class: "num" }, "Adds (nats)"), h("th", { scope: "col" }, step.factors.length ? "Words that its value raises; set to, as recorded" : "Words that its value raises"))),
    h("tbody", {}, listed.map((neuron) => neuronRow(data, neuron, step)))))) : "");

const neuronRow = (data, [name, score, words, edits], step) => {
  const said = h("output", { class: "recorded" });
  const buttons = edits.map(([logProb], i) => h("button", {
    type: "button", class: "save", "aria-pressed": "false", "aria-label": `${name} set to ${factorName(step.factors[i])}, as recorded`,
    onclick: (event) => {
      const on = event.currentTarget.getAttribute("aria-pressed") !== "true";
      buttons.forEach((button) => button.setAttribute("aria-pressed", "false"));
      event.currentTarget.setAttribute("aria-pressed", String(on));
      said.replaceChildren(...(on ? recordedOutcome(step, step.factors[i], edits[i]) : []));
    },
  }, `${factorName(step.factors[i])} ${signed((logProb ?? NaN) - (step.log_prob.at(-1) ?? NaN))}`));
  return h("tr", {}, h("th", { scope: "row" }, promptNeuron(data, name)), h("td", { class: "num" }, shownScore(score ?? NaN)), h("td", {}, h("div", { class: "edited" }, wordChips(words),
    step.factors.length ? (buttons.length ? h("span", { class: "chips" }, buttons) : h("span", { class: "muted" }, "not recorded")) : ""), said));
};

const signed = (value) => (Number.isFinite(value) ? `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}` : shownScore(value));

const recordedOutcome = (step, factor, [logProb, others]) => [
  `Recorded at ${factorName(factor)}: `, ...namedToken([step.target, step.id]),
  ` ${shownProbability(step.log_prob.at(-1))} → ${shownProbability(logProb)}. Best other tokens: `, ...othersLine(others).flat(), ".",
].filter((part) => part !== "");

// `f3.17` is feed-forward neuron 17 of layer 3: a link where this page knows it.
const promptNeuron = (data, name) => {
  const unit = name.startsWith("f") ? data.units.place.get(`ffn.${name.slice(1)}`) : undefined;
  return unit === undefined ? name : unitLink(data, unit);
};

// Where prompts list a neuron: [prompt, step, list, rank, what it adds].
const inPrompts = (data, key) => data.prompts.flatMap((prompt) => prompt.steps.flatMap((step, number) => step.neurons.flatMap(({ title, listed }) => listed
  .map(([name, score], i) => ({ name, score, rank: i + 1 })).filter(({ name }) => name.startsWith("f") && `ffn.${name.slice(1)}` === key)
  .map(({ score, rank }) => ({ prompt, step, number, title, rank, score })))));
