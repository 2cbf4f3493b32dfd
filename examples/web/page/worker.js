// The model, away from the page: what takes long is done here, one thing after another. Only "stop" is heard between.

import start, { Model, last_words } from './sixpack_web.js';

let model = null;
let stopping = false;
let last = Promise.resolve();

const say = (message) => self.postMessage(message);

// A turn of the event loop, in which "stop" can arrive: a timer would wait for milliseconds. It is taken when the last
// one was a while ago; what has been said since goes out then, in one message.
const PACE = 15;
const turns = new MessageChannel();
const waiting = [];
let last_turn = 0;
turns.port1.onmessage = () => waiting.shift()();
async function turn() {
  if (performance.now() - last_turn < PACE) return;
  flush();
  await new Promise((resolve) => { waiting.push(resolve); turns.port2.postMessage(null); });
  last_turn = performance.now();
}

let unsaid = '';
function flush() {
  if (unsaid) say({ is: 'text', text: unsaid });
  unsaid = '';
}

const TOO_OLD = 'This browser cannot run the program: it has no WebAssembly with vectors. One from 2023 or later can.';
const TOO_LARGE = 'The model does not fit into the memory of this page. Close other tabs, or pick a smaller model.';

const program = start({ module_or_path: new URL('sixpack_web_bg.wasm', import.meta.url) }).catch((error) => {
  throw error instanceof WebAssembly.CompileError || error instanceof ReferenceError ? new Error(TOO_OLD)
    : new Error(`The program of this page could not be loaded. (${error.message})`);
});

const verbs = {
  async open({ blob, device }) {
    let bytes;
    try {
      bytes = new Uint8Array(await blob.arrayBuffer());
    } catch (error) {
      throw new Error(error instanceof RangeError ? TOO_LARGE : `The file cannot be read. (${error.message})`);
    }
    model?.free();
    model = null;
    model = await Model.open(bytes, device, turn);
    return JSON.parse(model.about());
  },

  async write(order) {
    const begun = performance.now();
    let first = 0;
    const written = await model.write(JSON.stringify(order), (text) => {
      // Without text it is the prompt that was read.
      if (text) first ||= performance.now();
      unsaid += text;
      return !stopping;
    });
    flush();
    const seconds = (performance.now() - first) / 1000;
    const result = JSON.parse(written);
    return { ...result, tokens: result.ids.length, seconds, wait: (first - begun) / 1000, stopped: stopping };
  },

  async read({ text }) {
    const begun = performance.now();
    const read = await model.read(text, (cells) => {
      say({ is: 'cells', cells: JSON.parse(cells) });
      return !stopping;
    });
    return { ...JSON.parse(read), seconds: (performance.now() - begun) / 1000, stopped: stopping };
  },
};

async function obey({ verb, ...what }) {
  stopping = false;
  unsaid = '';
  try {
    await program;
    const result = await verbs[verb](what);
    say({ is: 'done', verb, result, device: model.device() });
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError || error instanceof RangeError) collapse(error);
    else say({ is: 'failed', verb, words: error?.message ?? String(error) });
  }
}

// The program has stopped in the middle of something and cannot go on: the page starts another worker.
function collapse(error) {
  let words;
  try { words = last_words(); } catch { words = undefined; }
  const bug = words ?? (error instanceof WebAssembly.RuntimeError && !/unreachable|memory/i.test(error.message) ? error.message : null);
  say({ is: 'collapsed', words: bug ? `The program has failed, and this is its fault. (${bug})` : TOO_LARGE });
}

self.onmessage = ({ data }) => {
  if (data.verb === 'stop') stopping = true;
  else last = last.then(() => obey(data));
};
// Where a promise of the program's own is cut off, nobody hears of the error but these.
for (const [name, what] of [['error', 'error'], ['unhandledrejection', 'reason']]) {
  self.addEventListener(name, (event) => {
    if (!(event[what] instanceof WebAssembly.RuntimeError)) return;
    event.preventDefault();
    collapse(event[what]);
  });
}

program.then(() => say({ is: 'ready' }), (error) => say({ is: 'failed', verb: 'start', words: error.message }));
