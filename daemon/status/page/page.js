// Asks status.json every two seconds and draws it. Whatever the daemon says is put in as text, never as markup.
'use strict';

const EVERY_MS = 2000;
const LOST_MS = 8000;                 // without an answer for so long, the numbers are called old
const SLOW_MS = 10000;                // standing still for so long is worth a sentence
const KEPT = 90;                      // samples behind a curve: three minutes

const byId = id => document.getElementById(id);
const answers = [];                   // answers, oldest first
let lastAnswer = 0;
let everAnswered = false;

// ---- Words and numbers ----

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });
const count = n => whole.format(n);
const brief = n => n < 10000 ? (n > 0 && n < 10 ? n.toFixed(1).replace(/\.0$/, '') : whole.format(n)) : short.format(n);

function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit++) n /= 1024;
  return `${n < 10 && unit > 0 ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}

function span(ms) {
  const s = Math.max(0, ms / 1000);
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

// ---- Elements ----

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children.filter(child => child !== null && child !== undefined && child !== ''));
  return made;
}

function svg(name, attributes, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const fact = (term, value, mood) => element('div', '', element('dt', '', term), element('dd', mood || '', value));

// ---- Rates, from the answers kept ----

const stamp = answer => Date.parse(answer.now);
const find = (answer, list, name) => answer[list].find(item => item.name === name);

// A counter's value a second between two answers next to each other; a restart begins at 0 again.
function rates(list, name, key) {
  const found = [];
  for (let i = 1; i < answers.length; i++) {
    const before = find(answers[i - 1], list, name), after = find(answers[i], list, name);
    const seconds = (stamp(answers[i]) - stamp(answers[i - 1])) / 1000;
    if (!before || !after || seconds <= 0) continue;
    found.push(Math.max(0, (after[key] - before[key]) / seconds));
  }
  return found;
}

const average = (values, n) => {
  const last = values.slice(-n);
  return last.length ? last.reduce((sum, value) => sum + value, 0) / last.length : null;
};

// Over a minute, so that a spool that is written in gulps has one number.
function growth(name) {
  const first = answers[Math.max(0, answers.length - 31)], last = answers[answers.length - 1];
  const before = find(first, 'sinks', name), after = find(last, 'sinks', name);
  const seconds = (stamp(last) - stamp(first)) / 1000;
  return before && after && seconds > 0 ? (after.spool_bytes - before.spool_bytes) / seconds : 0;
}

function spark(values) {
  const drawn = svg('svg', { class: 'spark', viewBox: '0 0 100 30', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  const most = Math.max(...values, 1);
  if (values.length < 2) return drawn;
  const points = values.map((value, i) => `${(100 - (values.length - 1 - i) * 100 / (KEPT - 2)).toFixed(1)} ${(29 - value / most * 27).toFixed(1)}`);
  drawn.append(svg('path', { d: `M${points[0].split(' ')[0]} 30 L${points.join(' L')} L100 30 Z` }));
  return drawn;
}

const pulse = (values, unit) => {
  const rate = average(values, 5);
  return element('div', 'pulse', element('span', 'rate', rate === null ? '…' : brief(rate), ' ', element('small', '', unit)), spark(values));
};

// ---- A sentence beside the daemon's word for how a thing is ----

function sourceNote(source) {
  if (source.state === 'waits') return 'Memory is full: it waits for the sinks.';
  return source.mood === 'bad' ? `Nothing was read for ${span(source.stalled_ms)} although there is something; the log says why.` : '';
}

function sinkNote(sink) {
  const said = [];
  if (sink.state === 'spool full') said.push('The spool takes nothing more, and the sources wait.');
  if (sink.stalled_ms >= SLOW_MS) said.push(`Nothing delivered for ${span(sink.stalled_ms)}.`);
  if (sink.arrival_differs) said.push('Not all that its DCR accepted has arrived; the log says more.');
  if (sink.trouble) said.push(`Last answer: ${sink.trouble.replace(/[.\s]+$/, '')}.`);
  else if (sink.refused) said.push('The log says what to change.');
  if (sink.hold_ms > 0) said.push(`Next try in ${span(sink.hold_ms)}.`);
  return said.join(' ');
}

// ---- Cards ----

function card(thing, note, ...rest) {
  const made = element('article', `card ${thing.mood}`,
    element('div', 'head', element('h3', '', thing.name), element('span', 'type', thing.type), element('span', 'pill', thing.state)),
    ...rest, note ? element('p', 'note', note) : null);
  made.dataset.name = thing.name;
  made.dataset.mood = thing.mood;
  return made;
}

function sourceCard(source, answer) {
  const facts = element('dl', '');
  if (source.newest) facts.append(fact('newest event', `${span(stamp(answer) - Date.parse(source.newest))} ago`));
  facts.append(fact('behind', source.unit === 'bytes' ? bytes(source.behind) : `${count(source.behind)} messages`));
  facts.append(fact('read', brief(source.read)));
  if (source.unknown > 0) facts.append(fact('unknown', brief(source.unknown), 'warn'));
  if (source.malformed > 0) facts.append(fact('malformed', brief(source.malformed), 'warn'));
  if (source.cut > 0) facts.append(fact('cut', brief(source.cut)));
  if (source.troubles > 0) facts.append(fact('unreadable', `${count(source.troubles)} times`, 'warn'));
  for (const [name, value] of Object.entries(source.numbers)) facts.append(fact(name.replaceAll('_', ' '), brief(value)));
  return card(source, sourceNote(source), pulse(rates('sources', source.name, 'read'), 'records/s'), facts);
}

function tank(sink) {
  const part = Math.min(1, sink.spool_bytes / sink.spool_max);
  const mood = sink.flow === 'paused' || part > 0.9 ? 'bad' : part > 0.5 ? 'warn' : '';
  const grows = growth(sink.name);
  let words = sink.spool_bytes > 0 ? `spool ${bytes(sink.spool_bytes)} of ${bytes(sink.spool_max)}, ${count(sink.spooled)} messages`
                                   : `spool empty, room for ${bytes(sink.spool_max)}`;
  if (sink.flow !== 'paused' && grows > 0) words += `; full in ${span((sink.spool_max - sink.spool_bytes) / grows * 1000)}`;
  else if (grows < 0 && sink.spool_bytes > 0) words += `; empty in ${span(sink.spool_bytes / -grows * 1000)}`;
  return element('div', `tank ${mood}`,
    svg('svg', { viewBox: '0 0 200 10', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      svg('rect', { class: 'shell', width: 200, height: 10, rx: 2 }),
      svg('rect', { class: 'water', width: sink.spool_bytes > 0 ? Math.max(1, 200 * part) : 0, height: 10, rx: 2 })),
    element('span', '', words));
}

function sinkCard(sink) {
  const facts = element('dl', '', fact('delivered', brief(sink.delivered)));
  if (sink.held > 0) facts.append(fact('in memory', brief(sink.held)));
  if (sink.dropped > 0) facts.append(fact('dropped', brief(sink.dropped)));
  if (sink.retries > 0) facts.append(fact('retries', brief(sink.retries)));
  if (sink.damaged > 0) facts.append(fact('damaged on disk', count(sink.damaged), 'bad'));
  const made = card(sink, sinkNote(sink), pulse(rates('sinks', sink.name, 'delivered'), 'messages/s'), tank(sink), facts);
  if (sink.dead > 0 || sink.dead_bytes > 0) {
    facts.append(fact('dead letters', sink.dead > 0 ? count(sink.dead) : bytes(sink.dead_bytes), 'warn'));
    made.append(element('p', 'note', 'Why they died: ', element('code', '', `penstock dead list ${sink.name}`)));
  }
  return made;
}

// ---- Pipes: from each source to the gate, from the gate to each sink ----

function pipe(from, to, mood, rate) {
  const bend = (to.x - from.x) / 2;
  const d = `M${from.x} ${from.y} C${from.x + bend} ${from.y} ${to.x - bend} ${to.y} ${to.x} ${to.y}`;
  const width = rate > 0 ? Math.min(9, 3 + Math.log10(1 + rate)) : 2.5;
  if (mood === 'warn' || mood === 'bad') return [svg('path', { d, class: mood, 'stroke-width': 3 })];
  if (!(rate > 0)) return [svg('path', { d, 'stroke-width': 2.5 })];
  return [svg('path', { d, class: 'bed', 'stroke-width': width + 3 }), svg('path', { d, class: 'runs', 'stroke-width': width })];
}

function drawPipes() {
  const area = byId('flow').getBoundingClientRect(), gate = byId('gate').getBoundingClientRect(), paths = [];
  const at = (x, y) => ({ x: Math.round(x - area.left), y: Math.round(y - area.top) });
  const middle = (gate.top + gate.bottom) / 2;
  // The pipes meet the gate side by side, not all in one point.
  const along = (i, n) => middle + (n > 1 ? (i / (n - 1) - 0.5) * Math.min(gate.height * 0.6, n * 14) : 0);
  const sources = [...byId('sources').children], sinks = [...byId('sinks').children];
  sources.forEach((one, i) => {
    const box = one.getBoundingClientRect();
    paths.push(...pipe(at(box.right, (box.top + box.bottom) / 2), at(gate.left, along(i, sources.length)), one.dataset.mood,
      average(rates('sources', one.dataset.name, 'read'), 5)));
  });
  sinks.forEach((one, i) => {
    const box = one.getBoundingClientRect();
    const rate = average(rates('sinks', one.dataset.name, 'delivered'), 5);
    const mood = one.dataset.mood === 'warn' && rate > 0 ? 'ok' : one.dataset.mood;
    paths.push(...pipe(at(gate.right, along(i, sinks.length)), at(box.left, (box.top + box.bottom) / 2), mood, rate));
  });
  byId('pipes').replaceChildren(...paths);
}

// ---- The gate, the ledger, the verdict ----

function drawGate(daemon) {
  const part = Math.min(1, daemon.held / daemon.budget);
  const gate = byId('gate'), water = gate.querySelector('.water'), words = `${bytes(daemon.held)} of ${bytes(daemon.budget)}`;
  water.setAttribute('height', (55 * part).toFixed(1));
  water.setAttribute('y', (57 - 55 * part).toFixed(1));
  gate.querySelector('title').textContent = words;
  gate.className = `card ${daemon.flow === 'paused' || daemon.unsaved ? 'warn' : 'ok'}`;
  byId('memory').textContent = words;
  byId('gate-state').textContent = daemon.unsaved ? 'cursors cannot be saved' : daemon.flow === 'paused' ? 'sources wait' : 'open';
}

function ledgerRow(route) {
  const sum = route.delivered + route.dead + route.dropped + route.held + route.spooled;
  const cell = (n, mood) => element('td', n === 0 ? 'zero' : mood || '', count(n));
  return element('tr', '', element('td', '', route.source), element('td', '', route.sink), cell(route.taken), cell(route.delivered),
    cell(route.dead, 'warn'), cell(route.dropped, 'warn'), cell(route.held), cell(route.spooled),
    element('td', sum === route.taken ? '' : 'bad', sum === route.taken ? '✓' : 'no'));
}

function reloadNote(answer) {
  if (answer.daemon.config_good !== 0) return '';
  return `The last reload failed, the configuration of ${span(stamp(answer) - Date.parse(answer.daemon.config_loaded))} ago goes on; penstock reload says why.`;
}

function verdict(answer) {
  const all = [...answer.sources, ...answer.sinks];
  const say = (...moods) => moods.flatMap(mood => all.filter(one => one.mood === mood)).map(one => `${one.name}: ${one.state}`).join(', ');
  const sum = key => answer.sinks.reduce((n, sink) => n + sink[key], 0);
  const waits = sum('spooled') > 0 ? ` ${count(sum('spooled'))} messages wait on disk.` : '';
  const rate = answer.sinks.reduce((n, sink) => n + (average(rates('sinks', sink.name, 'delivered'), 5) || 0), 0);
  if (say('bad') || !answer.ready) return ['bad', `${say('bad', 'warn') || 'Data stands still'}.${waits}`];
  if (answer.daemon.unsaved) return ['bad', 'The cursors cannot be saved: the disk of the state folder is full or broken.'];
  if (say('warn') || reloadNote(answer)) return ['warn', [say('warn') && `${say('warn')}.${waits}`, reloadNote(answer)].filter(Boolean).join(' ')];
  return ['ok', rate > 0 ? `All is well: ${brief(rate)} messages a second.` : 'All is well, and there is nothing to do.'];
}

function draw(answer) {
  document.body.classList.remove('stale');
  byId('flow').hidden = byId('ledger').hidden = false;
  byId('version').textContent = answer.daemon.version;
  byId('started').textContent = `up ${span(stamp(answer) - Date.parse(answer.daemon.started))}`;
  byId('sources').replaceChildren(...answer.sources.map(source => sourceCard(source, answer)));
  byId('sinks').replaceChildren(...answer.sinks.map(sinkCard));
  byId('ledger').querySelector('tbody').replaceChildren(...answer.routes.map(ledgerRow));
  drawGate(answer.daemon);
  const [mood, sentence] = verdict(answer);
  byId('verdict').className = mood;
  if (byId('sentence').textContent !== sentence) byId('sentence').textContent = sentence;   // else screen readers repeat it
  byId('reasons').replaceChildren(...answer.reasons.map(reason => element('li', '', reason)));
  document.title = mood === 'bad' || mood === 'warn' ? `${mood === 'bad' ? '✕' : '!'} Penstock` : 'Penstock';
  drawPipes();
}

// ---- Asking ----

function tellAge() {
  const age = Date.now() - lastAnswer;
  if (everAnswered) byId('age').textContent = age < LOST_MS ? 'live' : `as of ${span(age)} ago`;
  if (age < LOST_MS || (!everAnswered && age < 3 * LOST_MS && lastAnswer > 0)) return;
  document.body.classList.add('stale');
  byId('verdict').className = 'bad';
  byId('sentence').textContent = everAnswered ? `The daemon does not answer for ${span(age)}: it is stopped, or it hangs.` : 'The daemon does not answer.';
  byId('reasons').replaceChildren();
  document.title = '✕ Penstock';
}

async function ask() {
  try {
    const response = await fetch('/status.json', { cache: 'no-store', signal: AbortSignal.timeout(LOST_MS) });
    if (response.ok) {
      const answer = await response.json();
      // A new daemon counts from the start, and so do the curves.
      if (answers.length && answers[answers.length - 1].daemon.started !== answer.daemon.started) answers.length = 0;
      answers.push(answer);
      if (answers.length > KEPT) answers.shift();
      lastAnswer = Date.now();
      everAnswered = true;
      draw(answer);
    }
  } catch {
    // tellAge() says so when it lasts.
  }
  tellAge();
  setTimeout(ask, EVERY_MS);
}

lastAnswer = Date.now();
addEventListener('resize', () => { if (answers.length) drawPipes(); });
setInterval(tellAge, 1000);
ask();
