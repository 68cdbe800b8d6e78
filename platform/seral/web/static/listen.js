// A served model's page: clips go to /predict, and the classes come back with how sure the model is of each.
import { startTheme } from "./theme.js";
import { startRecording } from "./record.js";

const at = (id) => document.getElementById(id);
let token = null; // in memory alone: gone with the page
let waiting = []; // clips to be sent again once the token is there
let recording = null;

function say(text) {
  at("state").textContent = text;
}

async function predict(clips) {
  if (!clips.length) return;
  say(`Listening to ${clips.length === 1 ? clips[0].name : `${clips.length} clips`} …`);
  const form = new FormData();
  for (const clip of clips) form.append("clip", clip, clip.name);
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  let response, body;
  try {
    response = await fetch("predict", { method: "POST", body: form, headers, cache: "no-store" });
    body = await response.json();
  } catch (error) {
    say("The server cannot be reached.");
    return;
  }
  if (response.status === 401) {
    waiting = clips;
    at("door").hidden = false;
    at("token").focus();
  }
  if (!response.ok) {
    say(body.error ?? `status ${response.status}`);
    return;
  }
  at("door").hidden = true;
  body.predictions.forEach((prediction, index) => show(prediction, clips[index]));
  say("");
}

function show(prediction, clip) {
  const card = at("answer").content.cloneNode(true);
  const name = prediction.predicted ?? (prediction.unsure ? "unsure" : "");
  card.querySelector(".predicted").textContent = name;
  card.querySelector(".file").textContent = `${prediction.file} · ${prediction.seconds.toFixed(1)} s`;
  const sound = card.querySelector("audio");
  sound.src = URL.createObjectURL(clip);
  sound.setAttribute("aria-label", `Play ${prediction.file}`);
  const shares = Object.entries(prediction.probabilities).sort((a, b) => b[1] - a[1]);
  for (const [word, share] of shares) row(card, word, `${(100 * share).toFixed(1)} %`, share);
  for (const [word, value] of Object.entries(prediction.dimensions)) row(card, word, value.toFixed(2), null);
  at("answers").prepend(card);
}

function row(card, word, text, share) {
  const line = card.querySelector("tbody").insertRow();
  line.insertCell().textContent = word;
  const number = line.insertCell();
  number.className = "number";
  number.textContent = text;
  const bar = line.insertCell();
  if (share === null) return;
  const progress = document.createElement("progress");
  progress.value = share;
  progress.setAttribute("aria-label", `${word}: ${text}`);
  bar.append(progress);
}

async function record() {
  if (recording) {
    const stop = recording;
    recording = null;
    pressed(false);
    await predict([await stop()]);
    return;
  }
  try {
    recording = await startRecording();
  } catch (error) {
    say(`No microphone: ${error.message}. A browser gives it to pages on this machine or by https alone.`);
    return;
  }
  pressed(true);
  say("Recording. Press r to end it.");
}

function pressed(on) {
  at("record").setAttribute("aria-pressed", String(on));
  at("record-word").textContent = on ? "Stop and listen" : "Record";
}

const choose = () => at("files").click();
const ACTIONS = { o: choose, r: record };

at("choose").addEventListener("click", choose);
at("record").addEventListener("click", record);
at("files").addEventListener("change", (event) => {
  predict([...event.target.files]);
  event.target.value = "";
});
at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  predict(waiting);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.closest("input, audio")) return;
  ACTIONS[event.key]?.();
});
for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => event.preventDefault());
document.addEventListener("dragover", () => at("drop").classList.add("over"));
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, () => at("drop").classList.remove("over"));
}
document.addEventListener("drop", (event) => predict([...event.dataTransfer.files]));
startTheme();
