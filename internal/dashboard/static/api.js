// What both pages need: elements that are made of text, calls that carry the token,
// and problems in words.

const tokenKey = 'sidejob.token';

export const token = () => sessionStorage.getItem(tokenKey);
export const $ = id => document.getElementById(id);

// el makes an element. Children are elements or text; text is never parsed.
export function el(tag, attrs, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attrs ?? {})) {
    if (value === true) e.setAttribute(name, '');
    else if (value !== false && value != null) e.setAttribute(name, value);
  }
  e.append(...children.flat(Infinity).filter(c => c != null));
  return e;
}

// say tells of something that has happened, to eyes and screen readers alike.
export function say(text) {
  $('said').textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { $('said').textContent = ''; }, 8000);
}

// word turns PENDING or no answer into Pending and No answer.
export const word = text => text.charAt(0).toUpperCase() + text.slice(1).toLowerCase();

// statusOf is a job's status in words, or what is about to change it.
export function statusOf(job) {
  const next = !job.finished && ((job.cancelRequested && 'Canceling') || (job.paused && 'Paused') || (job.missedAt && 'Missed'));
  return el('span', { class: 'status', 'data-is': job.status }, next || word(job.status));
}

// Problem is an answer that is no success, as RFC 9457 has it.
export class Problem extends Error {
  constructor(status, body) {
    super(body.title || `The server answered ${status}`);
    Object.assign(this, { status, detail: body.detail, errors: body.errors ?? [] });
  }
}

// explain shows what went wrong, in words.
export function explain(err) {
  const detail = err.detail && err.detail !== err.message ? `: ${err.detail}` : '';
  const rest = (err.errors ?? []).map(e => el('li', {}, e.location ? el('code', {}, e.location) : null,
    ` ${e.message ?? ''}`, e.value === undefined ? null : ` (got ${JSON.stringify(e.value)})`));
  return el('div', {}, el('p', {}, `${err.message}${detail}`), rest.length ? el('ul', {}, rest) : null);
}

// parse keeps the digits of whole numbers that a JavaScript number cannot hold.
function parse(text) {
  return JSON.parse(text, (_, value, context) =>
    Number.isInteger(value) && !Number.isSafeInteger(value) && context && JSON.rawJSON
      ? JSON.rawJSON(context.source) : value);
}

const patience = 15000; // milliseconds that a call may take

async function send(path, method, signal) {
  const headers = {};
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (method !== 'GET') Object.assign(headers, { 'Content-Type': 'application/json', 'Idempotency-Key': freshKey() });
  try {
    const either = AbortSignal.any([AbortSignal.timeout(patience), ...(signal ? [signal] : [])]);
    return await fetch(path, { method, headers, signal: either, cache: 'no-store' });
  } catch (err) {
    if (err.name === 'AbortError') throw err;
    throw new Problem(0, { title: 'sidejob does not answer. Is it running?' });
  }
}

// freshKey does without crypto.randomUUID, which plain HTTP on another host lacks.
function freshKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, b => b.toString(16).padStart(2, '0')).join('');
}

// call asks the API and gives the status and the parsed body. It asks the user for
// the token as often as the server asks for it, and throws a Problem.
export async function call(path, { method = 'GET', signal } = {}) {
  for (;;) {
    const used = token();
    const answer = await send(path, method, signal);
    if (answer.status === 401) {
      if (used === token()) await askToken(used !== null);
      continue;
    }
    const text = await answer.text();
    if (answer.ok) return { status: answer.status, body: parse(text), text };
    throw new Problem(answer.status, answer.headers.get('Content-Type')?.includes('json') ? JSON.parse(text) : {});
  }
}

// ask puts a question before the page and gives the value of the button that was
// pressed, which is empty after Escape.
function ask(label, ...content) {
  const dialog = el('dialog', { 'aria-label': label }, el('form', { method: 'dialog' }, content));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise(resolve => dialog.addEventListener('close', () => { dialog.remove(); resolve(dialog.returnValue); }));
}

// sure asks before something that cannot be taken back.
export async function sure(question, yes) {
  return await ask(question, el('p', {}, question), el('div', { class: 'row end' },
    el('button', { value: '', autofocus: true }, 'Leave it'), el('button', { value: 'yes', class: 'danger' }, yes))) === 'yes';
}

let asking = null; // the question on the screen, shared by all calls that wait for it

function askToken(refused) {
  asking ??= takeToken(refused).finally(() => { asking = null; });
  return asking;
}

async function takeToken(refused) {
  const input = el('input', { id: 'token', type: 'password', autocomplete: 'off', required: true, pattern: '\\s*[!-~]+\\s*',
    title: 'one word of plain letters, digits and signs', 'aria-describedby': 'token-help' });
  const question = [el('h2', {}, 'Token'), refused ? el('p', { class: 'notice bad', role: 'alert' }, 'That token was not accepted.') : null,
    el('p', { id: 'token-help' }, 'This sidejob wants its bearer token, which ', el('code', {}, 'sidejob token'), ' prints. It is kept until this tab is closed.'),
    el('label', { for: 'token' }, 'Bearer token'), input,
    el('div', { class: 'row end' }, el('button', { class: 'primary', value: 'given' }, 'Continue'))];
  while (await ask('Token', question) !== 'given'); // without it the page is of no use
  sessionStorage.setItem(tokenKey, input.value.trim());
}

// snippet is a block of code with a button that copies it, where the browser can.
export function snippet(name, text) {
  const copy = el('button', { type: 'button', class: 'quiet', hidden: !navigator.clipboard }, 'Copy');
  copy.addEventListener('click', () => navigator.clipboard.writeText(text).then(() => { copy.textContent = 'Copied'; }));
  return el('div', { class: 'snippet' }, el('p', {}, name, copy), el('pre', { tabindex: '0', 'aria-label': name }, text));
}

// shell quotes text for a POSIX shell, where it needs it.
const shell = text => (/^[\w:/.-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`);

// curl is a call for pasting into a shell. A body makes it a POST by itself.
export function curl(method, path, body, auth = token() !== null) {
  const json = JSON.stringify(body), short = json?.length < 60;
  const implied = body === undefined ? 'GET' : 'POST';
  return [`curl ${method === implied ? '' : `-X ${method} `}${shell(location.origin + path)}`,
    auth && '-H "Authorization: Bearer $SIDEJOB_TOKEN"', json && "-H 'Content-Type: application/json'",
    json && `-d ${shell(short ? json : JSON.stringify(body, null, 2))}`].filter(Boolean).join(' \\\n  ');
}
