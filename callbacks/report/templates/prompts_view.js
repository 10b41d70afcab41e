// Prompts that were looked into: tokens, log-probability by layer, heads by position, neurons with their words.

const wordChips = (words) => h("span", { class: "chips" }, words.map((word) => h("bdi", { class: "token" }, word.trim() ? word : JSON.stringify(word))));

const promptsOverview = (data) => {
  const place = h("div");
  const show = (number) => {
    place.replaceChildren(...promptParts(data, data.prompts[number]).filter(Boolean));
    finishTables(place);
  };
  const name = (prompt) => `${prompt.tokens.join("").trim().slice(-60)} → ${prompt.target.trim()}`;
  const choose = data.prompts.length > 1 ? h("div", { class: "tools" }, chooser("Prompt", data.prompts.map((prompt, number) => [String(number), name(prompt)]), "0", (number) => show(Number(number)))) : "";
  show(0);
  return { element: h("div", {}, choose, place), ready: () => {} };
};

const promptParts = (data, prompt) => {
  const layers = prompt.log_prob.map((_, layer) => String(layer));
  const named = new Map(prompt.heads);
  const width = Math.max(0, ...prompt.heads.map(([head]) => Number(head.split(".")[1]) + 1));
  const heads = layers.map((layer) => Array.from({ length: width }, (_, head) => named.get(`a${layer}.${head}`) ?? null));
  const last = prompt.log_prob.at(-1);
  return [
    h("p", {}, wordChips(prompt.tokens), " → ", h("b", {}, h("bdi", {}, prompt.target)), `, probability ${shownPercent(Math.exp(last))}`),
    figure({
      title: "Log-probability of the answer after each layer", caption: "The final log-probability less what later layers add (logit lens), in nats.", said: `From ${shownScore(prompt.log_prob[0])} after layer 0 to ${shownScore(last)}. The numbers are in the CSV file below.`, height: 320,
      make: (ink, grid) => ({ data: [drawnLine({ name: prompt.target, x: layers.map(Number), y: prompt.log_prob, error: [], colour: "#0072B2", line: "solid", markers: true }, 0)], layout: { xaxis: { ...axis("layer", ink, grid), dtick: 1 }, yaxis: axis("nats", ink, grid) } }),
      lines: [["layer", "log-probability"], ...prompt.log_prob.map((value, layer) => [layer, value])],
    }),
    heatFigure({ title: "What each layer adds", caption: "Attention and feed-forward outputs, in nats. Blue raises the answer, orange lowers it.", rows: ["attention", "feed-forward"], columns: layers, across: "layer", down: "output", unit: "nats", values: [prompt.attention, prompt.ffn], relative: false }),
    heatFigure({ title: "What each head adds", caption: "Layers by heads, in nats.", rows: layers.map((layer) => `layer ${layer}`), columns: Array.from({ length: width }, (_, head) => String(head)), across: "head", down: "layer", unit: "nats", values: heads, relative: false }),
    prompt.positions.length ? heatFigure({ title: "Best heads by position", caption: "What a head adds from each token, in nats.", rows: prompt.positions.map(([head]) => head), columns: prompt.tokens.map((token, number) => `${number} ${token.trim()}`), across: "token", down: "head", unit: "nats", values: prompt.positions.map(([, values]) => values), relative: false }) : "",
    ...prompt.neurons.map(({ title, listed }) => (listed.length ? h("section", {}, h("h3", {}, title), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, h("table", { "aria-label": title, "data-csv": title },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Neuron"), h("th", { scope: "col", class: "num" }, "Adds (nats)"), h("th", { scope: "col" }, "Words that its value raises"))),
      h("tbody", {}, listed.map(([name, score, words]) => h("tr", {}, h("th", { scope: "row" }, promptNeuron(data, name)), h("td", { class: "num" }, shownScore(score)), h("td", {}, wordChips(words)))))))) : "")),
  ];
};

// `f3.17` is feed-forward neuron 17 of layer 3: a link where a list of this page names it.
const promptNeuron = (data, name) => {
  const unit = name.startsWith("f") ? data.units.place.get(`ffn.${name.slice(1)}`) : undefined;
  return unit === undefined ? name : unitLink(data, unit);
};
