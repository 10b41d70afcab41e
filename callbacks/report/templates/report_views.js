// What the report shows: lists by the name of their view (`made`), one thing by the name in its address (`VIEWS`).

const made = { prompts: promptsOverview, examples: examplesOverview, instances: instancesOverview, units: unitsOverview };
const VIEWS = { prompt: promptView, test: exampleView, train: instanceView, neuron: neuronView };

const readPage = async () => readIsland(await unpacked("island"));
