// What is shown: the address of the page or, in a notebook's cell, which has none, the last step of a trail.

const START = document.documentElement.dataset.start; // of a cell
const inCell = START !== undefined;
const trail = [START];

const address = () => (inCell ? trail.at(-1) : location.hash.slice(1));

const go = (state) => {
  if (!inCell) { location.hash = addressOf(state); return; }
  visit(addressOf(state).slice(1));
};

const visit = (next) => {
  trail.push(next);
  moved();
};

const moved = () => {
  document.getElementById("back").hidden = trail.length < 2;
  dispatchEvent(new Event("hashchange"));
};

// Links are steps, Back is a button, and whoever holds the frame is told how high it has to be.
const beginCell = () => {
  document.addEventListener("click", (event) => {
    const anchor = event.target.closest("a[href^='#']");
    if (!anchor) return;
    event.preventDefault();
    visit(anchor.getAttribute("href").slice(1));
  });
  document.getElementById("back").addEventListener("click", () => { trail.pop(); moved(); });
  new ResizeObserver(() => parent.postMessage({ twinlensHeight: document.body.offsetHeight }, "*")).observe(document.body);
};
