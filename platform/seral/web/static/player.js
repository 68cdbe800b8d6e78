// One clip at a time: fetched whole, drawn, played at once. The clips to come are fetched before they are needed.
import { bytes, Refused } from "./api.js";

const BINS = 800;
const KEPT = 12;
const RETRY_MS = 2000;
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function fetchSound(id) {
  const data = await bytes(`audio/${encodeURIComponent(id)}`);
  const url = URL.createObjectURL(new Blob([data], { type: "audio/flac" }));
  // An offline context decodes before the first gesture too; decoding takes the buffer away, hence after the blob.
  const buffer = await new OfflineAudioContext(1, 1, 16_000).decodeAudioData(data);
  return { url, duration: buffer.duration, peaks: peaksOf(buffer.getChannelData(0)) };
}

/** Largest magnitude in each of BINS parts of the clip, 1 = the loudest of them. */
function peaksOf(samples) {
  const peaks = new Float32Array(BINS);
  samples.forEach((value, index) => {
    const bin = Math.floor((index * BINS) / samples.length);
    peaks[bin] = Math.max(peaks[bin], Math.abs(value));
  });
  const loudest = Math.max(...peaks) || 1;
  return peaks.map((peak) => peak / loudest);
}

export class Player {
  /** `say(text)` tells the person; `played(id)` is called when a clip begins to play for the first time. */
  constructor(parts, say, played) {
    Object.assign(this, parts); // canvas, position, time, word, loopButton
    this.say = say;
    this.played = played;
    this.logged = null;
    this.audio = new Audio();
    this.sounds = new Map();
    this.current = null;
    this.sound = null;
    this.blocked = false;
    for (const name of ["play", "pause", "ended", "seeked", "timeupdate"]) {
      this.audio.addEventListener(name, () => this.draw());
    }
    this.audio.addEventListener("play", () => this.follow());
    this.audio.addEventListener("playing", () => {
      if (this.current === null || this.logged === this.current) return;
      this.logged = this.current;
      this.played(this.current);
    });
    this.position.addEventListener("input", () => {
      this.audio.currentTime = Number(this.position.value);
    });
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    document.addEventListener("themechange", () => this.draw());
  }

  /** Begin to fetch a clip. */
  prepare(id) {
    if (!this.sounds.has(id)) {
      const coming = fetchSound(id);
      coming.catch(() => this.sounds.delete(id));
      this.sounds.set(id, coming);
      this.forget();
    }
    return this.sounds.get(id);
  }

  forget() {
    for (const id of [...this.sounds.keys()].slice(0, -KEPT)) {
      if (id === this.current) continue;
      this.sounds.get(id).then((sound) => URL.revokeObjectURL(sound.url), () => {});
      this.sounds.delete(id);
    }
  }

  /** Show a clip and play it, as soon as it is here. */
  async show(id) {
    this.audio.pause();
    this.current = id;
    this.sound = null;
    this.draw();
    while (this.current === id) {
      try {
        const sound = await this.prepare(id);
        if (this.current === id) this.ready(sound);
        return;
      } catch (error) {
        if (this.current !== id) return;
        const hopeless = error instanceof Refused || error instanceof DOMException;
        this.say(hopeless ? "This clip cannot be heard: skip it." : "The clip does not come; trying again.");
        if (hopeless) return;
        await wait(RETRY_MS);
      }
    }
  }

  ready(sound) {
    this.sound = sound;
    this.audio.src = sound.url;
    this.position.max = sound.duration.toFixed(2);
    this.start();
  }

  /** Play from the start. */
  start() {
    this.audio.currentTime = 0;
    this.play();
  }

  async play() {
    try {
      await this.audio.play();
      if (this.blocked) this.say("");
      this.blocked = false;
    } catch (error) {
      if (error.name === "NotAllowedError") {
        this.blocked = true;
        this.say("Press space or Play to begin: the browser waits for you before it plays sound.");
      } else if (error.name !== "AbortError") throw error; // AbortError: the next clip came first
    }
    this.draw();
  }

  toggle() {
    if (!this.sound) return;
    if (this.audio.paused) this.play();
    else this.audio.pause();
  }

  loop() {
    this.audio.loop = !this.audio.loop;
    this.loopButton.setAttribute("aria-pressed", String(this.audio.loop));
    if (this.audio.loop && this.audio.paused && this.sound) this.play();
  }

  stop() {
    this.audio.pause();
    this.current = null;
  }

  follow() {
    if (this.audio.paused) return;
    this.draw();
    requestAnimationFrame(() => this.follow());
  }

  draw() {
    const { canvas, audio, sound } = this;
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    this.word.textContent = audio.paused ? "Play" : "Pause";
    if (!sound) {
      this.time.textContent = "loading…";
      return;
    }
    const style = getComputedStyle(canvas);
    const [played, rest] = [style.getPropertyValue("--accent"), style.getPropertyValue("--quiet")];
    const share = Math.min(1, audio.currentTime / sound.duration);
    const bars = Math.max(1, Math.floor(width / (4 * scale)));
    for (let bar = 0; bar < bars; bar += 1) {
      const from = Math.floor((bar * BINS) / bars);
      const to = Math.max(from + 1, Math.floor(((bar + 1) * BINS) / bars));
      const half = Math.max(scale, (Math.max(...sound.peaks.subarray(from, to)) * (height - 4 * scale)) / 2);
      pen.fillStyle = bar / bars < share ? played : rest;
      pen.fillRect((bar * width) / bars, height / 2 - half, 2.6 * scale, 2 * half);
    }
    if (document.activeElement !== this.position || !audio.paused) this.position.value = audio.currentTime;
    this.time.textContent = `${audio.currentTime.toFixed(1)} of ${sound.duration.toFixed(1)} s`;
  }
}
