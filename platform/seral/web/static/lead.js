// The lead's page: progress, people, agreement, and the clips to decide.
import { get, identify, logPlayed, newKey, post, Refused, signOut, Unreachable } from "./api.js";
import { button } from "./answer.js";
import { startTheme } from "./theme.js";

const part = Object.fromEntries([...document.querySelectorAll("[id]")].map((element) => [element.id, element]));
const say = (text) => (part.state.textContent = text);
let me;

function element(name, text = "", properties = {}) {
  return Object.assign(document.createElement(name), { textContent: text }, properties);
}

/** A table row; numbers stand right, elements are taken as they are. */
function row(cells) {
  const made = element("tr");
  for (const cell of cells) {
    const td = cell instanceof Element ? element("td") : element("td", cell ?? "–");
    if (cell instanceof Element) td.append(cell);
    else if (/^[\d.–…+-]+( %| to .*)?$/.test(td.textContent)) td.className = "number";
    made.append(td);
  }
  return made;
}

const percent = (share) => (share === null || share === undefined ? null : `${Math.round(100 * share)} %`);
const rounded = (value, digits = 2) =>
  value === null || value === undefined ? null : value.toFixed(digits).replace(/^-(0[.0]*)$/, "$1");

/** Do something that may fail, and say so. */
async function attempt(act) {
  try {
    await act();
  } catch (error) {
    if (error instanceof Refused) say(error.out ? `You are not let in: ${error.message}.` : error.message);
    else if (error instanceof Unreachable) say("The server does not answer; try again.");
    else throw error;
  }
}

function drawBatches(batches) {
  part.batches.replaceChildren(
    ...batches.map((batch) => {
      const bar = element("progress", "", { max: Math.max(1, batch.questions), value: batch.done });
      bar.setAttribute("aria-label", `${batch.batch}: ${batch.done} of ${batch.questions} done`);
      const name = batch.closed ? `${batch.batch} (closed)` : batch.batch;
      return row([name, batch.purpose, String(batch.questions), String(batch.done), bar, String(batch.answers)]);
    }),
  );
}

/** Reports are null until they are computed. */
function drawPeople(people, reports) {
  const reportOf = Object.fromEntries((reports ?? []).map((report) => [report.person, report]));
  part.people.replaceChildren(
    ...people.map((person) => {
      const report = reportOf[person.name] ?? {};
      const links = element("div", "", { className: "row" });
      if (person.you) links.append("yours");
      else {
        const fresh = button(person.link ? "New link" : "Give a link");
        fresh.setAttribute("aria-label", `${fresh.textContent}: ${person.name}`);
        fresh.addEventListener("click", () => attempt(() => letIn(person.name, person.role)));
        links.append(fresh);
        if (person.link) {
          const out = button("Revoke");
          out.setAttribute("aria-label", `Revoke the link of ${person.name}`);
          out.addEventListener("click", () => attempt(() => revoke(person.name)));
          links.append(out);
        }
      }
      const numbers = [String(report.answers ?? 0), String(report.skipped ?? 0), rounded(report.seconds, 1)];
      const worth = [percent(report.agreement), percent(report.check_accuracy), percent(report.accuracy)];
      const cells = reports === null ? Array(6).fill("…") : [...numbers, ...worth];
      return row([person.name, person.role, ...cells, links]);
    }),
  );
}

function drawAlphas(alphas) {
  const rows = Object.entries(alphas).map(([name, alpha]) => {
    const interval = alpha.low === null ? null : `${rounded(alpha.low)} to ${rounded(alpha.high)}`;
    return row([name === "emotion" ? "all emotions" : name, rounded(alpha.alpha), interval, String(alpha.utterances)]);
  });
  part.alphas.replaceChildren(...rows);
}

function heard(answer) {
  if (answer.kind !== "label") return answer.kind;
  const also = answer.secondary.length ? ` (also ${answer.secondary.join(", ")})` : "";
  return (answer.emotions.join(" and ") || (me.classes.length ? "no emotion" : "rated")) + also;
}

function drawDisputed({ total, clips }) {
  const more = total > clips.length ? `, the first ${clips.length} of them here` : "";
  part["disputed-text"].textContent = total
    ? `${total} ${total === 1 ? "clip" : "clips"} about which people differ${more}. What you choose stands above the votes.`
    : "People do not differ about any clip that nobody has decided.";
  part.disputed.replaceChildren(...clips.map(disputedClip));
}

function disputedClip(clip) {
  const box = element("article");
  const title = element("h3", clip.utterance_id, { id: `clip-${clip.utterance_id}` });
  box.setAttribute("aria-labelledby", title.id);
  const sound = element("audio", "", { controls: true, preload: "none" });
  sound.src = `api/audio/${encodeURIComponent(clip.utterance_id)}`;
  sound.addEventListener("playing", () => logPlayed(clip.utterance_id), { once: true });
  sound.setAttribute("aria-label", `Clip ${clip.utterance_id}`);
  const top = element("div", "", { className: "row" });
  top.append(title, sound);
  const table = element("table");
  const head = element("tr");
  const columns = ["Who", "Heard", ...me.dimensions, "Sure", "Seconds", "Comment"];
  const numbers = new Set([...me.dimensions, "Sure", "Seconds"]);
  head.append(...columns.map((name) => element("th", name, { className: numbers.has(name) ? "number" : "" })));
  table.append(head);
  for (const answer of clip.answers) {
    const ratings = me.dimensions.map((name) => rounded(answer[name], 1));
    const details = [percent(answer.confidence), rounded(answer.seconds, 1), answer.comment ?? ""];
    table.append(row([answer.person, heard(answer), ...ratings, ...details]));
  }
  const scroll = element("div", "", { className: "scroll" });
  scroll.append(table);
  const about = element("p", `They differ about ${clip.about.join(", ")}.`, { className: "quiet" });
  box.append(top, about, scroll, me.dimensions.length ? decisionForm(clip) : decisionButtons(clip));
  return box;
}

function choicesOf(clip) {
  const choices = element("div", "", { className: "choices" });
  choices.setAttribute("role", "group");
  choices.setAttribute("aria-label", `Decide ${clip.utterance_id}`);
  return choices;
}

function unusableButton(clip) {
  const made = button("unusable");
  made.addEventListener("click", () => attempt(() => decide(clip.utterance_id, "unusable", { kind: "unusable" })));
  return made;
}

/** One press decides, where an emotion is all that was asked. */
function decisionButtons(clip) {
  const choices = choicesOf(clip);
  for (const name of me.classes) {
    const made = button(name);
    made.addEventListener("click", () => attempt(() => decide(clip.utterance_id, name, { emotions: [name] })));
    choices.append(made);
  }
  choices.append(unusableButton(clip));
  return choices;
}

/** Emotion and ratings together, beginning with what is said so far: what people agree on, the mean of ratings. */
function decisionForm(clip) {
  const form = element("form");
  const choices = choicesOf(clip);
  let chosen = clip.so_far.emotions;
  const made = me.classes.map((name) => [name, button(name)]);
  const draw = () => made.forEach(([name, at]) => at.setAttribute("aria-pressed", String(chosen.includes(name))));
  for (const [name, at] of made) {
    at.addEventListener("click", () => {
      chosen = [name];
      draw();
    });
  }
  draw();
  choices.append(...made.map(([, at]) => at), unusableButton(clip));
  const ratings = element("div", "", { className: "row" });
  const [min, max] = me.scale;
  const inputs = me.dimensions.map((name) => {
    const input = element("input", "", { type: "number", min, max, step: "any" });
    input.value = rounded(clip.so_far[name]) ?? "";
    const label = element("label", `${name} `);
    label.append(input);
    ratings.append(label);
    return [name, input];
  });
  ratings.append(element("button", "Decide", { type: "submit" }));
  form.append(choices, ratings);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const rated = inputs.map(([name, input]) => [name, input.value === "" ? null : input.valueAsNumber]);
    const words = [...chosen, ...rated.filter(([, value]) => value !== null).map(([name, value]) => `${name} ${value}`)];
    const decision = { emotions: chosen, ...Object.fromEntries(rated) };
    attempt(() => decide(clip.utterance_id, words.join(", "), decision));
  });
  return form;
}

async function decide(utterance_id, name, decision) {
  await post("lead/decide", { utterance_id, key: newKey(), ...decision });
  await drawState();
  part["disputed-title"].focus();
  say(`${utterance_id}: ${name}.`);
}

async function letIn(name, role) {
  const { link } = await post("lead/people", { name, role });
  const copy = button("Copy");
  copy.addEventListener("click", () => attempt(async () => {
    await navigator.clipboard.writeText(link);
    say("Copied.");
  }));
  // The clipboard is closed to pages that come by plain http from another machine.
  part.link.replaceChildren(`The link of ${name}, shown this once: `, element("code", link), " ");
  if (navigator.clipboard) part.link.append(copy);
  await drawState();
}

async function revoke(name) {
  await post("lead/revoke", { name });
  await drawState();
  say(`The link of ${name} is worth nothing now.`);
}

let reports = null;

/** What changes with every click. */
async function drawState() {
  const [progress, clips] = await Promise.all([get("lead/progress"), get("lead/disputed")]);
  drawBatches(progress.batches);
  drawPeople(progress.people, reports);
  drawDisputed(clips);
  part.work.hidden = false;
  return progress.people;
}

/** Agreement takes a while where there are many answers: it comes last, and only when asked for. */
async function drawAll() {
  const people = await drawState();
  part["agreement-text"].textContent = "Computing…";
  const agreement = await get("lead/agreement");
  reports = agreement.people;
  drawPeople(people, reports);
  drawAlphas(agreement.alpha);
  part["agreement-text"].textContent = "Krippendorff's alpha: 1 is full agreement, 0 what chance would give.";
}

async function begin() {
  me = await get("me");
  identify(me.person);
  part.who.textContent = me.person;
  part["sign-out"].hidden = !me.may_sign_out;
  await drawAll();
}

startTheme();
part["sign-out"].addEventListener("click", () => attempt(signOut));
part.refresh.addEventListener("click", () => attempt(drawAll));
part.newcomer.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    await letIn(part.name.value.trim(), part.role.value);
    part.newcomer.reset();
  });
});
attempt(begin);
