// A text, token by token, coloured by its bits: a cell for each, one of which the reader looks at.

import { chance, hundredths, plural, tenths, visible } from './words.js';

// From so many bits on a cell has the next step of colour.
const STEPS = [0.5, 1, 2, 4, 6, 9, 12];

const step = (bits) => STEPS.filter((least) => bits >= least).length;

export class Heat {
  constructor(box, line, legend) {
    Object.assign(this, { box, line, cells: [], now: -1 });
    box.addEventListener('keydown', (event) => this.#key(event));
    box.addEventListener('pointerover', ({ target }) => { if (target.dataset.at) this.look(Number(target.dataset.at)); });
    box.addEventListener('click', ({ target }) => { if (target.dataset.at) this.look(Number(target.dataset.at)); });
    box.addEventListener('focus', () => { if (this.now < 0 && this.cells.length > 0) this.look(0); });
    const names = ['0', '½', ...STEPS.slice(1)].map(String);
    legend.replaceChildren(...names.map((name, i) => {
      const item = document.createElement('li');
      item.className = `h${i}`;
      item.textContent = i === STEPS.length ? `${name} bits` : name;
      return item;
    }));
  }

  clear() {
    this.cells = [];
    this.now = -1;
    this.box.replaceChildren();
    this.line.textContent = '';
  }

  add(cells) {
    const spans = cells.map((cell, i) => {
      const span = document.createElement('span');
      span.dataset.at = this.cells.length + i;
      span.className = `cell h${cell.bits === null ? 0 : step(cell.bits)}`;
      span.textContent = cell.text.replaceAll('\n', '↵\n');
      return span;
    });
    this.cells.push(...cells);
    this.box.append(...spans);
  }

  // The cell the reader looks at, in words.
  look(at) {
    if (at < 0 || at >= this.cells.length) return;
    this.box.children[this.now]?.classList.remove('now');
    this.now = at;
    const span = this.box.children[at];
    span.classList.add('now');
    const { text, bits, tokens } = this.cells[at];
    const quoted = document.createElement('q');
    quoted.textContent = visible(text);
    const together = tokens > 1 ? ` (${plural(tokens, 'token')} together)` : '';
    const cost = bits === null ? ' is the first: nothing to expect it from' : ` cost ${hundredths(bits)} bits${together}: the model gave it a chance of ${chance(bits)}`;
    this.line.replaceChildren(quoted, cost);
  }

  #key(event) {
    const to = { ArrowRight: this.now + 1, ArrowDown: this.now + 1, ArrowLeft: this.now - 1, ArrowUp: this.now - 1, Home: 0, End: this.cells.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.look(to);
    this.box.children[this.now]?.scrollIntoView({ block: 'nearest' });
  }

  // In words, for who does not see it.
  summary() {
    const most = this.cells.reduce((a, b) => ((b.bits ?? 0) > (a?.bits ?? 0) ? b : a), null);
    return most ? `The least expected was “${visible(most.text).trim()}” with ${tenths(most.bits)} bits.` : '';
  }
}
