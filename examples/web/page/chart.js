// Bits per byte so far along a text, against what zstd needs for all of it.

import { hundredths, whole } from './words.js';

const [LEFT, RIGHT, TOP, BOTTOM] = [26, 90, 8, 22];
const SPACE = 'http://www.w3.org/2000/svg';
// The first bytes say little and would stretch the picture.
const SETTLED = 12;

function draw(name, attributes, text) {
  const node = document.createElementNS(SPACE, name);
  Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
  if (text !== undefined) node.textContent = text;
  return node;
}

export class Chart {
  constructor(svg) {
    this.svg = svg;
    this.clear();
    // Letters keep their size whatever the width is.
    new ResizeObserver(() => this.paint()).observe(svg);
  }

  clear() {
    Object.assign(this, { bits: 0, bytes: 0, points: [], zstd: null });
    this.svg.replaceChildren();
    this.svg.setAttribute('aria-label', '');
  }

  get now() {
    return this.bytes > 0 ? this.bits / this.bytes : null;
  }

  add(cells) {
    for (const cell of cells) {
      this.bits += cell.bits ?? 0;
      this.bytes += cell.bytes;
      if (this.bytes > 0) this.points.push([this.bytes, this.bits / this.bytes]);
    }
    this.paint();
  }

  finish(zstd) {
    this.zstd = zstd;
    this.paint();
    const against = zstd === null ? '' : `, where zstd needs ${hundredths(zstd)}`;
    this.svg.setAttribute('aria-label', `Bits per byte so far, over ${whole(this.bytes)} bytes: ${hundredths(this.now ?? 0)} at the end${against}`);
  }

  paint() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (this.points.length === 0 || width === 0) return;
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const settled = this.points.filter(([bytes]) => bytes >= Math.min(SETTLED, this.bytes));
    const most = settled.reduce((most, [, bpb]) => Math.max(most, bpb), this.zstd ?? 0);
    const top = Math.max(2, Math.ceil(most * 1.05));
    const x = (bytes) => LEFT + (width - LEFT - RIGHT) * bytes / this.bytes;
    const y = (bpb) => height - BOTTOM - (height - TOP - BOTTOM) * Math.min(bpb, top) / top;
    const nodes = [];
    const every = Math.ceil(top / 4);
    for (let bpb = 0; bpb <= top; bpb += every) {
      nodes.push(draw('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y(bpb), y2: y(bpb) }));
      nodes.push(draw('text', { x: LEFT - 8, y: y(bpb) + 4, 'text-anchor': 'end' }, bpb));
    }
    nodes.push(draw('text', { x: width - RIGHT, y: height - 4, 'text-anchor': 'end' }, `${whole(this.bytes)} bytes`));
    // No more points than the picture has room for.
    const skip = Math.ceil(this.points.length / width);
    const shown = this.points.filter((_, i) => i % skip === 0 || i === this.points.length - 1);
    const line = shown.map(([bytes, bpb]) => `${x(bytes).toFixed(1)},${y(bpb).toFixed(1)}`).join(' ');
    const end = y(this.now);
    if (this.zstd !== null) {
      const at = y(this.zstd);
      nodes.push(draw('line', { class: 'zstd', x1: LEFT, x2: width - RIGHT, y1: at, y2: at }));
      const label = Math.abs(at - end) < 16 ? end + (at < end ? -16 : 16) : at;
      nodes.push(draw('text', { x: width - RIGHT + 8, y: label + 4 }, `zstd ${hundredths(this.zstd)}`));
    }
    nodes.push(draw('polyline', { class: 'line', points: line }));
    nodes.push(draw('text', { class: 'end', x: width - RIGHT + 8, y: end + 4 }, `model ${hundredths(this.now)}`));
    this.svg.replaceChildren(...nodes);
  }
}
