// What the person has said of the clip so far: emotions, ratings, how sure, a comment.
import { ENDS, manikin } from "./manikins.js";

export const STEPS = 5;
const SURE = [["Unsure", "q", 0], ["Fairly sure", "w", 0.5], ["Sure", "e", 1]];

export function button(label, key = null) {
  const made = document.createElement("button");
  made.type = "button";
  if (key !== null) {
    const hint = document.createElement("kbd");
    hint.textContent = key;
    made.append(hint, " ");
  }
  made.append(label);
  return made;
}

/** Whether a pointer pressed it, after which the keys shall go to the page again, not to this button. */
export function released(event) {
  if (event.detail > 0) event.currentTarget.blur();
}

export class AnswerForm {
  /** `complete()` is called when one choice says all that was asked. */
  constructor(me, parts, complete) {
    Object.assign(this, parts); // emotions, classes, dimensions, several, also, confidence, comment, send
    this.me = me;
    this.complete = complete;
    this.emotions.hidden = me.classes.length === 0;
    this.first = me.classes.length ? 0 : 1; // place of the first group that is asked
    this.classButtons = me.classes.map((name, index) => {
      const made = button(name, index < 9 ? String(index + 1) : null);
      made.addEventListener("click", (event) => {
        released(event);
        this.choose(index, event.shiftKey);
      });
      return made;
    });
    this.classes.append(...this.classButtons);
    this.groups = [this.emotions, ...me.dimensions.map((name) => this.scale(name))];
    this.dimensions.append(...this.groups.slice(1));
    this.groups.forEach((group, index) => group.addEventListener("focusin", () => this.mark(index)));
    this.sureButtons = SURE.map(([label, key, value]) => {
      const made = button(label, key);
      made.addEventListener("click", (event) => {
        released(event);
        this.beSure(value);
      });
      return made;
    });
    this.confidence.append(...this.sureButtons);
    for (const mode of ["several", "also"]) {
      this[mode].addEventListener("click", (event) => {
        released(event);
        this.toggleMode(mode);
      });
    }
    this.clear();
  }

  scale(name) {
    const group = document.createElement("section");
    group.className = "card group";
    group.setAttribute("role", "group");
    const title = document.createElement("h3");
    title.id = `scale-${name}`;
    title.textContent = name[0].toUpperCase() + name.slice(1);
    group.setAttribute("aria-labelledby", title.id);
    const steps = document.createElement("div");
    steps.className = "steps";
    const [low, high] = ENDS[name];
    for (let step = 0; step < STEPS; step += 1) {
      const made = button("", String(step + 1));
      made.prepend(manikin(name, step / (STEPS - 1)));
      const end = { 0: `, ${low}`, [STEPS - 1]: `, ${high}` }[step] ?? "";
      made.setAttribute("aria-label", `${name} ${step + 1} of ${STEPS}${end}`);
      made.addEventListener("click", (event) => {
        released(event);
        this.rate(name, step);
      });
      steps.append(made);
    }
    const ends = document.createElement("div");
    ends.className = "ends quiet";
    ends.append(...[low, high].map((text) => Object.assign(document.createElement("span"), { textContent: text })));
    group.append(title, steps, ends);
    return group;
  }

  clear() {
    this.restore({ emotions: [], secondary: [], confidence: null, comment: null });
  }

  /** Show an answer given before; a pass is shown as an empty form. */
  restore(answer) {
    this.primary = new Set(answer.emotions);
    this.secondary = new Set(answer.secondary);
    this.ratings = Object.fromEntries(this.me.dimensions.map((name) => [name, answer[name] ?? null]));
    this.sure = answer.confidence;
    this.comment.value = answer.comment ?? "";
    this.modes = { several: false, also: false };
    this.mark(0);
    this.draw();
  }

  toggleMode(mode) {
    if (this.first) return;
    const other = mode === "several" ? "also" : "several";
    this.modes = { [mode]: !this.modes[mode], [other]: false };
    this.mark(0);
    this.draw();
  }

  /** A class was chosen: alone, as one of several, or as heard besides. */
  choose(index, shift) {
    const name = this.me.classes[index];
    if (name === undefined) return;
    const several = shift || this.modes.several;
    if (this.modes.also) {
      this.primary.delete(name);
      if (!this.secondary.delete(name)) this.secondary.add(name);
      this.modes.also = this.modes.also && this.secondary.size === 0; // one key press each; it ends by itself
    } else if (several) {
      this.secondary.delete(name);
      if (!this.primary.delete(name)) this.primary.add(name);
    } else {
      this.secondary.delete(name);
      this.primary = new Set([name]);
    }
    this.draw();
    if (several || this.secondary.size) return;
    if (!this.me.dimensions.length) this.complete();
    else this.next();
  }

  rate(name, step) {
    const [low, high] = this.me.scale;
    this.ratings[name] = low + ((high - low) * step) / (STEPS - 1);
    this.draw();
    if (this.first && this.me.dimensions.length === 1) this.complete();
    else this.next();
  }

  beSure(value) {
    this.sure = this.sure === value ? null : value;
    this.draw();
  }

  /** A number key, for the group that is marked. */
  digit(number, shift) {
    if (this.active === 0) this.choose(number - 1, shift);
    else if (number <= STEPS) this.rate(this.me.dimensions[this.active - 1], number - 1);
  }

  mark(index) {
    this.active = Math.max(this.first, Math.min(this.groups.length - 1, index));
    const several = this.groups.length - this.first > 1;
    this.groups.forEach((group, at) => group.classList.toggle("active", at === this.active && several));
  }

  /** Mark the first group about which nothing was said yet. */
  next() {
    const open = this.me.dimensions.findIndex((name) => this.ratings[name] === null);
    this.mark(this.primary.size === 0 && !this.first ? 0 : open < 0 ? this.active : open + 1);
    this.groups[this.active].scrollIntoView({ block: "nearest" });
  }

  /** What is still to be said, or null. */
  missing() {
    if (this.primary.size === 0 && !this.first) return "Choose an emotion first.";
    const open = this.me.dimensions.filter((name) => this.ratings[name] === null);
    return open.length ? `Still to rate: ${open.join(", ")}.` : null;
  }

  values() {
    const comment = this.comment.value.trim();
    return { confidence: this.sure, comment: comment || null };
  }

  label() {
    const inOrder = (chosen) => this.me.classes.filter((name) => chosen.has(name));
    return { emotions: inOrder(this.primary), secondary: inOrder(this.secondary), ...this.ratings };
  }

  draw() {
    this.me.classes.forEach((name, index) => {
      const made = this.classButtons[index];
      made.setAttribute("aria-pressed", String(this.primary.has(name) || this.secondary.has(name)));
      made.classList.toggle("second", this.secondary.has(name));
      made.setAttribute("aria-label", this.secondary.has(name) ? `${name}, also heard but less` : name);
    });
    this.me.dimensions.forEach((name, index) => {
      const [low, high] = this.me.scale;
      const step = this.ratings[name] === null ? -1 : Math.round(((this.ratings[name] - low) / (high - low)) * (STEPS - 1));
      this.groups[index + 1].querySelectorAll("button").forEach((made, at) => {
        made.setAttribute("aria-pressed", String(at === step));
      });
    });
    this.sureButtons.forEach((made, index) => made.setAttribute("aria-pressed", String(SURE[index][2] === this.sure)));
    for (const mode of ["several", "also"]) this[mode].setAttribute("aria-pressed", String(this.modes[mode]));
    // Where one choice is an answer, there is nothing to send before more than one is wanted.
    const begun = this.primary.size || this.secondary.size || this.modes.several || this.modes.also;
    this.send.hidden = !begun && !this.me.dimensions.length;
  }
}

export const SURE_KEYS = Object.fromEntries(SURE.map(([, key, value]) => [key, value]));
