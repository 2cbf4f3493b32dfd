// The page: what is typed and picked goes to the worker, what comes back is shown. Where the server runs the model, what
// asks it takes the worker's place.

import { Chart } from './chart.js';
import { Heat } from './heat.js';
import { Remote } from './remote.js';
import { hundredths, megabytes, millions, plural, speed, whole } from './words.js';

const $ = (id) => document.getElementById(id);
const heat = new Heat($('heat'), $('token'), $('legend'));
const chart = new Chart($('chart'));

// What was picked: its name, and its bytes for the day the worker has to start anew.
let picked = null;
let worker = null;
// The model that the server runs, and where to ask it, if this browser does not run one.
let served = null;
// What the worker is doing: a verb, or nothing.
let doing = 'start';
let open = false;

const status = (words) => { $('status').textContent = words; };
function problem(words) {
  $('problem').textContent = words ?? '';
  $('problem').hidden = !words;
}

function begin(verb, words) {
  doing = verb;
  problem(null);
  status(words);
  refresh();
}

function refresh() {
  const able = open && doing === null;
  $('go-write').disabled = $('go-read').disabled = !able;
  $('stop-write').disabled = doing !== 'write';
  $('stop-read').disabled = doing !== 'read';
  $('device').disabled = doing !== null;
  $('file').disabled = doing !== null && doing !== 'start';
  document.querySelectorAll('.offers button').forEach((button) => { button.disabled = doing !== null && doing !== 'start'; });
  $('written').setAttribute('aria-busy', String(doing === 'write'));
}

function employ() {
  worker?.terminate();
  worker = served ? new Remote(served) : new Worker('worker.js', { type: 'module' });
  worker.onmessage = ({ data }) => hear(data);
  // Errors of the model arrive as messages; this one is of the worker's own files.
  worker.onerror = (event) => { if (doing === 'start') fail(`The program of this page could not be loaded. (${event.message ?? 'a file of it is missing'})`); };
}

function hear(message) {
  switch (message.is) {
    case 'ready': if (doing === 'start') { doing = null; picked ? load() : status('Pick a model to begin.'); refresh(); } break;
    case 'text': $('continuation').append(message.text); $('written').scrollTop = $('written').scrollHeight; break;
    case 'cells': heat.add(message.cells); chart.add(message.cells); count(); break;
    case 'done': doing = null; shown[message.verb](message.result); runs(message); refresh(); break;
    case 'failed': fail(message.words, message.verb === 'open'); break;
    case 'collapsed': collapse(message.words); break;
  }
}

function fail(words, lost = false) {
  doing = null;
  if (lost) { open = false; picked = null; $('loaded').hidden = true; }
  status(open ? 'Ready.' : 'Pick a model to begin.');
  problem(words);
  refresh();
}

// A worker that has collapsed is replaced, and given the model again unless the model was the reason.
function collapse(words) {
  const lost = doing === 'open';
  fail(words, lost);
  open = false;
  doing = 'start';
  employ();
  refresh();
}

const NO_PROGRAM = 'A file of yours cannot be opened here: the server runs its own model, and this page came without the program that runs one in the browser. “sixpack serve” with “--page” has it.';

function pick_own(file) {
  if (served) problem(NO_PROGRAM);
  else pick(file.name, file);
}

function pick(name, blob) {
  picked = { name, blob };
  if (doing === 'start') status('Starting…');
  else load();
}

function load() {
  begin('open', `Opening ${picked.name}…`);
  open = false;
  refresh();
  worker.postMessage({ verb: 'open', blob: picked.blob, device: $('device').value });
}

const DEVICES = { cpu: 'the processor', webgpu: 'the GPU, through WebGPU', server: 'the server' };

const shown = {
  open(about) {
    open = true;
    $('loaded').hidden = false;
    $('name').textContent = picked.name;
    $('size').replaceChildren(megabytes(about.bytes), small(`${whole(about.bytes)} bytes, all included`));
    const scored = about.bits_per_byte ?? null;
    $('score').replaceChildren(scored === null ? 'not measured' : hundredths(scored), small(scored === null ? 'this file has no score in it' : 'bits per byte of unseen text'));
    $('shape').replaceChildren(`${millions(about.parameters)}`, small(`parameters: ${about.layers} layers of ${about.width}, ${whole(about.vocabulary)} pieces of text, ${whole(about.context)} at once`));
    status('Ready.');
  },
  write(result) {
    window.sixpack.written = result;
    const rate = result.tokens > 1 ? (result.tokens - 1) / result.seconds : null;
    $('write-figures').textContent = `${plural(result.tokens, 'token')}${rate ? `, ${speed(rate)}` : ''}`;
    status(result.stopped ? 'Stopped.' : 'Written.');
  },
  read(result) {
    window.sixpack.read = result;
    bars(result);
    count(result.seconds);
    status(`${result.stopped ? 'Stopped' : 'Measured'}: ${hundredths(result.bits_per_byte ?? 0)} bits per byte over ${whole(result.bytes)} bytes. ${heat.summary()}`);
  },
};

// What the model runs on, and why.
function runs({ verb, device, result }) {
  const before = document.documentElement.dataset.device;
  document.documentElement.dataset.device = device;
  const why = verb === 'open' ? result.why : before === device ? null : 'the GPU was lost';
  if (verb === 'open' || before !== device) $('device-why').textContent = `Now on ${DEVICES[device]}${why ? `: ${why}` : ''}.`;
}

function count(seconds) {
  const tokens = heat.cells.reduce((sum, cell) => sum + cell.tokens, 0);
  const rate = seconds ? `, ${speed(tokens / seconds)}` : '';
  $('read-figures').textContent = `${plural(tokens, 'token')}${rate}, ${hundredths(chart.now ?? 0)} bits per byte`;
}

function bars({ bytes, bits_per_byte, zstd_bytes, text_bytes, stopped }) {
  const zstd = text_bytes > 0 && zstd_bytes !== null ? 8 * zstd_bytes / text_bytes : null;
  chart.finish(zstd);
  const others = [['as it is', text_bytes, 8], ['zstd, level 22', zstd_bytes, zstd]].filter(([, size]) => size !== null);
  const rows = [...others, ['this model', bytes * (bits_per_byte ?? 0) / 8, bits_per_byte]];
  $('bars').replaceChildren(...rows.map(([name, size, bpb], i) => {
    const row = document.createElement('tr');
    if (i === others.length) row.className = 'ours';
    const head = Object.assign(document.createElement('th'), { scope: 'row', textContent: name });
    const cells = [whole(Math.ceil(size)), bpb === null ? '–' : hundredths(bpb)].map((text) => Object.assign(document.createElement('td'), { textContent: text }));
    const bar = Object.assign(document.createElement('progress'), { max: 8, value: Math.min(8, bpb ?? 0), ariaHidden: 'true' });
    const last = document.createElement('td');
    last.append(bar);
    row.append(head, ...cells, last);
    return row;
  }));
  $('bars-note').textContent = `The model’s bytes are what an arithmetic coder would need with its expectations, the model itself not counted. ${zstd_bytes === null
    ? stopped ? '' : 'The server does not tell what zstd would need.' : 'zstd starts from nothing, which costs it most on short texts.'}`;
}

function small(text) {
  return Object.assign(document.createElement('small'), { textContent: text });
}

$('write').addEventListener('submit', (event) => {
  event.preventDefault();
  if (!open || doing !== null) return;
  const prompt = $('prompt').value;
  const [given, continuation] = ['given', 'continuation'].map((name) => Object.assign(document.createElement('span'), { className: name }));
  given.textContent = prompt.trimEnd();
  continuation.id = 'continuation';
  $('written').replaceChildren(given, continuation);
  $('write-figures').textContent = '';
  begin('write', 'Writing…');
  worker.postMessage({ verb: 'write', prompt, max_tokens: $('length').valueAsNumber, temperature: $('temperature').valueAsNumber, seed: $('seed').valueAsNumber });
});
$('read').addEventListener('submit', (event) => {
  event.preventDefault();
  if (!open || doing !== null) return;
  heat.clear();
  chart.clear();
  $('bars').replaceChildren();
  $('bars-note').textContent = '';
  $('measured').hidden = false;
  begin('read', 'Reading…');
  worker.postMessage({ verb: 'read', text: $('text').value });
});
for (const id of ['stop-write', 'stop-read']) {
  $(id).addEventListener('click', () => { worker.postMessage({ verb: 'stop' }); status('Stopping…'); });
}
$('temperature').addEventListener('input', () => { $('temperature-value').textContent = $('temperature').value; });
$('device').addEventListener('change', () => { if (picked && doing === null) load(); });
$('file').addEventListener('change', () => { const [file] = $('file').files; if (file) pick_own(file); $('file').value = ''; });
for (const name of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.documentElement.classList.toggle('dragging', name === 'dragover');
    const file = name === 'drop' && event.dataTransfer?.files[0];
    if (file && (doing === null || doing === 'start')) pick_own(file);
  });
}

// Models that lie beside this page, or the one that its server runs.
async function offer() {
  const response = await fetch('models.json');
  if (!response.ok) return;
  const models = await response.json();
  served = models.find((model) => model.api) ?? null;
  if (served) {
    document.querySelectorAll('.here, .there').forEach((words) => { words.hidden = words.classList.contains('here'); });
    picked = { name: served.name, blob: null };
  }
  for (const { file, name, about, bytes } of models) {
    const button = Object.assign(document.createElement('button'), { type: 'button', className: 'quiet', textContent: `Use ${name}` });
    button.append(small(`${megabytes(bytes)}${about ? `, ${about}` : ''}`));
    button.addEventListener('click', async () => {
      if (!file) return pick(name, null);
      begin('fetch', `Fetching ${name}…`);
      try {
        const got = await fetch(file);
        if (!got.ok) throw new Error(`${got.status} ${got.statusText}`);
        const blob = await got.blob();
        doing = null;
        pick(name, blob);
      } catch (error) {
        fail(`${name} could not be fetched. (${error.message})`);
      }
    });
    $('offers').append(button);
  }
  refresh();
}

window.sixpack = { written: null, read: null };
status('Starting…');
refresh();
offer().catch(() => {}).then(() => { employ(); refresh(); });
