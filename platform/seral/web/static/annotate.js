// The page of a person who labels: which clip is shown, what the keys do, what is sent when.
import { get, identify, logPlayed, newKey, post, Refused, signOut, Unreachable } from "./api.js";
import { AnswerForm, released, SURE_KEYS } from "./answer.js";
import { Outbox } from "./outbox.js";
import { Player } from "./player.js";
import { startTheme } from "./theme.js";

const TOO_QUICK_MS = 300; // a key pressed twice is not an answer to the next clip
const POLL_MS = 20_000;
const PACE_OF = 20; // answers
const PASSED = { skipped: "Skipped.", unusable: "Marked unusable.", "other-language": "Marked as another language." };

const part = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const say = (text) => (part.state.textContent = text);

let me, form, outbox, player;
let clips = []; // at hand, the one shown first
let history = []; // {clip, answer}, oldest first
let back = null; // place in history of the answer that is being corrected
let standing = { answered: 0, left: 0 };
let shownAt = 0;
let hiddenMs = 0;
let stopped = false;
let touchedAt = performance.now();

const current = () => (back === null ? clips[0] : history[back].clip);

// What is shown

function show() {
  const clip = current();
  part.work.hidden = !clip || stopped;
  part.idle.hidden = !part.work.hidden;
  drawStanding();
  if (part.work.hidden) return;
  form.clear();
  if (back !== null) form.restore(history[back].answer);
  part.correcting.hidden = back === null;
  part.title.textContent = back === null ? `Clip ${standing.answered + waiting() + 1}` : `${history.length - back} back`;
  part.suggestion.hidden = !clip.suggestion;
  part.suggestion.textContent = `The model says: ${clip.suggestion}`;
  part.title.focus({ preventScroll: true });
  shownAt = performance.now();
  hiddenMs = 0;
  player.show(clip.utterance_id);
}

function showIdle(title, text, { goOn = false } = {}) {
  player.stop();
  clips = [];
  back = null;
  part["idle-title"].textContent = title;
  part["idle-text"].textContent = text;
  part["go-on"].hidden = !goOn;
  part["idle-undo"].hidden = goOn || history.length === 0;
  show();
  part["idle-title"].focus();
  say(title);
}

/** Clips answered for the first time whose answers have not been confirmed. */
const waiting = () => outbox.items().filter((item) => !item.correction).length;

function drawStanding() {
  const [answered, left] = [standing.answered + waiting(), Math.max(0, standing.left - waiting())];
  part.bar.max = Math.max(1, answered + left);
  part.bar.value = answered;
  const timed = history.slice(-PACE_OF).filter((entry) => entry.answer.seconds > 0);
  const seconds = timed.reduce((sum, entry) => sum + entry.answer.seconds, 0);
  const words = [`${answered} answered`, `${left} left`];
  if (timed.length >= 3) {
    words.push(`${Math.round((3600 * timed.length) / seconds)} clips an hour`);
    if (left) words.push(`about ${duration((left * seconds) / timed.length)} to go`);
  }
  part.standing.textContent = words.join(" · ");
}

function duration(seconds) {
  const minutes = Math.max(1, Math.round(seconds / 60));
  return minutes < 90 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}

function drawNetwork(problem) {
  const count = outbox.items().length;
  const waiting = count ? `, ${count} ${count === 1 ? "answer" : "answers"} waiting` : "";
  part.network.textContent = problem ? `Offline${waiting}. Nothing is lost; trying again.` : "";
}

// Answers

function answer(kind, values) {
  const clip = current();
  if (!clip || performance.now() - shownAt < TOO_QUICK_MS) return;
  if (kind === "label" && player.blocked) {
    player.start(); // nobody has heard it yet
    return;
  }
  if (kind === "label" && !player.sound) {
    say("The clip is still on its way.");
    return;
  }
  const seconds = Math.round(performance.now() - shownAt - hiddenMs) / 1000;
  const content = { kind, emotions: [], secondary: [], ...form.values(), ...values, seconds: Math.min(seconds, 86_400) };
  outbox.put({ question: clip.question, utterance_id: clip.utterance_id, key: newKey(), ...content }, back !== null);
  if (back === null) {
    history.push({ clip, answer: content });
    clips.shift();
    say(PASSED[kind] ?? "");
  } else {
    history[back].answer = content;
    back = null;
    say("Corrected.");
  }
  if (clips.length) show();
  else wait();
  pump();
}

function send() {
  const missing = form.missing();
  if (missing) say(missing);
  else answer("label", form.label());
}

/** Nothing at hand, and not known yet whether there is more. */
function wait() {
  player.stop();
  part.work.hidden = true;
  part.idle.hidden = true;
  drawStanding();
}

function undo() {
  const before = back === null ? history.length - 1 : back - 1;
  if (before < 0) {
    say("There is nothing further back.");
    return;
  }
  back = before;
  stopped = false;
  show();
}

function forward() {
  if (back === null) return;
  back = null;
  if (clips.length) show();
  else pump();
}

// To and from the server: one thing at a time, again and again until it is done

let pumping = false;
let again = false;
let tries = 0;
let timer = null;

async function pump() {
  again = true;
  if (pumping) return;
  pumping = true;
  clearTimeout(timer);
  try {
    while (again) {
      again = false;
      await outbox.send();
      if (!stopped) await refill();
    }
    tries = 0;
    drawNetwork(false);
    if (!clips.length && !stopped) timer = setTimeout(pump, POLL_MS);
  } catch (error) {
    if (error instanceof Refused) shutOut(error);
    else if (error instanceof Unreachable) {
      drawNetwork(true);
      drawStanding();
      timer = setTimeout(pump, Math.min(10_000, 500 * 2 ** tries++));
    } else throw error;
  } finally {
    pumping = false;
  }
}

async function refill() {
  const claimed = await post("claim?count=2");
  standing = claimed.standing;
  const questions = new Set(clips.map((clip) => clip.question));
  const fresh = claimed.clips.filter((clip) => !questions.has(clip.question) && !outbox.has(clip.question));
  const begins = clips.length === 0;
  clips.push(...fresh);
  clips.forEach((clip) => player.prepare(clip.utterance_id).catch(() => {})); // shown again when it is its turn
  if (begins && clips.length && back === null) show();
  else if (begins && back === null && outbox.items().length === 0 && part.idle.hidden) {
    showIdle("Nothing to do now", "All clips for you are answered. This page looks for new ones by itself.");
  }
  drawStanding();
}

function shutOut(error) {
  const count = outbox ? outbox.items().length : 0;
  const waiting = count ? ` ${count} of your answers wait in this browser and are sent once you are in again.` : "";
  part.work.hidden = true;
  part.idle.hidden = false;
  part["idle-title"].textContent = "You are not let in";
  part["idle-text"].textContent = `${error.message}.${waiting}`;
  part["idle-undo"].hidden = true;
  player?.stop();
}

async function stop() {
  stopped = true;
  showIdle("Stopped", "The clips that you had at hand go to others. Your answers are kept.", { goOn: true });
  try {
    await outbox.send();
    await post("let-go");
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
    drawNetwork(true); // their lease ends by itself
    pump();
  }
}

async function leave() {
  stopped = true;
  try {
    await outbox.send();
    await signOut();
  } catch (error) {
    stopped = false;
    if (error instanceof Refused) shutOut(error);
    else if (error instanceof Unreachable) {
      say("You are still signed in: the server does not answer. Try again.");
      pump();
    } else throw error;
  }
}

function goOn() {
  stopped = false;
  part.idle.hidden = true;
  pump();
}

// Keys

const focusComment = () => part.comment.focus();
const keys = {
  " ": () => player.toggle(),
  r: () => player.sound && player.start(),
  l: () => player.loop(),
  a: () => form.toggleMode("also"),
  c: focusComment,
  s: () => answer("skipped"),
  u: () => answer("unusable"),
  o: () => answer("other-language"),
  z: undo,
  backspace: undo,
  n: forward,
  enter: send,
  arrowdown: () => form.mark(form.active + 1),
  arrowup: () => form.mark(form.active - 1),
  "?": () => part.help.showModal(),
  ...Object.fromEntries(Object.entries(SURE_KEYS).map(([key, value]) => [key, () => form.beSure(value)])),
};
const WHEN_IDLE = new Set(["z", "backspace", "?"]);

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || part.help.open) return;
  const target = event.target;
  if (target === part.comment) {
    if (event.key === "Escape" || event.key === "Enter") {
      event.preventDefault();
      part.title.focus();
    }
    return;
  }
  // By place, not by sign: with shift, or on a French keyboard, the sign is another.
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  const key = event.key.toLowerCase();
  const native = target.closest?.("button, a, input");
  if (native && (key === " " || key === "enter" || (target === part.position && key.startsWith("arrow")))) return;
  if (part.work.hidden && !WHEN_IDLE.has(key)) return;
  const act = digit ? () => form.digit(Number(digit[1]), event.shiftKey) : keys[key];
  if (!act) return;
  event.preventDefault();
  if (!event.repeat) act();
}

const clicks = {
  play: keys[" "],
  again: keys.r,
  loop: keys.l,
  send,
  undo,
  "idle-undo": undo,
  forward,
  stop,
  "go-on": goOn,
  "sign-out": leave,
  skipped: keys.s,
  unusable: keys.u,
  "other-language": keys.o,
  "help-open": keys["?"],
};

// Begin

async function begin() {
  try {
    me = await get("me");
  } catch (error) {
    if (error instanceof Refused) shutOut(error);
    else {
      say("The server does not answer; trying again.");
      setTimeout(begin, 2000);
    }
    return;
  }
  identify(me.person);
  part.who.textContent = me.person;
  part["sign-out"].hidden = !me.may_sign_out;
  part.lead.hidden = me.role !== "lead";
  standing = me.standing;
  outbox = new Outbox(me.person, (_, error) => say(`An answer was not taken: ${error.message}`));
  const playing = { canvas: part.wave, position: part.position, time: part.time, word: part["play-word"] };
  player = new Player({ ...playing, loopButton: part.loop }, say, logPlayed);
  const { emotions, classes, dimensions, several, also, confidence, comment } = part;
  const parts = { emotions, classes, dimensions, several, also, confidence, comment, send: part.send };
  form = new AnswerForm(me, parts, send);
  for (const [id, act] of Object.entries(clicks)) {
    part[id].addEventListener("click", (event) => {
      released(event);
      act();
    });
  }
  document.addEventListener("keydown", pressed);
  for (const name of ["keydown", "pointerdown"]) {
    document.addEventListener(name, () => (touchedAt = performance.now()), { passive: true });
  }
  let hiddenAt = 0;
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenAt = performance.now();
    else hiddenMs += performance.now() - hiddenAt;
  });
  addEventListener("online", pump);
  // Whoever is at work keeps their clips however long they take over one; whoever has gone does not.
  setInterval(() => {
    if (performance.now() - touchedAt < 1000 * me.lease_s && !document.hidden) pump();
  }, (1000 * me.lease_s) / 3);
  try {
    history = (await get("latest")).answers.reverse();
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error; // undo then reaches back to here only
  }
  await pump();
}

startTheme();
begin();
