// The runs of a comparison: each one's own data, and what they have in common, by the places of runs and of rows.

const readPage = async () => {
  const { header, column, words } = readBlock(await unpacked("island"));
  const runs = await Promise.all(header.runs.map(async (run, place) => ({ ...run, place, home: run.report, ...readIsland(await unpacked(`run${run.letter}`)) })));
  const [tests, train] = [header.tests.map(column), header.train.map(column)];
  runs.forEach((run, place) => {
    run.example = (row) => run.tests.place.get(tests[place][row]); // place of a common example in the run's own data
    run.common = new Map(Array.from(train[place], (index, number) => [run.train.place.get(index), number])); // of a train instance
  });
  const packed = header.numbers;
  const read = readNumbers(packed, column, words);
  const numbers = {
    ...read,
    value: read.grid("value", runs.length), error: read.grid("stderr", runs.length),
    difference: read.grid("difference", runs.length - 1), differenceError: read.grid("difference_error", runs.length - 1), paired: read.grid("paired", runs.length - 1),
  };
  const shared = header.shared.map((one) => ({ ...one, value: column(one.value)[0], error: column(one.value)[1], each: one.each && column(one.each) }));
  return { charts: header.charts, runs, size: tests[0].length, index: tests[0], same: column(header.same), numbers, shared, settings: header.settings, oneModel: header.one_model };
};

const letters = (data, one) => `${data.runs[one.first].letter} and ${data.runs[one.second].letter}`;

// Shares of the first ten entries on each example, a column for every method and two runs.
const perExample = (data) => data.shared.filter((one) => one.each).map((one) => ({ ...one, name: data.runs.length > 2 ? `${one.method}, ${letters(data, one)}` : one.method }));

const comparedLink = (data, row, state = {}) => link({ test: data.index[row], ...state }, `${data.runs[0].tests.split} ${data.index[row]}`);
