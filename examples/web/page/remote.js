// The model, run by the server this page came from: to the page it is a worker like worker.js, that asks instead of
// computing. A server of OpenAI's completions is all it needs.

const WORDS = {
  body_too_large: 'The text is too long for this server.',
  device_failed: 'The server’s GPU has failed. Whoever runs the server has to start it again.',
  limit_exceeded: 'That is more than this server allows.',
  queue_full: 'The server is busy with others. Try again in a moment.',
  shutting_down: 'The server is shutting down.',
  timeout: 'The server took too long, and gave up.',
};
const AWAY = 'The server cannot be reached. Is it still running?';
const BROKE_OFF = 'The server broke off in the middle: this is not all of it.';
const NOTHING_TO_READ = 'Paste a few words first: there is nothing to measure.';

// An error of the server's, in words for someone who has never seen its API.
function refusal(status, body) {
  const { code, message } = body?.error ?? {};
  return new Error(`${WORDS[code] ?? 'The server did not do it.'} (${message ?? `it answered ${status}`})`);
}

const utf8 = new TextEncoder();
const bits = (logprob) => (logprob === null ? null : -logprob / Math.LN2);

// Tokens as cells: several that make whole characters only together are one. Where each begins is told in characters, of
// which there were `before` in earlier parts.
function cells(text, before, { token_logprobs, text_offset: offsets }) {
  const letters = Array.from(text);
  const text_offset = offsets.map((at) => at - before);
  const found = [];
  let open = null;
  token_logprobs.forEach((logprob, i) => {
    open ??= { from: text_offset[i], bits: null, tokens: 0 };
    if (logprob !== null) open.bits = (open.bits ?? 0) + bits(logprob);
    open.tokens += 1;
    const to = text_offset[i + 1] ?? letters.length;
    if (to === open.from && i + 1 < token_logprobs.length) return;
    const part = letters.slice(open.from, to).join('');
    found.push({ text: part, bits: open.bits, bytes: utf8.encode(part).length, tokens: open.tokens });
    open = null;
  });
  return found;
}

export class Remote {
  #api;
  #zstd;
  #model = null;
  #asking = null;

  // `api` is where the API is, seen from this page; `zstd` where the size of a text in zstd is told, if that is anywhere.
  constructor({ api, zstd }) {
    this.#api = api;
    this.#zstd = zstd ?? null;
    this.onmessage = null;
    setTimeout(() => this.#say({ is: 'ready' }));
  }

  postMessage({ verb, ...what }) {
    if (verb === 'stop') this.#asking?.abort();
    else this.#obey(verb, what);
  }

  terminate() {
    this.onmessage = null;
    this.#asking?.abort();
  }

  #say(data) {
    this.onmessage?.({ data });
  }

  async #obey(verb, what) {
    this.#asking = new AbortController();
    try {
      const result = await { open: () => this.#open(), write: () => this.#write(what), read: () => this.#read(what) }[verb]();
      this.#say({ is: 'done', verb, result, device: 'server' });
    } catch (error) {
      this.#say({ is: 'failed', verb, words: error.message });
    }
  }

  async #open() {
    const answer = await this.#ask(`${this.#api}/models`);
    const [model] = (await answer.json()).data;
    this.#model = model.id;
    return { ...model, vocabulary: model.vocab_size, why: `it computes on ${/^cpu/.test(model.device) ? 'its processor' : 'its GPU'}` };
  }

  async #write({ prompt, max_tokens, temperature, seed }) {
    const begun = performance.now();
    let [first, tokens] = [0, 0];
    const stopped = await this.#complete({ prompt, max_tokens, temperature, seed, logprobs: 0 }, (choices) => {
      first ||= performance.now();
      for (const { logprobs } of choices) tokens += logprobs?.tokens.length ?? 0;
      const text = choices.map((choice) => choice.text).join('');
      if (text) this.#say({ is: 'text', text });
    });
    return { tokens, seconds: (performance.now() - first) / 1000, wait: (first - begun) / 1000, stopped };
  }

  async #read({ text }) {
    const begun = performance.now();
    let [nats, bytes, read] = [[], 0, ''];
    const stopped = await this.#complete({ prompt: text, max_tokens: 0, echo: true, logprobs: 0 }, (choices) => {
      for (const { text, logprobs } of choices) {
        if (!logprobs) continue;
        const more = cells(text, Array.from(read).length, logprobs);
        read += text;
        nats = nats.concat(logprobs.token_logprobs.filter((x) => x !== null).map((x) => -x));
        // The first of all costs nothing where there is nothing to expect it from.
        bytes = more.reduce((sum, cell) => sum + (cell.bits === null ? 0 : cell.bytes), bytes);
        this.#say({ is: 'cells', cells: more });
      }
    });
    if (nats.length === 0 && !stopped) throw new Error(NOTHING_TO_READ);
    const sum = nats.reduce((sum, x) => sum + x, 0) / Math.LN2;
    const text_bytes = utf8.encode(read).length;
    const seconds = (performance.now() - begun) / 1000;
    const zstd_bytes = stopped ? null : await this.#compress(read);
    return { tokens: nats.length, bytes, nats, bits_per_byte: bytes > 0 ? sum / bytes : null, zstd_bytes, text_bytes, seconds, stopped };
  }

  // What is not told is left out: the model's own figures stand.
  async #compress(text) {
    if (!this.#zstd || !text) return null;
    const answer = await this.#ask(this.#zstd, { text }).catch(() => null);
    return (await answer?.json())?.bytes ?? null;
  }

  // Asks for a completion and gives its parts as they come. Whether it was stopped; an end that the server does not call
  // one is an error.
  async #complete(order, on_choices) {
    try {
      const answer = await this.#ask(`${this.#api}/completions`, { model: this.#model, stream: true, ...order });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = '';
      for (;;) {
        const { done, value } = await reader.read();
        if (done) throw new Error(BROKE_OFF);
        const events = (rest + value).split('\n\n');
        rest = events.pop();
        const data = events.filter((event) => event.startsWith('data: ')).map((event) => event.slice(6));
        const parts = data.filter((text) => text !== '[DONE]').map((text) => JSON.parse(text));
        const choices = parts.filter((part) => !part.error).flatMap((part) => part.choices);
        if (choices.length > 0) on_choices(choices);
        for (const part of parts) if (part.error) throw refusal(null, part);
        if (data.at(-1) === '[DONE]') return false;
      }
    } catch (error) {
      if (error.name === 'AbortError') return true;
      throw error instanceof TypeError ? new Error(BROKE_OFF) : error;
    }
  }

  async #ask(path, body) {
    const post = body && { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
    let answer;
    try {
      answer = await fetch(path, { ...post, signal: this.#asking.signal });
    } catch (error) {
      throw error.name === 'AbortError' ? error : new Error(AWAY);
    }
    if (!answer.ok) throw refusal(answer.status, await answer.json().catch(() => null));
    return answer;
  }
}
